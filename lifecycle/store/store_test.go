package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekimori/lifecycle/store"
)

// TestMain: the test binary is also a process that holds a pod until it is
// killed.
func TestMain(m *testing.M) {
	root := os.Getenv("SEKI_STORE_TEST_HOLD")
	if root == "" {
		os.Exit(m.Run())
	}
	s, err := store.Open(root)
	if err == nil {
		_, err = s.Claim(state("held", 1), nil)
	}
	fmt.Println(err)
	time.Sleep(time.Hour)
}

func state(name string, containers int) *store.State {
	st := &store.State{Name: name, Source: name + ".star"}
	for i := range containers {
		st.Containers = append(st.Containers, store.Container{Name: fmt.Sprint("c", i), Status: "creating"})
	}
	return st
}

func open(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "seki"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func claim(t *testing.T, s *store.Store, st *store.State) *store.Pod {
	t.Helper()
	p, err := s.Claim(st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// files lists what is below dir, with modes.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		list = append(list, fmt.Sprintf("%s %v", rel, info.Mode()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestLife(t *testing.T) {
	s := open(t)
	st := state("web", 2)
	p := claim(t, s, st)
	log, err := p.Log("c0", 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	want := []string{
		"lock -rw-------", "pods drwx------", "pods/web drwx------", "pods/web/lock -rw-------",
		"pods/web/out.c0.log -rw-------", "pods/web/state.json -rw-------",
	}
	if diff := cmp.Diff(want, files(t, s.Path())); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	e, err := s.Lookup("web")
	if err != nil || !e.Live || e.Err != nil || e.State.Supervisor != os.Getpid() || e.State.Ended() {
		t.Fatalf("Lookup() = %+v, %v", e, err)
	}
	if a, b := e.State.Containers[0].IDBase, e.State.Containers[1].IDBase; a < 1879048192 || a%65536 != 0 || b != a+65536 && b != 1879048192 {
		t.Errorf("id bases %d, %d; want a range of 65536 from 1879048192 on, and the next one", a, b)
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"lock -rw-------", "pods drwx------"}, files(t, s.Path())); diff != "" {
		t.Errorf("files at the end (-want +got):\n%s", diff)
	}
	if _, err := s.Lookup("web"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lookup() of a removed pod = %v; want fs.ErrNotExist", err)
	}
}

func TestNames(t *testing.T) {
	s := open(t)
	for _, name := range []string{"", ".", "..", "a/b", "-a", "a b", "a\x00", "é", strings.Repeat("a", 64)} {
		if _, err := s.Claim(state(name, 1), nil); err == nil || !strings.Contains(err.Error(), "want [a-zA-Z0-9]") {
			t.Errorf("Claim(%q) = %v; want the rule", name, err)
		}
		if _, err := s.OpenFile(name, "state.json"); err == nil {
			t.Errorf("OpenFile(%q) is fine", name)
		}
	}
	p := claim(t, s, state("a", 1))
	defer p.Remove()
	for _, file := range []string{"../../lock", "/etc/passwd", "logs/../../a/state.json"} {
		if f, err := s.OpenFile("a", file); err == nil && !strings.HasSuffix(f.Name(), "a/state.json") {
			t.Errorf("OpenFile(%q) is fine", file)
		}
	}
}

func TestVersion(t *testing.T) {
	s := open(t)
	p := claim(t, s, state("web", 1))
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, state, want string }{
		{"newer", `{"version":2,"name":"web","shape":"unknown"}`, `pod "web": state is of version 2, want 1: it belongs to another seki`},
		{"other pod", `{"version":1,"name":"other"}`, `pod "web": state is of pod "other"`},
		{"torn", `{"version":1,"na`, `pod "web": state: unexpected end of JSON input`},
		{"empty", ``, `pod "web": state: unexpected end of JSON input`},
	}
	for _, tt := range tests {
		if err := os.WriteFile(filepath.Join(s.Path(), "pods/web/state.json"), []byte(tt.state), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := s.Lookup("web")
		if err != nil || e.Live || e.State != nil || e.Err == nil || e.Err.Error() != tt.want {
			t.Errorf("%s: Lookup() = %+v, %v; want error %s", tt.name, e, err, tt.want)
		}
		if _, _, err := s.Adopt("web"); err == nil || err.Error() != tt.want {
			t.Errorf("%s: Adopt() = %v; want %s", tt.name, err, tt.want)
		}
		if _, err := s.Claim(state("web", 1), nil); err == nil || err.Error() != tt.want {
			t.Errorf("%s: Claim() = %v; want %s", tt.name, err, tt.want)
		}
	}
	file := filepath.Join(s.Path(), "pods/web/state.json")
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a state that could not be read was removed: %v", err)
	}
	// From before the machine was started, a torn one is no obstacle.
	if err := os.Chtimes(file, time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	p, st, err := s.Adopt("web")
	if err != nil || st != nil {
		t.Fatalf("Adopt() of a torn state from before the boot = %+v, %v", st, err)
	}
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
}

// TestSocketInLongPath: a path longer than a socket's address may be.
func TestSocketInLongPath(t *testing.T) {
	root := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	s, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := claim(t, s, state("web", 1))
	l, err := p.Listen()
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Dial("web")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.Close()
	var down *store.DownError
	if _, err := s.Dial("web"); !errors.As(err, &down) {
		t.Errorf("Dial() after the end = %v; want a DownError", err)
	}
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
}
