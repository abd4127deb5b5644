package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cloneFlags are the flags of the namespaces that a clone makes. The cgroup
// namespace is not among them: its root is the cgroup of whoever makes it, so
// the child does that itself, once it has been moved to its cgroup.
var cloneFlags = map[specs.LinuxNamespaceType]uint64{
	specs.UserNamespace:    unix.CLONE_NEWUSER,
	specs.MountNamespace:   unix.CLONE_NEWNS,
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
}

// Create makes the container's first process in its namespaces and cgroup. It
// waits there: nothing of the workload has run, no mount is made. On error
// nothing is left behind.
//
// Files that the specification names are opened here, so a path that is
// changed afterwards is not followed again.
func Create(ctx context.Context, cfg Config) (*Container, error) {
	return create(ctx, cfg, nil)
}

// create is Create; change, if not nil, may alter the script (tests do).
func create(ctx context.Context, cfg Config, change func(*script)) (*Container, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cg, err := newCgroup(cfg.cgroupPath(), cfg.linux().Resources)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", cfg.ID, err)
	}
	if r := cfg.linux().Resources; r != nil && r.Pids != nil && cg.missing("pids") {
		cfg.Log.Warn("the number of processes is not limited: no pids controller", "container", cfg.ID, "below", cgroupRoot)
	}
	c := &Container{id: cfg.ID, log: cfg.Log, cgroup: cg, first: cfg.firstOfPIDNamespace()}
	if err := c.create(&cfg, change); err != nil {
		return nil, errors.Join(fmt.Errorf("create container %s: %w", cfg.ID, err), c.Destroy())
	}
	return c, nil
}

// create makes the process, and does for it what only a privileged parent can.
func (c *Container) create(cfg *Config, change func(*script)) error {
	b, err := newBuilder(cfg, c.cgroup)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.build(); err != nil {
		return err
	}
	if change != nil {
		change(b.script)
	}
	c.exec, c.joined = b.exec, b.nsFlags
	if err := c.spawn(cfg, b); err != nil {
		return err
	}
	if uid, gid, ok := c.exec.hostUser(&c.exec.program); ok {
		if err := givePipes(cfg.Stdio, uid, gid); err != nil {
			return err
		}
	}
	return b.adopt(c.proc.pid)
}

// spawn clones the process.
func (c *Container) spawn(cfg *Config, b *builder) error {
	var flags uint64
	for t, f := range cloneFlags {
		if cfg.newNS(t) {
			flags |= f
		}
	}
	proc, err := start(b.script, flags, b.joins, b.control, b.entry)
	if err != nil {
		return fmt.Errorf("clone with new namespaces: %w", err)
	}
	c.proc, b.taken = proc, true
	return nil
}

// start clones a child that carries out s, which is the process's from then on;
// if it fails, the caller's to free. If the script joins namespaces, the
// child that does so is not the one that remains: joins tells, and then flags
// are of the second clone (they are in the script already).
func start(s *script, flags uint64, joins bool, ctl control, cgroup []int) (*process, error) {
	board, err := newBoard()
	if err != nil {
		return nil, err
	}
	args := &cloneArgs{flags: flags, exitSignal: uint64(unix.SIGCHLD)}
	if joins {
		args.flags = 0
	}
	args.cloneInto(cgroup)
	if s.second != nil {
		// The kernel itself notes the second process, before anyone runs on: the
		// first may be killed at any moment, and an unknown child of ours would
		// never be waited for, and keep its pid namespace from ending.
		s.second.parentTID = uint64(uintptr(unsafe.Pointer(&board.pid))) // SAFETY: the page outlives both processes' use of it
	}
	pid, err := spawn(s, args, board)
	ctl.child.Close()
	if err == nil && joins {
		pid, err = board.second(pid, s)
	}
	if err != nil {
		ctl.parent.Close()
		board.free()
		return nil, err
	}
	p := &process{pid: pid, board: board, control: ctl.parent, script: s}
	if err := p.open(); err != nil {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
		ctl.parent.Close()
		board.free()
		return nil, err
	}
	return p, nil
}

// second waits for the process that joined namespaces to hand over to its
// child, and returns the child. The child is ours too (CLONE_PARENT), so its id
// cannot be reused before we wait for it.
func (b *board) second(first int, s *script) (int, error) {
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(first, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	if b.pid == 0 {
		return 0, b.failure(s)
	}
	return int(b.pid), nil
}

// adopt does for the new process what it cannot do itself: its id maps, its
// resource limits, and the attributes of the mounts it is going to attach, for
// which its user namespace is needed.
func (b *builder) adopt(pid int) error {
	cfg := b.cfg
	if cfg.newNS(specs.UserNamespace) {
		uids, gids := cfg.mappings()
		if err := writeMap(pid, "uid_map", uids); err != nil {
			return err
		}
		if err := writeMap(pid, "gid_map", gids); err != nil {
			return err
		}
	}
	p := cfg.Spec.OCI.Process
	if p.OOMScoreAdj != nil {
		if err := setOOMScore(pid, *p.OOMScoreAdj); err != nil {
			return err
		}
	}
	return b.applyAttrs(pid)
}

// writeMap writes an id map, which must be one write(2).
func writeMap(pid int, name string, ms []specs.LinuxIDMapping) error {
	var t strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&t, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	if err := writeFile(fmt.Sprintf("/proc/%d/%s", pid, name), t.String()); err != nil {
		return fmt.Errorf("map ids: %w", err)
	}
	return nil
}

func setOOMScore(pid, score int) error {
	err := writeFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), strconv.Itoa(score))
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("oom score %d: going below the present one needs CAP_SYS_RESOURCE", score)
	}
	return err
}

// writeFile writes to a file of procfs or a cgroup: one write, no creation.
func writeFile(name, data string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(data)); err != nil {
		return &os.PathError{Op: "write " + strconv.Quote(strings.TrimSpace(data)), Path: name, Err: err}
	}
	return nil
}

// readFile reads a file of procfs or a cgroup. The runtime would hand it to its
// poller, as one that may have to be waited for: six calls more, and a thread
// that is woken to hear that it need not.
func readFile(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	data := make([]byte, 0, 512)
	for {
		n, err := unix.Read(fd, data[len(data):cap(data)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		case n == 0:
			return data, nil
		}
		if data = data[:len(data)+n]; len(data) == cap(data) {
			data = slices.Grow(data, len(data))
		}
	}
}

// A control is the socket over which a child is led through its script.
//
//	parent                                child
//	  |  clone3 -------------------------->  |   untraceable; close descriptors; enter the cgroup
//	  |  id maps, mount attributes          |   (waits)
//	  |            Create returns: namespaces exist, the network is attached
//	  |  "." ----------------------------->  |   Prepare: mounts, pivot_root, sysctls, masks
//	  |  <----------------------------- "."  |   (waits)
//	  |            Prepare returns: hooks; resource limits
//	  |  "." ----------------------------->  |   Start: user, capabilities, seccomp, execve
//	  |  <--------------------- end of file  |   the socket is close-on-exec
//
// End of file without success on the board is failure; the board names the step
// and the errno. End of file at the child means that the parent is gone: it ends.
type control struct{ parent, child *os.File }

func newControl() (control, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return control{}, err
	}
	if err := unix.SetNonblock(fds[1], false); err != nil {
		return control{}, err
	}
	return control{parent: os.NewFile(uintptr(fds[0]), "control"), child: os.NewFile(uintptr(fds[1]), "control")}, nil
}

// A process is a child that carries out a script, or has become a program.
type process struct {
	pid     int
	pidfd   *os.File
	control *os.File // nil once the program runs
	board   *board   // nil likewise
	script  *script
}

// open gets a descriptor for the process, by which it is waited for.
func (p *process) open() error {
	fd, err := unix.PidfdOpen(p.pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return err
	}
	p.pidfd = os.NewFile(uintptr(fd), "pidfd")
	return nil
}

// proceed lets the child go on, and returns when it has reached the next gate,
// or, if last, when it has executed its program.
func (p *process) proceed(ctx context.Context, last bool) error {
	stop := context.AfterFunc(ctx, func() { p.control.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [1]byte
	if _, err := p.control.Write([]byte{'.'}); err != nil {
		return p.failure()
	}
	n, err := p.control.Read(buf[:])
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case n == 1 && !last:
		return nil
	case n == 1: // the starter's word of an execve that failed
		pc := p.board.pc
		return &StepError{Step: p.script.steps[p.script.ops[pc].step], Err: unix.Errno(buf[0])}
	case last && p.board.errno == 0 && p.script.ops[p.board.pc].nr == opExec:
		p.release()
		return nil
	case err != nil && !errors.Is(err, os.ErrClosed):
		return p.failure()
	}
	return p.failure()
}

// failure reads from the board what went wrong.
func (p *process) failure() error { return p.board.failure(p.script) }

func (b *board) failure(s *script) error {
	pc := min(int(b.pc), len(s.ops)-1)
	return &StepError{Step: s.steps[s.ops[pc].step], Err: unix.Errno(b.errno)}
}

// release forgets what was needed until the program ran.
func (p *process) release() {
	if p.control != nil {
		p.control.Close()
		p.control = nil
	}
	if p.board != nil {
		p.board.free()
		p.board = nil
	}
	if p.script != nil {
		p.script.free()
		p.script = nil
	}
}

// wait returns when the process has ended. It holds no thread: the pidfd is
// readable then, and Go's poller says so.
func (p *process) wait() (ExitStatus, error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return ExitStatus{}, err
	}
	var info siginfo
	var werr error
	rerr := raw.Read(func(fd uintptr) bool {
		// SAFETY: a siginfo is 128 bytes, as the kernel's; it lives on this stack.
		werr = unix.Waitid(unix.P_PIDFD, int(fd), (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG, nil)
		return werr != unix.EINTR && werr != unix.EAGAIN && (werr != nil || info.pid != 0)
	})
	if err := errors.Join(rerr, werr); err != nil {
		return ExitStatus{}, fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	return info.exit(), nil
}
