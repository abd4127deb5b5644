// Package landlock takes from the calling thread, and from what it starts, all reach
// to files, TCP and abstract sockets but what is allowed (Linux 5.13,
// Documentation/userspace-api/landlock.rst). What is open stays open.
package landlock

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights on files, by the version of Landlock that brought them.
const (
	fsV1 = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1 // the first 13
	fsV2 = fsV1 | unix.LANDLOCK_ACCESS_FS_REFER
	fsV3 = fsV2 | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	fsV5 = fsV3 | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// Version returns the version of Landlock that this kernel has.
func Version() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
		return int(v), nil
	case unix.ENOSYS:
		return 0, fmt.Errorf("this kernel has none (Linux 5.13 and CONFIG_SECURITY_LANDLOCK): %w", errno)
	case unix.EOPNOTSUPP:
		return 0, fmt.Errorf("it is off (lsm= on the kernel's command line lacks landlock): %w", errno)
	default:
		return 0, errno
	}
}

// Rules forbid all that this kernel's Landlock can, but what was allowed.
type Rules struct {
	fd    int
	files uint64
}

// New returns rules that allow nothing. With signals they forbid signals to who is
// not bound by them, too; before Linux 6.15 that is the other threads of a process
// as well.
func New(signals bool) (*Rules, error) {
	version, err := Version()
	if err != nil {
		return nil, err
	}
	a := unix.LandlockRulesetAttr{Handled_access_fs: fsV1}
	if version >= 2 {
		a.Handled_access_fs = fsV2
	}
	if version >= 3 {
		a.Handled_access_fs = fsV3
	}
	if version >= 4 {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= 5 {
		a.Handled_access_fs = fsV5
	}
	if version >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		if signals {
			a.Scoped |= unix.LANDLOCK_SCOPE_SIGNAL
		}
	}
	// Up to Scoped, which Linux 6.12 brought. An older kernel takes the longer
	// structure as long as what it does not know is zero.
	const size = unsafe.Offsetof(unix.LandlockRulesetAttr{}.Quiet_access_fs) // SAFETY: a size only
	// SAFETY: the kernel reads size bytes of a, which lives on.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&a)), size, 0)
	if errno != 0 {
		return nil, fmt.Errorf("create rules: %w", errno)
	}
	return &Rules{int(fd), a.Handled_access_fs}, nil
}

// Files are the rights on files that the rules forbid.
func (r *Rules) Files() uint64 { return r.files }

// Allow allows rights on what is open at fd, and on all below it.
func (r *Rules) Allow(fd int, rights uint64) error {
	a := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	// SAFETY: the kernel reads the first 12 bytes of a local.
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&a)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// AllowPath is Allow of a path.
func (r *Rules) AllowPath(path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		err = r.Allow(fd, rights)
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Restrict binds the calling thread, which cannot gain privileges (no_new_privs), by
// the rules.
func (r *Rules) Restrict() error {
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(r.fd), 0, 0); errno != 0 {
		return fmt.Errorf("restrict: %w", errno)
	}
	return nil
}

// Close forgets the rules. Who is bound by them stays so.
func (r *Rules) Close() error { return unix.Close(r.fd) }
