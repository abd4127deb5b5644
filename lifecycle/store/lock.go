package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

var wholeFile = unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: 0, Len: 0}

// tryLock takes the lock of f, or reports that somebody has it.
func tryLock(f *os.File) (bool, error) {
	l := wholeFile
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

// lock waits for the lock of f.
func lock(f *os.File) error {
	for {
		l := wholeFile
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &l)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// locked reports whether somebody else has the lock of f, without taking it.
func locked(f *os.File) (bool, error) {
	l := wholeFile
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, err
	}
	return l.Type != unix.F_UNLCK, nil
}

// sameFile reports whether name in dir is still the file f.
func sameFile(dir, f *os.File, name string) bool {
	var a, b unix.Stat_t
	if unix.Fstat(int(f.Fd()), &a) != nil || unix.Fstatat(int(dir.Fd()), name, &b, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	return a.Dev == b.Dev && a.Ino == b.Ino
}
