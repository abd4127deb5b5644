package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Pod is the directory of a pod that this process holds the lock of. One
// goroutine at a time may use it, except for the files it opened.
type Pod struct {
	name string
	pods *os.File // its parent
	dir  *os.File
	lock *os.File
}

// acquire takes the pod's lock. The error is fs.ErrNotExist if the pod was
// removed meanwhile.
func (p *Pod) acquire() error {
	f, err := openat(p.dir, lockName, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return err
	}
	got, err := tryLock(f)
	switch {
	case err != nil:
		err = fmt.Errorf("lock %s: %w", f.Name(), err)
	case !got:
		err = p.inUse()
	case !sameFile(p.dir, f, lockName) || !sameFile(p.pods, p.dir, p.name):
		err = fs.ErrNotExist // it was the lock of a pod that is gone
	default:
		p.lock = f
		return nil
	}
	f.Close()
	return err
}

func (p *Pod) inUse() error {
	e := &NameError{Name: p.name}
	if st, err := readState(p.dir, p.name); err == nil {
		e.Pid, e.Since = st.Supervisor, st.Created
	}
	return e
}

// Name of the pod.
func (p *Pod) Name() string { return p.name }

// Save replaces the state.
func (p *Pod) Save(s *State) error {
	if err := writeState(p.dir, s); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// Append opens a file of records, see [Rotated], at most max bytes long.
func (p *Pod) Append(name string, max int64) (*Rotated, error) {
	return openRotated(p.dir, name, max)
}

// Log opens the log of a container, at most max bytes long.
func (p *Pod) Log(container string, max int64) (*Rotated, error) {
	return openRotated(p.dir, LogName(container), max)
}

// LogName is the file of a container's log. It has no directory of its own: to
// make and remove one takes 0.2 ms of a short life.
func LogName(container string) string { return "out." + container + ".log" }

// Create opens a file of the pod for writing, empty.
func (p *Pod) Create(name string) (*os.File, error) {
	return openat(p.dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_APPEND, 0o600)
}

const socketName = "control.sock"

// backlog is how many connections may wait to be accepted; the kernel takes the
// smaller one of this and its own bound (net.core.somaxconn).
const backlog = 4096

// Listen makes the control socket. The address of a unix socket ends at 107
// bytes, which a long path of a state directory would pass: bind through the
// open directory instead.
func (p *Pod) Listen() (*net.UnixListener, error) {
	if err := unlinkat(p.dir, socketName, 0); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	l, err := listen(socketAddr(p.dir))
	if err != nil {
		return nil, fmt.Errorf("state directory: %s/%s: %w", p.dir.Name(), socketName, err)
	}
	l.SetUnlinkOnClose(false) // Remove does it; the descriptor in its address may be another file by then
	return l, nil
}

// listen is net.ListenUnix without its look at /proc/sys for how many may wait
// to be accepted, which costs as much as the rest.
func listen(at *net.UnixAddr) (*net.UnixListener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), at.Name)
	defer f.Close() // the listener has a descriptor of its own
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: at.Name}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// Dial connects to the control socket of a pod. The error is a [*DownError] if
// no supervisor answers there.
func (s *Store) Dial(pod string) (*net.UnixConn, error) {
	dir, err := s.podDir(pod)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DownError{Name: pod, Err: err}
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	c, err := net.DialUnix("unix", nil, socketAddr(dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, &DownError{Name: pod, Err: err}
	}
	return c, err
}

func socketAddr(dir *os.File) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + socketName}
}

// A DownError reports that no supervisor runs a pod of that name.
type DownError struct {
	Name string
	Err  error
}

// Error says so.
func (e *DownError) Error() string { return fmt.Sprintf("pod %q: not running", e.Name) }

// Unwrap returns what the system said.
func (e *DownError) Unwrap() error { return e.Err }

// Release gives the lock up and leaves the directory.
func (p *Pod) Release() error { return errors.Join(p.dir.Close(), p.pods.Close(), p.lock.Close()) }

// Keep removes the control socket, gives the lock up and leaves the records.
func (p *Pod) Keep() error { return errors.Join(unlinkat(p.dir, socketName, 0), p.Release()) }

// Remove removes the directory and gives the lock up. If something cannot be
// removed, the state stays too, so that a later clean-up tries again.
func (p *Pod) Remove() error {
	defer p.Release()
	if err := removeAll(p.dir, 0, lockName, stateName); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	for _, name := range []string{stateName, lockName} {
		if err := unlinkat(p.dir, name, 0); err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	err := unlinkat(p.pods, p.name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTEMPTY) {
		return nil // the next pod of this name is already moving in
	}
	return err
}
