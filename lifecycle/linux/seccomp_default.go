package linux

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A topic is a group of system calls allowed for one reason.
type topic struct {
	why   string
	cap   string // capability that the calls need besides; empty for none
	names string // space separated
}

// topics is the default profile: an allow-list. What is in no topic gets EPERM,
// and what is newer than this list ENOSYS, so that programs fall back.
//
// Left out on purpose, whatever the capabilities: io_uring_* (does the work of
// other calls behind the filter's back, and a kernel bug a month), bpf,
// userfaultfd (makes kernel races easy to win), keyctl, add_key, request_key
// (keyrings are not kept apart by namespaces), kexec_*, *_module, ioperm, iopl,
// swapon, swapoff, nfsservctl, uselib, _sysctl, modify_ldt's likes, lookup_dcookie,
// move_pages, vm86 and the rest of what no container needs.
var topics = []topic{
	{why: "read and write", names: `read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile
		splice tee vmsplice copy_file_range readahead fadvise64 fallocate ftruncate truncate fsync fdatasync sync syncfs sync_file_range
		close close_range dup dup2 dup3 fcntl flock pipe pipe2 ioctl`},
	{why: "files by name", names: `open openat openat2 creat stat lstat fstat newfstatat statx access faccessat faccessat2 statfs fstatfs ustat
		getdents getdents64 readlink readlinkat link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir
		chdir fchdir getcwd chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask utime utimes utimensat futimesat mknod mknodat
		setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr
		setxattrat getxattrat listxattrat removexattrat name_to_handle_at inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
		fanotify_mark cachestat statmount listmount sysfs`},
	{why: "memory", names: `brk mmap munmap mremap mprotect madvise mincore msync mlock mlock2 munlock mlockall munlockall memfd_create memfd_secret
		pkey_alloc pkey_free pkey_mprotect remap_file_pages mseal map_shadow_stack process_mrelease membarrier
		shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr`},
	{why: "processes and threads", names: `fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid set_tid_address
		set_robust_list get_robust_list futex futex_waitv futex_wake futex_wait futex_requeue rseq arch_prctl prctl getpgid getpgrp setpgid getsid setsid
		pidfd_open pidfd_send_signal pidfd_getfd getpriority setpriority getrusage getrlimit setrlimit prlimit64 ioprio_get ioprio_set
		sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam sched_getscheduler
		sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval getcpu restart_syscall times sysinfo uname
		modify_ldt process_vm_readv process_vm_writev ptrace kcmp`},
	{why: "credentials, checked by the kernel against the capabilities", names: `getuid geteuid getgid getegid getresuid getresgid getgroups
		setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capget capset seccomp
		landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_get_self_attr lsm_list_modules getrandom`},
	{why: "signals", names: `rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigqueueinfo rt_tgsigqueueinfo
		sigaltstack kill tkill tgkill pause alarm signalfd signalfd4`},
	{why: "time", names: `nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time getitimer setitimer timer_create timer_settime
		timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime adjtimex clock_adjtime`},
	{why: "waiting for events", names: `select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
		epoll_ctl_old epoll_wait_old eventfd eventfd2 io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents`},
	{why: "sockets, whose families are checked below", names: `socketpair bind connect listen accept accept4 getsockname getpeername getsockopt
		shutdown sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg`},

	{why: "mounts and namespaces of one's own", cap: "CAP_SYS_ADMIN", names: `mount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount
		open_tree open_tree_attr mount_setattr unshare setns sethostname setdomainname quotactl quotactl_fd fanotify_init lsm_set_self_attr`},
	{why: "another root directory", cap: "CAP_SYS_CHROOT", names: `chroot`},
	{why: "files by handle", cap: "CAP_DAC_READ_SEARCH", names: `open_by_handle_at`},
	{why: "the system clock", cap: "CAP_SYS_TIME", names: `settimeofday clock_settime`},
	{why: "the kernel's log", cap: "CAP_SYSLOG", names: `syslog`},
	{why: "performance counters", cap: "CAP_PERFMON", names: `perf_event_open`},
	{why: "accounting", cap: "CAP_SYS_PACCT", names: `acct`},
	{why: "terminals", cap: "CAP_SYS_TTY_CONFIG", names: `vhangup`},
	{why: "memory policy", cap: "CAP_SYS_NICE", names: `mbind get_mempolicy set_mempolicy set_mempolicy_home_node migrate_pages process_madvise`},
	{why: "reboot of the pid namespace", cap: "CAP_SYS_BOOT", names: `reboot`},
}

// filterCaps are the capabilities that make a difference to the default
// profile: those of topics, CAP_SYS_ADMIN and CAP_NET_RAW.
const filterCaps = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_DAC_READ_SEARCH |
	1<<unix.CAP_SYS_TIME | 1<<unix.CAP_SYSLOG | 1<<unix.CAP_PERFMON | 1<<unix.CAP_SYS_PACCT | 1<<unix.CAP_SYS_TTY_CONFIG |
	1<<unix.CAP_SYS_NICE | 1<<unix.CAP_SYS_BOOT

// usualCaps are those of them that a container has by default. For these the
// filter is [usualFilter], compiled beforehand: to compile it takes 0.5 ms of a
// start, and touches 40 pages of memory.
const usualCaps = 1 << unix.CAP_SYS_CHROOT

const (
	allow = unix.SECCOMP_RET_ALLOW
	eperm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	nosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// low compares the low half of an argument: the kernel takes an int there, and
// a comparison of all 64 bits is evaded with rubbish in the upper half.
func low(arg uint, v uint32) cond {
	return cond{arg: arg, op: specs.OpEqualTo, value: uint64(v), mask: 0xffffffff}
}

// defaultProfile is the filter of a container with the given capabilities.
func defaultProfile(caps capSets) *profile {
	p := &profile{other: eperm, unknown: nosys}
	has := func(name string) bool { return name == "" || caps.bounding&(1<<capNumbers()[name]) != 0 }
	p.arguments(has)
	for _, t := range topics {
		if !has(t.cap) {
			continue
		}
		for _, n := range strings.Fields(t.names) {
			p.add(n, allow)
		}
	}
	p.rules = slices.Clip(p.rules)
	return p
}

// add appends a rule for the call name.
func (p *profile) add(name string, action uint32, conds ...cond) {
	if nr, ok := syscallNumbers()[name]; ok {
		p.rules = append(p.rules, rule{nr: nr, conds: conds, action: action})
	}
}

// packetOptions are the options of packet sockets behind CVE-2016-8655,
// CVE-2017-7308 and CVE-2020-14386, or that let a sender's header be rewritten
// by whoever passes the frame on (PACKET_VNET_HDR).
var packetOptions = []uint32{
	unix.PACKET_RX_RING, unix.PACKET_TX_RING, unix.PACKET_RESERVE, unix.PACKET_VNET_HDR, unix.PACKET_FANOUT, packetVnetHdrSize,
}

const packetVnetHdrSize = 24 // PACKET_VNET_HDR_SZ, include/uapi/linux/if_packet.h v6.6

// arguments are the calls that are allowed for some arguments only.
func (p *profile) arguments(has func(string) bool) {
	// Faking input on a terminal: the way out of a container that was given
	// its caller's terminal (CVE-2016-2568 and its kin).
	for _, cmd := range []uint32{unix.TIOCSTI, 0x541c /* TIOCLINUX */} {
		p.add("ioctl", eperm, low(1, cmd))
	}
	p.sockets(has)
	// A new user namespace is a new set of all capabilities, and thereby most
	// of the kernel's privilege escalations.
	if has("CAP_SYS_ADMIN") {
		p.add("clone", allow)
		p.add("clone3", allow)
	} else {
		p.add("clone", allow, cond{arg: 0, op: specs.OpEqualTo, value: 0, mask: unix.CLONE_NEWNS | unix.CLONE_NEWUSER | unix.CLONE_NEWPID |
			unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP})
		// Its flags are in memory, where a filter cannot see them. ENOSYS
		// makes libraries use clone.
		p.add("clone3", nosys)
	}
	// Linux, Linux with ADDR_NO_RANDOMIZE off, uname26, and the query.
	for _, per := range []uint32{0, 0x8, 0x20000, 0x20008, 0xffffffff} {
		p.add("personality", allow, low(0, per))
	}
}

// sockets allows the address families that containers use. AF_VSOCK would
// reach the machine's host, AF_ALG and AF_XDP are attack surface, AF_PACKET is
// for containers that may forge frames anyway.
func (p *profile) sockets(has func(string) bool) {
	families := []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}
	if has("CAP_NET_RAW") {
		families = append(families, unix.AF_PACKET)
	}
	for _, f := range families {
		p.add("socket", allow, low(0, f))
	}
	// Other families: EAFNOSUPPORT, for which programs are prepared.
	p.add("socket", unix.SECCOMP_RET_ERRNO|uint32(unix.EAFNOSUPPORT))
	for _, opt := range packetOptions {
		p.add("setsockopt", eperm, low(1, unix.SOL_PACKET), low(2, opt))
	}
	p.add("setsockopt", allow)
}
