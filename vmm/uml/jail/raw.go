package jail

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
