package lifecycle_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
)

// onTinyDisk runs f on a thread with a mount namespace of its own, in which dir
// is a file system with so many inodes and 64 KiB.
func onTinyDisk(t *testing.T, dir string, inodes int, f func()) {
	t.Helper()
	requireRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread is not fit for others
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=64k,mode=700,nr_inodes=%d", inodes))
		}
		if err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// TestStartOnFullDisk starts pods in a state directory that is full at every
// point of the start: a clear error and nothing left (see newRig), or a pod.
func TestStartOnFullDisk(t *testing.T) {
	started := 0
	for inodes := 2; inodes < 16; inodes++ {
		t.Run(fmt.Sprint(inodes), func(t *testing.T) {
			r := newRig(t, "a", "b")
			if err := os.Mkdir(r.root, 0o700); err != nil {
				t.Fatal(err)
			}
			onTinyDisk(t, r.root, inodes, func() {
				p, err := lifecycle.Start(t.Context(), r.cfg)
				if err == nil {
					started++
					r.exit("a", 0)
					r.exit("b", 0)
					if code, err := wait(t, p); code != 0 || err != nil {
						t.Errorf("Wait() = %d, %v; want 0, nil", code, err)
					}
				} else if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), r.root) {
					t.Errorf("Start() = %v; want no space left, and where", err)
				}
				if left := tree(r.root); len(left) != 0 {
					t.Errorf("left in the state directory: %q", left)
				}
			})
		})
	}
	if started < 2 {
		t.Errorf("%d pods started; want some", started)
	}
}

// TestDiskFillsUp: a running pod goes on without its events, and says so when
// there is room again.
func TestDiskFillsUp(t *testing.T) {
	r := newRig(t, "a")
	if err := os.Mkdir(r.root, 0o700); err != nil {
		t.Fatal(err)
	}
	onTinyDisk(t, r.root, 100, func() {
		p, err := lifecycle.Start(t.Context(), r.cfg)
		if err != nil {
			t.Error(err)
			return
		}
		filler := filepath.Join(r.root, "filler")
		f, err := os.Create(filler)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		f.Close()
		events, cancel := p.Subscribe(4096)
		defer cancel()
		big := strings.Repeat("x", 4096) // does not fit into the last page of events.jsonl
		for range 5 {
			p.Container("a").Log(big, nil)
		}
		p.Container("a").Log("small", nil)
		os.Remove(filler)
		p.Container("a").Log("room again", nil)
		lost := next(t, events, lifecycle.EventLost)
		b, err := os.ReadFile(filepath.Join(r.root, "pods/pod/events.jsonl"))
		if err != nil || lost.Count < 5 || !strings.Contains(string(b), `"type":"lost"`) || strings.Contains(string(b), big) {
			t.Errorf("lost %d events, %v; want 5 or more, said in the file:\n%.300s", lost.Count, err, b)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.HasPrefix(line, `{"seq":`) || !strings.HasSuffix(line, "}\n") {
				t.Errorf("a torn line: %.100q", line)
			}
		}
		r.exit("a", 0)
		wait(t, p)
	})
}
