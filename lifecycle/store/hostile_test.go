package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/store"
)

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
	for _, name := range []string{"events.jsonl", "out.c0.log", "state.json.new"} {
		os.Symlink(canary, filepath.Join(pods, "web", name))
	}
	if _, err := p.Append("events.jsonl", 100); !errors.Is(err, unix.ELOOP) {
		t.Errorf("Append() = %v; want ELOOP", err)
	}
	if _, err := p.Log("c0", 100); !errors.Is(err, unix.ELOOP) {
		t.Errorf("Log() = %v; want ELOOP", err)
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
