package jail

import (
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Filter names one of the two lists of system calls that a kernel may make.
// The zero Filter is the narrower one.
type Filter int

const (
	// Narrow is for a static kernel up to 6.12, ours: 63 calls, found by
	// tracing boots, containers, vsock and 9P.
	Narrow Filter = iota
	// Wide adds what a dynamic loader and newer kernels call: memfd_create and
	// execveat, with which 7.x starts its stubs from a file in memory.
	Wide
)

// always may be called with any arguments.
var always = []uint32{
	unix.SYS_WAIT4, unix.SYS_PREAD64, unix.SYS_RT_SIGRETURN, unix.SYS_TIMER_SETTIME, unix.SYS_MMAP, unix.SYS_MUNMAP,
	unix.SYS_MPROTECT, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_POLL, unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_CTL,
	unix.SYS_EPOLL_CREATE, unix.SYS_FUTEX, unix.SYS_GETPID, unix.SYS_GETPPID,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGSUSPEND, unix.SYS_SIGALTSTACK, unix.SYS_SENDMSG, unix.SYS_RECVMSG,
	unix.SYS_ACCESS, unix.SYS_ARCH_PRCTL, unix.SYS_BIND, unix.SYS_BRK, unix.SYS_CLOSE, unix.SYS_CONNECT, unix.SYS_DUP2,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_FCNTL, unix.SYS_FSTAT, unix.SYS_FSYNC, unix.SYS_GETDENTS64, unix.SYS_GETRANDOM,
	unix.SYS_LSEEK, unix.SYS_MADVISE, unix.SYS_MKDIR, unix.SYS_MODIFY_LDT, unix.SYS_NEWFSTATAT, unix.SYS_OPENAT, unix.SYS_READLINK,
	unix.SYS_RMDIR, unix.SYS_RSEQ, unix.SYS_SET_ROBUST_LIST, unix.SYS_SET_TID_ADDRESS, unix.SYS_SETSID, unix.SYS_STATFS,
	unix.SYS_TIMER_CREATE, unix.SYS_TIMER_GETTIME, unix.SYS_UNAME, unix.SYS_UNLINK,
}

// wider is what [Wide] adds.
var wider = []uint32{
	unix.SYS_STATX, unix.SYS_CLOSE_RANGE, unix.SYS_MEMFD_CREATE, unix.SYS_SIGNALFD4, unix.SYS_DUP3, unix.SYS_GETTID, unix.SYS_EXECVEAT,
	unix.SYS_FTRUNCATE, unix.SYS_CLOCK_GETTIME,
}

// A check allows a call if one argument is as it says.
type check struct {
	nr   uint32
	arg  int
	mask uint32   // if not 0: these bits of the argument must be zero
	not  uint32   // else if not 0: the argument must be another
	one  []uint32 // else: the argument must be one of these
	deny uint32   // what else happens; 0 kills
}

// namespaceFlags are those of clone that would give the process a namespace in
// which it has capabilities again.
const namespaceFlags = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// Requests of ptrace on children: UML's stubs trace themselves to it
// (TRACEME). To attach to a process that did not ask is not among them.
// Numbers: include/uapi/linux/ptrace.h and arch/x86/include/uapi/asm/ptrace-abi.h.
var ptraceRequests = []uint32{
	31, 32, 7, 12, 13, 0x4204, 0x4205, 0x4202, // SYSEMU, SYSEMU_SINGLESTEP, CONT, GETREGS, SETREGS, GETREGSET, SETREGSET, GETSIGINFO
	24, 9, 3, 6, 14, 15, 18, 19, 0x4200, 8, 0, // SYSCALL, SINGLESTEP, PEEKUSER, POKEUSER, GETFPREGS, SETFPREGS, GETFPXREGS, SETFPXREGS, SETOPTIONS, KILL, TRACEME
	30, 1, 2, 4, 5, 21, 33, // ARCH_PRCTL, PEEKTEXT, PEEKDATA, POKETEXT, POKEDATA, OLDSETOPTIONS, SINGLEBLOCK
}

// ioctls of a console; anything else is answered as by no terminal.
var ioctls = []uint32{
	unix.TCGETS, unix.TCSETS, unix.TCSETSW, unix.TCSETSF, unix.TIOCGWINSZ, 0x541b /* FIONREAD */, 0x5421 /* FIONBIO */, 0x5452, /* FIOASYNC */
}

const (
	errnoENOTTY = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOTTY)
	errnoENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	errnoEPERM  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
)

// checks are in the order of how often a kernel makes the call: ptrace stands
// for half of all.
func checks(f Filter) []check {
	cs := []check{
		{nr: unix.SYS_PTRACE, arg: 0, one: ptraceRequests},
		// A kernel that panics sends itself SIGABRT until it is dead, which process
		// 1 of a namespace never is by its own signal. Where it cannot, it exits.
		{nr: unix.SYS_KILL, arg: 1, not: uint32(unix.SIGABRT), deny: errnoEPERM},
		{nr: unix.SYS_TGKILL, arg: 2, not: uint32(unix.SIGABRT), deny: errnoEPERM},
		{nr: unix.SYS_CLONE, arg: 0, mask: namespaceFlags},
		{nr: unix.SYS_IOCTL, arg: 1, one: ioctls, deny: errnoENOTTY},
		{nr: unix.SYS_SOCKET, arg: 0, one: []uint32{unix.AF_UNIX}},
		{nr: unix.SYS_SOCKETPAIR, arg: 0, one: []uint32{unix.AF_UNIX}},
		{nr: unix.SYS_PRLIMIT64, arg: 0, one: []uint32{0}},
		{nr: unix.SYS_PRCTL, arg: 0, one: []uint32{unix.PR_SET_PDEATHSIG, unix.PR_SET_NAME, unix.PR_SET_DUMPABLE}, deny: errnoEPERM},
		// Its flags are in memory, where a filter cannot look. The C library
		// then takes clone.
		{nr: unix.SYS_CLONE3, one: nil, deny: errnoENOSYS},
	}
	if f == Narrow {
		// The stage's own execution of the program: see programFD.
		return append(cs, check{nr: unix.SYS_EXECVEAT, arg: 0, one: []uint32{programFD}})
	}
	// 7.x asks for what the stage has set, and would otherwise execute itself anew.
	return append(cs, check{nr: unix.SYS_PERSONALITY, arg: 0, one: []uint32{addrNoRandomize}})
}

// Offsets into struct seccomp_data (include/uapi/linux/seccomp.h).
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// auditArch is AUDIT_ARCH_X86_64, include/uapi/linux/audit.h.
const auditArch = 0xc000003e

// assemble makes the filter: what is not allowed kills the process.
func (f Filter) assemble() ([]unix.SockFilter, error) {
	kill, allow := bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	insns := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		kill,
		bpf.LoadAbsolute{Off: offNr, Size: 4},
	}
	for _, c := range checks(f) {
		body := c.code()
		if len(body) > 255 {
			return nil, fmt.Errorf("system call filter: rule for call %d: %d instructions", c.nr, len(body))
		}
		insns = append(insns, bpf.JumpIf{Cond: bpf.JumpEqual, Val: c.nr, SkipFalse: uint8(len(body))})
		insns = append(insns, body...)
	}
	list := always
	if f == Wide {
		list = append(list[:len(list):len(list)], wider...)
	}
	for _, nr := range list {
		insns = append(insns, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, allow)
	}
	raw, err := bpf.Assemble(append(insns, kill))
	if err != nil {
		return nil, fmt.Errorf("system call filter: %w", err)
	}
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, nil
}

// code is the rest of a rule; it ends in a return on every path. Only the low
// half of an argument counts where the kernel's type has 32 bits; of those
// that have 64, ptrace's request and clone's flags, the high half must be zero.
func (c check) code() []bpf.Instruction {
	deny := bpf.RetConstant{Val: c.deny} // 0 is SECCOMP_RET_KILL_THREAD
	if c.deny == 0 {
		deny.Val = unix.SECCOMP_RET_KILL_PROCESS
	}
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	if c.mask == 0 && c.not == 0 && len(c.one) == 0 {
		return []bpf.Instruction{deny}
	}
	off := offArgs + 8*uint32(c.arg)
	code := []bpf.Instruction{bpf.LoadAbsolute{Off: off, Size: 4}}
	if c.nr == unix.SYS_PTRACE || c.nr == unix.SYS_CLONE {
		code = []bpf.Instruction{
			bpf.LoadAbsolute{Off: off + 4, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
			deny,
			bpf.LoadAbsolute{Off: off, Size: 4},
		}
	}
	if c.mask != 0 {
		return append(code, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: c.mask, SkipFalse: 1}, deny, allow)
	}
	if c.not != 0 {
		return append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: c.not, SkipFalse: 1}, deny, allow)
	}
	for _, v := range c.one {
		code = append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: 1}, allow)
	}
	return append(code, deny)
}
