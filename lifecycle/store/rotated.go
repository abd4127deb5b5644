package store

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Rotated is a file of lines that never grows past a bound: when it would, it
// becomes NAME.1, in place of the one before, and a new NAME begins. Its methods
// may be called from several goroutines.
type Rotated struct {
	name string
	max  int64

	mu   sync.Mutex // mu guards the fields below
	dir  *os.File
	f    *os.File
	size int64
}

func openRotated(dir *os.File, name string, max int64) (*Rotated, error) {
	fd, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	own := os.NewFile(uintptr(fd), dir.Name())
	r := &Rotated{name: name, max: max, dir: own}
	if err := r.open(); err != nil {
		own.Close()
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return r, nil
}

func (r *Rotated) open() error {
	f, err := openat(r.dir, r.name, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	r.f, r.size = f, st.Size()
	return nil
}

// Write appends whole lines: all of b, or, on error, nothing. A full disk must
// not leave half a line that the next write would continue.
func (r *Rotated) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return 0, os.ErrClosed
	}
	if r.size > 0 && r.size+int64(len(b)) > r.max {
		if err := r.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := r.f.Write(b)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, r.f.Truncate(r.size))
		}
		return 0, err
	}
	r.size += int64(n)
	return n, nil
}

func (r *Rotated) rotate() error {
	d := int(r.dir.Fd())
	if err := unix.Renameat(d, r.name, d, r.name+".1"); err != nil {
		return fmt.Errorf("rotate %s: %w", r.name, err)
	}
	old := r.f
	if err := r.open(); err != nil { // go on in the old file rather than lose lines
		return errors.Join(err, unix.Renameat(d, r.name+".1", d, r.name))
	}
	return old.Close()
}

// Close closes the file.
func (r *Rotated) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return nil
	}
	err := errors.Join(r.f.Close(), r.dir.Close())
	r.f = nil
	return err
}
