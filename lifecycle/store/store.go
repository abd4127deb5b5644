package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// A Store is an open state directory.
type Store struct {
	path string
	dir  *os.File // path
	pods *os.File // path/pods
}

// NameRule says which names [ValidName] takes, as a regular expression.
const NameRule = `[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}`

// ValidName reports whether a pod or a container may have this name. It is
// written out because a regular expression costs 0.1 ms at each start of seki.
func ValidName(name string) bool {
	if len(name) == 0 || len(name) > 63 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// Open opens the state directory at path and makes it if it is not there. It
// must belong to the caller's user and nobody else may write to it.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return open(path, subdir)
}

// OpenExisting opens the state directory at path and changes nothing. If there
// is none the error is fs.ErrNotExist.
func OpenExisting(path string) (*Store, error) {
	return open(path, func(dir *os.File, name string) (*os.File, error) {
		return openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	})
}

func open(path string, sub func(*os.File, string) (*os.File, error)) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	dir, err := os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := checkOwner(dir); err != nil {
		dir.Close()
		return nil, err
	}
	pods, err := sub(dir, "pods")
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &Store{path: path, dir: dir, pods: pods}, nil
}

// checkOwner refuses a directory in which somebody else could put a pod or take
// one away: its records decide which processes are killed.
func checkOwner(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("state directory %s: %w", dir.Name(), err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("state directory %s: belongs to user %d, want %d", dir.Name(), st.Uid, os.Geteuid())
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("state directory %s: others may write to it (mode %04o)", dir.Name(), st.Mode&0o7777)
	}
	return nil
}

// Place tells the state directory from every other one that the host has, under
// whatever path it is seen. Names that the host has once, such as those of
// cgroups, contain it: two directories may hold pods of one name.
func (s *Store) Place() (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.dir.Fd()), &st); err != nil {
		return "", fmt.Errorf("state directory %s: %w", s.path, err)
	}
	return fmt.Sprintf("%x-%x", st.Dev, st.Ino), nil
}

// Path is the absolute path of the state directory.
func (s *Store) Path() string { return s.path }

// Close closes the state directory; pods that were claimed stay so.
func (s *Store) Close() error { return errors.Join(s.pods.Close(), s.dir.Close()) }

// An Entry is one pod of a list.
type Entry struct {
	Name  string
	Live  bool   // a supervisor holds it
	State *State // what state.json says; nil if it could not be read
	Err   error  // why State is nil
}

// List returns the pods by name. A pod that comes or goes meanwhile may be in it
// or not.
func (s *Store) List() ([]Entry, error) {
	names, err := readNames(s.pods)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	slices.Sort(names)
	var list []Entry
	for _, name := range names {
		if !ValidName(name) {
			continue
		}
		e, err := s.Lookup(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return nil, err
		}
		list = append(list, *e)
	}
	return list, nil
}

// Lookup returns the pod of that name; the error is fs.ErrNotExist if there is
// none.
func (s *Store) Lookup(name string) (*Entry, error) {
	dir, err := s.podDir(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	e := &Entry{Name: name}
	switch f, err := openat(dir, lockName, unix.O_RDWR, 0); {
	case errors.Is(err, fs.ErrNotExist): // half made or half removed: dead
	case err != nil:
		return nil, err
	default:
		e.Live, err = locked(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("pod %q: lock: %w", name, err)
		}
	}
	e.State, e.Err = readState(dir, name)
	return e, nil
}

// podDir opens the directory of a pod that exists.
func (s *Store) podDir(name string) (*os.File, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("pod name %q: want %s", name, NameRule)
	}
	return openat(s.pods, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// OpenFile opens a file of a pod for reading, such as "events.jsonl" or a
// [LogName].
func (s *Store) OpenFile(pod, file string) (*os.File, error) {
	dir, err := s.podDir(pod)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return openat(dir, file, unix.O_RDONLY, 0)
}
