package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

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
		"pods/web/logs drwx------", "pods/web/logs/c0.log -rw-------",
		"pods/web/state.json -rw-------",
	}
	if diff := cmp.Diff(want, files(t, s.Path())); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	e, err := s.Lookup("web")
	if err != nil || !e.Live || e.Err != nil || e.State.Supervisor != os.Getpid() || e.State.Ended() {
		t.Fatalf("Lookup() = %+v, %v", e, err)
	}
	if a, b := e.State.Containers[0].IDBase, e.State.Containers[1].IDBase; a != 1879048192 || b != a+65536 {
		t.Errorf("id bases %d, %d; want 1879048192 and the next range", a, b)
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

func TestNameInUse(t *testing.T) {
	s := open(t)
	p := claim(t, s, state("web", 1))
	defer p.Remove()
	_, err := s.Claim(state("web", 1), nil)
	var used *store.NameError
	if !errors.As(err, &used) || used.Pid != os.Getpid() || used.Since.IsZero() {
		t.Fatalf("Claim() = %v; want a NameError", err)
	}
	want := fmt.Sprintf(`pod "web": name in use by process %d since %s`, os.Getpid(), used.Since.Format(time.RFC3339))
	if err.Error() != want {
		t.Errorf("Claim() = %v; want %s", err, want)
	}
	if _, _, err := s.Adopt("web"); !errors.As(err, &used) {
		t.Errorf("Adopt() of a living pod = %v; want a NameError", err)
	}
}

// TestHolderKilled: only the death of the process frees the name, and then the
// pod is dead until it is adopted.
func TestHolderKilled(t *testing.T) {
	s := open(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SEKI_STORE_TEST_HOLD="+s.Path())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	buf := make([]byte, 64)
	if n, _ := out.Read(buf); string(buf[:n]) != "<nil>\n" {
		t.Fatalf("the holder says %q", buf[:n])
	}
	e, err := s.Lookup("held")
	if err != nil || !e.Live || e.State.Supervisor != cmd.Process.Pid {
		t.Fatalf("Lookup() = %+v, %v; want a living pod", e, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if e, err := s.Lookup("held"); err != nil || e.Live || e.State == nil {
		t.Fatalf("Lookup() = %+v, %v; want a dead pod", e, err)
	}
	var dead *store.DeadError
	if _, err := s.Claim(state("held", 1), nil); !errors.As(err, &dead) {
		t.Errorf("Claim() = %v; want a DeadError", err)
	}
	if e, err := s.Lookup("held"); err != nil || e.State == nil {
		t.Errorf("after the refused claim: %+v, %v; want the record still there", e, err)
	}
	// Its ids stay taken: processes may still run under them.
	other := state("other", 1)
	defer claim(t, s, other).Remove()
	if other.Containers[0].IDBase == 1879048192 {
		t.Error("a new pod got the ids of a dead one")
	}
	p, st, err := s.Adopt("held")
	if err != nil || st == nil || st.Name != "held" {
		t.Fatalf("Adopt() = %+v, %v", st, err)
	}
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Adopt("held"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Adopt() again = %v; want fs.ErrNotExist", err)
	}
}

// TestConcurrent has many take and give the same few names, and others look on:
// never two have one name, never one range of ids is given twice, and a list is
// never broken.
func TestConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seki")
	var holders [3]atomic.Int32
	var ids sync.Map
	var claims atomic.Int32
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			s, err := store.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for i := range 60 {
				n := (w + i) % len(holders)
				st := state(fmt.Sprint("pod", n), 2)
				p, err := s.Claim(st, nil)
				var used *store.NameError
				if errors.As(err, &used) {
					if used.Pid != os.Getpid() && used.Pid != 0 {
						t.Error(err)
					}
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				claims.Add(1)
				if holders[n].Add(1) != 1 {
					t.Error("two hold one name")
				}
				for _, c := range st.Containers {
					if _, dup := ids.LoadOrStore(c.IDBase, true); dup {
						t.Errorf("ids %d given twice", c.IDBase)
					}
				}
				st.Source = "changed"
				if err := p.Save(st); err != nil {
					t.Error(err)
				}
				for _, c := range st.Containers {
					ids.Delete(c.IDBase)
				}
				holders[n].Add(-1)
				if err := p.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() { // looks on, and cleans up what seems dead, of which there is nothing
			s, err := store.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for i := range 200 {
				p, st, err := s.Adopt(fmt.Sprint("pod", i%len(holders)))
				if err == nil {
					if st != nil {
						t.Errorf("adopted a living pod: %+v", st)
					}
					if err := p.Remove(); err != nil {
						t.Error(err)
					}
				}
				list, err := s.List()
				if err != nil {
					t.Error(err)
				}
				for _, e := range list {
					// Between the lock and the first state there is none.
					if e.Err != nil && !errors.Is(e.Err, fs.ErrNotExist) {
						t.Errorf("%s: %v", e.Name, e.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := claims.Load(); n < 20 {
		t.Errorf("only %d claims succeeded", n)
	}
	if left, _ := os.ReadDir(filepath.Join(path, "pods")); len(left) != 0 {
		t.Errorf("left: %v", left)
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

// TestForeignDirectory refuses state directories in which others could put
// records: they decide which processes are killed.
func TestForeignDirectory(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	if _, err := store.Open(dir); err == nil || !strings.Contains(err.Error(), "others may write to it (mode 0777)") {
		t.Errorf("Open() = %v", err)
	}
	os.Chmod(dir, 0o700)
	if os.Geteuid() == 0 {
		os.Chown(dir, 1000, 1000)
		if _, err := store.Open(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 1000, want 0") {
			t.Errorf("Open() = %v", err)
		}
	}
	if _, err := store.OpenExisting(filepath.Join(dir, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenExisting() = %v; want fs.ErrNotExist", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	if _, err := store.Open(file); err == nil || !strings.Contains(err.Error(), "state directory: mkdir "+file+": not a directory") {
		t.Errorf("Open() of a file = %v", err)
	}
}

// TestSymlinks: links below the state directory lead nowhere.
func TestSymlinks(t *testing.T) {
	s := open(t)
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	os.WriteFile(canary, []byte("{}"), 0o600)
	pods := filepath.Join(s.Path(), "pods")
	if err := os.Symlink(outside, filepath.Join(pods, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(state("link", 1), nil); !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("Claim() through a link = %v", err)
	}
	if _, err := s.List(); !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("List() over a link = %v", err)
	}
	os.Remove(filepath.Join(pods, "link"))
	p := claim(t, s, state("web", 1))
	for _, name := range []string{"events.jsonl", "logs", "state.json.new"} {
		os.Symlink(canary, filepath.Join(pods, "web", name))
	}
	if _, err := p.Append("events.jsonl", 100); !errors.Is(err, unix.ELOOP) {
		t.Errorf("Append() = %v; want ELOOP", err)
	}
	if _, err := p.Log("c0", 100); err == nil {
		t.Error("Log() through a link is fine")
	}
	if err := p.Save(state("web", 1)); !errors.Is(err, unix.ELOOP) {
		t.Errorf("Save() = %v; want ELOOP", err)
	}
	os.Symlink(outside, filepath.Join(pods, "web", "dir"))
	if err := p.Remove(); err != nil {
		t.Errorf("Remove() = %v", err)
	}
	if b, err := os.ReadFile(canary); string(b) != "{}" || err != nil {
		t.Errorf("the file outside: %q, %v", b, err)
	}
}

func TestRotated(t *testing.T) {
	s := open(t)
	p := claim(t, s, state("web", 1))
	defer p.Remove()
	r, err := p.Append("events.jsonl", 100)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if n, err := r.Write([]byte("0123456789\n")); n != 11 || err != nil {
					t.Errorf("Write() = %d, %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	dir := filepath.Join(s.Path(), "pods/web")
	for _, name := range []string{"events.jsonl", "events.jsonl.1"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(b) > 100 || len(b)%11 != 0 {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	if _, err := r.Write(make([]byte, 500)); err != nil { // longer than the bound: alone in its file
		t.Error(err)
	}
	r.Close()
	if _, err := r.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write() after Close() = %v", err)
	}
	if f, err := s.OpenFile("web", "events.jsonl"); err != nil {
		t.Error(err)
	} else {
		f.Close()
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

// requireRoot skips a test that mounts, unless the environment says that root
// must be there.
func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if strings.Contains(","+os.Getenv("SEKI_TEST_REQUIRE")+",", ",root,") {
		t.Fatal("root is required and missing")
	}
	t.Skip("missing feature: root")
}

// mounted runs f on a thread with a mount namespace of its own, which ends with
// the thread.
func mounted(t *testing.T, f func()) {
	t.Helper()
	requireRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread is not fit for others
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// TestFullDisk claims and saves in a file system that is full at every possible
// point: a clear error, and nothing half made.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	mounted(t, func() {
		whole := 0
		for inodes := 2; inodes < 12; inodes++ {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=64k,mode=700,nr_inodes=%d", inodes)); err != nil {
				t.Error(err)
				return
			}
			whole += fillUp(t, dir)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
		if whole < 2 {
			t.Errorf("a pod could be claimed in %d cases; want some", whole)
		}
	})
}

// fillUp returns 1 if a pod could be claimed in dir.
func fillUp(t *testing.T, dir string) int {
	s, err := store.Open(dir)
	if err != nil {
		if !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), "state directory: ") {
			t.Errorf("Open() = %v; want no space left", err)
		}
		return 0
	}
	defer s.Close()
	p, err := s.Claim(state("web", 1), nil)
	if err != nil {
		if !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), "state directory: ") {
			t.Errorf("Claim() = %v; want no space left", err)
		}
		if left, _ := os.ReadDir(filepath.Join(dir, "pods")); len(left) != 0 {
			t.Errorf("a claim that failed left %v", left)
		}
		return 0
	}
	// Now fill the blocks: the old state must survive what cannot be saved.
	log, err := p.Log("c0", 1<<20)
	if err == nil {
		for err == nil {
			_, err = log.Write([]byte(strings.Repeat("0123456789abcde\n", 64)))
		}
		log.Close()
		if b, rerr := os.ReadFile(filepath.Join(dir, "pods/web/logs/c0.log")); rerr != nil || len(b)%1024 != 0 {
			t.Errorf("the full log has %d bytes, %v; want whole writes", len(b), rerr)
		}
		st := state("web", 1)
		st.Source = strings.Repeat("x", 8192)
		if err := p.Save(st); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Save() = %v; want no space left", err)
		}
	}
	if e, err := s.Lookup("web"); err != nil || e.State == nil || e.State.Source != "web.star" {
		t.Errorf("Lookup() = %+v, %v; want the old state", e, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "pods/web/state.json.new")); err == nil {
		t.Error("half a state is left")
	}
	if err := p.Remove(); err != nil {
		t.Errorf("Remove() on a full disk = %v", err)
	}
	return 1
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	mounted(t, func() {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "mode=700"); err != nil {
			t.Error(err)
			return
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		if _, err := store.Open(dir); !errors.Is(err, unix.EROFS) || !strings.HasPrefix(err.Error(), "state directory: mkdir "+dir) {
			t.Errorf("Open() = %v; want a read-only file system", err)
		}
	})
}

// TestMountLeftBehind: a directory bound in the state directory is not emptied.
func TestMountLeftBehind(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	canary := filepath.Join(outside, "canary")
	os.WriteFile(canary, nil, 0o600)
	mounted(t, func() {
		s, err := store.Open(filepath.Join(dir, "seki"))
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		p, err := s.Claim(state("web", 1), nil)
		if err != nil {
			t.Error(err)
			return
		}
		scratch := filepath.Join(s.Path(), "pods/web/mount")
		if err := errors.Join(os.Mkdir(scratch, 0o700), unix.Mount(outside, scratch, "", unix.MS_BIND, "")); err != nil {
			t.Error(err)
			return
		}
		if err := p.Remove(); !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EBUSY) {
			t.Errorf("Remove() over a mount = %v; want an error", err)
		}
		if _, err := os.Stat(canary); err != nil {
			t.Errorf("the mount's source was emptied: %v", err)
		}
		if e, err := s.Lookup("web"); err != nil || e.State == nil {
			t.Errorf("Lookup() = %+v, %v; want the record for a later try", e, err)
		}
		unix.Unmount(scratch, 0)
		p, _, err = s.Adopt("web")
		if err != nil {
			t.Error(err)
			return
		}
		if err := p.Remove(); err != nil {
			t.Errorf("Remove() once the mount is gone = %v", err)
		}
	})
}
