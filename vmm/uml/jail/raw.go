package jail

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LandlockVersion returns the version of Landlock that this kernel has. A
// kernel without it is refused: the second wall is part of what is promised.
func LandlockVersion() (int, error) {
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

// rulesetSize is up to Scoped, which Linux 6.12 brought. An older kernel takes
// the longer structure as long as what it does not know is zero.
const rulesetSize = unsafe.Offsetof(unix.LandlockRulesetAttr{}.Quiet_access_fs) // SAFETY: a size only

func newRuleset(a *unix.LandlockRulesetAttr) (int, error) {
	// SAFETY: the kernel reads rulesetSize bytes of *a, which lives on.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(a)), rulesetSize, 0)
	if errno != 0 {
		return -1, fmt.Errorf("create rules: %w", errno)
	}
	return int(fd), nil
}

func addRule(rules, fd int, access uint64) error {
	a := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	// SAFETY: the kernel reads the first 12 bytes of a local.
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&a)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func restrictSelf(rules int) error {
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
		return fmt.Errorf("restrict: %w", errno)
	}
	return nil
}

// An execution is the arguments of execveat, made beforehand.
type execution struct {
	path      *byte
	argv, env []*byte
}

func prepareExec(args, env []string) (*execution, error) {
	e := &execution{}
	var err error
	if e.path, err = unix.BytePtrFromString(""); err != nil {
		return nil, err
	}
	if e.argv, err = syscall.SlicePtrFromStrings(args); err != nil {
		return nil, fmt.Errorf("arguments: %w", err)
	}
	if e.env, err = syscall.SlicePtrFromStrings(env); err != nil {
		return nil, fmt.Errorf("environment: %w", err)
	}
	return e, nil
}

// installAndExec installs the filter on this thread and executes what is open
// at programFD, by the one call for which the filter has a rule; without an
// execution it ends the process.
func installAndExec(filter []unix.SockFilter, e *execution) error {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// SAFETY: all of it was allocated above and is kept alive below; the kernel
	// only reads.
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("system call filter: %w", errno)
	}
	if e == nil {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	_, _, errno = unix.RawSyscall6(unix.SYS_EXECVEAT, programFD, uintptr(unsafe.Pointer(e.path)),
		uintptr(unsafe.Pointer(&e.argv[0])), uintptr(unsafe.Pointer(&e.env[0])), unix.AT_EMPTY_PATH, 0)
	runtime.KeepAlive(filter)
	runtime.KeepAlive(e)
	if errno == unix.EACCES {
		return fmt.Errorf("execute the program: %w (the jail's user must be able to read and execute its file)", errno)
	}
	return fmt.Errorf("execute the program: %w", errno)
}
