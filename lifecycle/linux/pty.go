package linux

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// ErrNoPTY reports a container without a devpts of its own at /dev/pts.
var ErrNoPTY = errors.New("the container has no /dev/pts of its own")

// NewPTY makes a pseudo terminal for a process: in the container of process pid,
// if that has a devpts of its own, and else, or if pid is 0, of the host's. The
// slave is for the child alone.
func NewPTY(pid int) (console.Console, *os.File, error) {
	if pid == 0 {
		return hostPTY()
	}
	m, slave, err := OpenPTY(pid)
	if errors.Is(err, ErrNoPTY) || errors.Is(err, os.ErrNotExist) {
		return hostPTY()
	}
	if err != nil {
		return nil, nil, err
	}
	master, err := console.ConsoleFromFile(m)
	if err != nil {
		return nil, nil, errors.Join(err, m.Close(), slave.Close())
	}
	return master, slave, nil
}

func hostPTY() (console.Console, *os.File, error) {
	master, path, err := console.NewPty()
	if err != nil {
		return nil, nil, err
	}
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}

// OpenPTY makes a pseudo terminal in the devpts of the container that process
// pid (of the host's pid namespace) is in: it has a name there, so that tty(1)
// knows it.
//
// The container runs, and may have put anything at that path: nothing is opened
// but the multiplexer of a devpts, and the slave is asked of the master and
// never looked up by name (TIOCGPTPEER; CVE-2025-52565 is what a name can do).
func OpenPTY(pid int) (master, slave *os.File, err error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("root of process %d: %w", pid, err)
	}
	defer unix.Close(root)
	path, err := unix.Openat2(root, "dev/pts/ptmx", &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoPTY, err)
	}
	defer unix.Close(path)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(path, &fs); err != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC || !isDevice(path, 5, 2) {
		return nil, nil, ErrNoPTY
	}
	if master, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", path), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, fmt.Errorf("pseudo terminal: %w", err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("unlock pseudo terminal: %w", err), master.Close())
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, nil, errors.Join(fmt.Errorf("slave of pseudo terminal: %w", errno), master.Close())
	}
	return master, os.NewFile(peer, "slave of a pseudo terminal"), nil
}

// giveTerminal makes a terminal of the container's own devpts its user's, who
// may then open it by name; the host's terminals stay their owners'.
func giveTerminal(slave *os.File, uid uint32) error {
	var own, host unix.Stat_t
	if err := unix.Fstat(int(slave.Fd()), &own); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	if err := unix.Stat("/dev/pts", &host); err == nil && host.Dev == own.Dev {
		return nil
	}
	if err := unix.Fchown(int(slave.Fd()), int(uid), int(own.Gid)); err != nil {
		return fmt.Errorf("terminal: chown: %w", err)
	}
	return nil
}
