package kvm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What a vCPU's thread can do is bounded from its first entry into the guest on:
// it has no capability, no way to get one, and the system calls that running a
// guest, judging its frames and the Go runtime take. None of them takes a path, an
// address of a socket or the number of another process. (What stands behind this
// list: namespaces.go.)
//
// The bound is the thread's: it has the process's memory, and is no wall against
// who can write to that. It is one against what a confused device model could be
// talked into.

// plain calls may be made with any arguments. Of the runtime's are those from
// futex on: sleeping, waking, growing and returning memory, signals, timers of
// the profiler, the end of a thread.
var plain = []uint32{
	unix.SYS_WRITE, unix.SYS_READ, unix.SYS_WRITEV, unix.SYS_PWRITE64, unix.SYS_PREAD64,
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_SCHED_YIELD,
	unix.SYS_MADVISE, unix.SYS_MUNMAP, unix.SYS_MINCORE, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGACTION,
	unix.SYS_SIGALTSTACK, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_SCHED_GETAFFINITY,
	unix.SYS_GETRANDOM, unix.SYS_RESTART_SYSCALL, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
}

// deadly calls end the process: nothing here makes them, and who does has
// taken the thread over. All others fail.
var deadly = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_FORK, unix.SYS_VFORK,
	unix.SYS_MOUNT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE,
	unix.SYS_BPF, unix.SYS_KEXEC_LOAD, unix.SYS_IO_URING_SETUP, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_PIDFD_GETFD, unix.SYS_REBOOT,
}

// Offsets into struct seccomp_data, and the number of this architecture
// (include/uapi/linux/seccomp.h, audit.h).
const (
	offNr     = 0
	offArch   = 4
	offArgs   = 16
	archX8664 = 0xc000003e
)

// filter is the list as a program, for threads of this process.
var filter = sync.OnceValues(func() ([]unix.SockFilter, error) {
	kill, allow := bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	refuse := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	insns := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: archX8664, SkipTrue: 1},
		kill,
		bpf.LoadAbsolute{Off: offNr, Size: 4},
	}
	// only adds a call that is allowed if an argument is one of those values.
	only := func(nr uint32, arg int, values ...uint32) {
		body := []bpf.Instruction{bpf.LoadAbsolute{Off: offArgs + 8*uint32(arg), Size: 4}}
		for _, v := range values {
			body = append(body, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: 1}, allow)
		}
		body = append(body, refuse)
		insns = append(append(insns, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: uint8(len(body))}), body...)
	}
	only(unix.SYS_IOCTL, 1, uint32(ioRun), uint32(ioGetRegs), uint32(ioGetMSRs))
	for _, nr := range plain {
		insns = append(insns, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, allow)
	}
	only(unix.SYS_MMAP, 2, unix.PROT_NONE, unix.PROT_READ, unix.PROT_READ|unix.PROT_WRITE)
	only(unix.SYS_MPROTECT, 2, unix.PROT_NONE, unix.PROT_READ, unix.PROT_READ|unix.PROT_WRITE)
	only(unix.SYS_TGKILL, 0, uint32(os.Getpid()))
	for _, nr := range deadly {
		insns = append(insns, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, kill)
	}
	raw, err := bpf.Assemble(append(insns, refuse))
	if err != nil {
		return nil, fmt.Errorf("system call filter: %w", err)
	}
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, nil
})

// contain bounds the calling thread, which its goroutine is locked to for good:
// the runtime starts no thread from such a one.
func contain(ns *namespaces) error {
	f, err := filter()
	if err != nil {
		return err
	}
	if err := ns.enter(); err != nil {
		return err
	}
	// An ambient capability is gone with the permitted one; a kernel without them
	// has none to clear.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := restrictFiles(); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	// SAFETY: the kernel reads prog and what it points to, which live on below.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return fmt.Errorf("system call filter: %w", errno)
	}
	return nil
}
