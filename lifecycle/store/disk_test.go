package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/store"
)

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
		if b, rerr := os.ReadFile(filepath.Join(dir, "pods/web/out.c0.log")); rerr != nil || len(b)%1024 != 0 {
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
