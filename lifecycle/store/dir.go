package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openat opens name, one or more components below dir. Neither a symbolic link
// nor a mount point nor ".." on the way is passed (openat2, Linux 5.6).
func openat(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir.Name() + "/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}

// subdir opens the directory name below dir, making it if it is not there.
func subdir(dir *os.File, name string) (*os.File, error) {
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mkdir", Path: dir.Name() + "/" + name, Err: err}
	}
	return openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

func unlinkat(dir *os.File, name string, flags int) error {
	err := unix.Unlinkat(int(dir.Fd()), name, flags)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: dir.Name() + "/" + name, Err: err}
	}
	return nil
}

// maxDepth bounds the recursion of removeAll; containers cannot write here, so
// anything deeper is not ours.
const maxDepth = 64

// removeAll removes what is in dir but not dir itself, and leaves the names in
// keep. Every entry is tried.
func removeAll(dir *os.File, depth int, keep ...string) error {
	if depth > maxDepth {
		return fmt.Errorf("remove %s: directories nest too deep", dir.Name())
	}
	names, err := readNames(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if !contains(keep, name) {
			errs = append(errs, removeEntry(dir, name, depth))
		}
	}
	return errors.Join(errs...)
}

func removeEntry(dir *os.File, name string, depth int) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return &fs.PathError{Op: "remove", Path: dir.Name() + "/" + name, Err: err}
	}
	sub, err := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := removeAll(sub, depth+1); err != nil {
		return err
	}
	return unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// readNames lists dir afresh: the offset of an open directory is shared by all
// who use it.
func readNames(dir *os.File) ([]string, error) {
	d, err := openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
