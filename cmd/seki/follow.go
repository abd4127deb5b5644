package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/store"
)

// A tail reads the lines of a file that somebody else appends to, through its
// rotation: NAME becomes NAME.1 and a new NAME begins.
type tail struct {
	open func() (*os.File, error)
	f    *os.File
	r    *bufio.Reader
	rest []byte // of a line whose end is not written yet
}

// openTail opens a file of a pod, with the generation before it in front if
// there is one.
func openTail(s *store.Store, pod, name string, line func([]byte) error) (*tail, error) {
	if old, err := s.OpenFile(pod, name+".1"); err == nil {
		t := &tail{f: old, r: bufio.NewReader(old)}
		err := t.lines(line)
		old.Close()
		if err != nil {
			return nil, err
		}
	}
	t := &tail{open: func() (*os.File, error) { return s.OpenFile(pod, name) }}
	return t, t.reopen()
}

func (t *tail) reopen() error {
	f, err := t.open()
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	t.close()
	t.f, t.r = f, bufio.NewReader(f)
	return nil
}

func (t *tail) close() {
	if t.f != nil {
		t.f.Close()
	}
}

// more hands over the lines that were added since the last call.
func (t *tail) more(line func([]byte) error) error {
	if t.f != nil {
		if err := t.lines(line); err != nil {
			return err
		}
	}
	if t.rotated() {
		if err := t.reopen(); err != nil {
			return err
		}
		if t.f != nil {
			return t.lines(line)
		}
	}
	return nil
}

// rotated reports whether the file under the name is another one than ours.
func (t *tail) rotated() bool {
	f, err := t.open()
	if err != nil {
		return false
	}
	defer f.Close()
	if t.f == nil {
		return true
	}
	a, errA := f.Stat()
	b, errB := t.f.Stat()
	return errA == nil && errB == nil && !os.SameFile(a, b)
}

func (t *tail) lines(line func([]byte) error) error {
	for {
		b, err := t.r.ReadBytes('\n')
		t.rest = append(t.rest, b...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = line(t.rest)
		t.rest = t.rest[:0]
		if err != nil {
			return err
		}
	}
}

// A watch waits for changes of files in a directory.
type watch struct {
	f   *os.File
	buf [4096]byte
}

// newWatch watches the directory of a pod.
func newWatch(root, pod string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watch{f: os.NewFile(uintptr(fd), "inotify")}
	const mask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_DELETE_SELF
	dir := filepath.Join(root, "pods", pod)
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil && !errors.Is(err, unix.ENOENT) {
		w.f.Close()
		return nil, &os.PathError{Op: "watch", Path: dir, Err: err}
	}
	return w, nil
}

// lookAgain is how long a watch waits without a change. A supervisor that ends
// lets go of its lock after its last change to a file, and that no watch sees.
const lookAgain = 250 * time.Millisecond

// wait returns when something may have changed, or with ctx's error.
func (w *watch) wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { w.f.Close() })()
	w.f.SetReadDeadline(time.Now().Add(lookAgain))
	_, err := w.f.Read(w.buf[:])
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}
