package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// An ExecConfig describes one more process in a running container.
type ExecConfig struct {
	Args []string // program and arguments; the program is looked up in the container's PATH
	Env  []string // KEY=value, added to the container's environment, which it overrides
	Cwd  string   // absolute, inside; empty is the container's
	// User is "USER[:GROUP]", names or numbers as in [bundle.ParseUser]; names
	// are the container's. Empty is the container's user.
	User string
	// Stdio is as in [Config]: with Terminal, Stdio[0] is the slave of a pseudo
	// terminal, best of [OpenPTY].
	Stdio    [3]*os.File
	Terminal bool
}

// A Process is what Exec started.
type Process struct {
	p    *process
	done chan struct{} // closed when what follows is set
	st   ExitStatus
	err  error
}

// newProcess waits for p, whether the caller does or not: the first process of
// a pid namespace cannot end before all others are waited for, and this one is
// our child.
func newProcess(p *process) *Process {
	proc := &Process{p: p, done: make(chan struct{})}
	go func() { // ends with the process
		proc.st, proc.err = p.wait()
		close(proc.done)
	}()
	return proc
}

// Pid is the process's id in the host's pid namespace.
func (p *Process) Pid() int { return p.p.pid }

// Signal sends sig to the process; os.ErrProcessDone if it has ended.
func (p *Process) Signal(sig syscall.Signal) error { return p.p.signal(sig) }

// Wait returns when the process has ended. It may be called more than once.
func (p *Process) Wait() (ExitStatus, error) {
	<-p.done
	return p.st, p.err
}

// Exec runs a process in the container's namespaces and cgroup, with its
// capabilities and system call filter. It returns once execve has succeeded.
//
// The child joins the namespaces by the pidfd of the container's first process,
// in one setns, and clones once more to be in the pid namespace. It is not
// dumpable from its first call on, and has closed whatever is not its own: no
// process of the container can look into the supervisor's copy (CVE-2016-9962),
// or find a descriptor that leads out (CVE-2024-21626).
func (c *Container) Exec(ctx context.Context, cfg ExecConfig) (*Process, error) {
	c.mu.Lock()
	st := c.state
	c.mu.Unlock()
	if st != started {
		return nil, fmt.Errorf("exec in container %s: it is %s, want %s", c.id, st, started)
	}
	p, err := c.execProcess(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", c.id, err)
	}
	return newProcess(p), nil
}

func (c *Container) execProcess(ctx context.Context, cfg ExecConfig) (*process, error) {
	prog, err := c.execProgram(cfg)
	if err != nil {
		return nil, err
	}
	null, err := openNull()
	if err != nil {
		return nil, err
	}
	defer unix.Close(null)
	for i, f := range cfg.Stdio {
		prog.stdio[i] = hostFD(null)
		if f != nil {
			prog.stdio[i] = hostFD(f.Fd())
		}
	}
	if uid, gid, ok := c.exec.hostUser(&prog); ok {
		if err := givePipes(cfg.Stdio, uid, gid); err != nil {
			return nil, err
		}
		if cfg.Terminal {
			if err := giveTerminal(cfg.Stdio[0], uid); err != nil {
				return nil, err
			}
		}
	}
	ctl, err := newControl()
	if err != nil {
		return nil, err
	}
	entry, err := c.cgroup.entrances()
	if err != nil {
		ctl.parent.Close()
		ctl.child.Close()
		return nil, err
	}
	defer func() {
		for _, fd := range entry {
			unix.Close(fd)
		}
	}()
	s, err := c.execScript(&prog, hostFD(ctl.child.Fd()), entry)
	if err != nil {
		ctl.parent.Close()
		ctl.child.Close()
		return nil, err
	}
	p, err := start(s, 0, true, ctl, entry)
	if err != nil {
		s.free()
		return nil, err
	}
	if err := c.letRun(ctx, p); err != nil {
		unix.Kill(p.pid, unix.SIGKILL)
		_, werr := p.wait()
		p.release()
		p.pidfd.Close()
		return nil, errors.Join(err, werr)
	}
	return p, nil
}

// letRun limits the process as the container, and has it execute its program.
func (c *Container) letRun(ctx context.Context, p *process) error {
	if err := setRlimits(p.pid, c.exec.rlimits); err != nil {
		return err
	}
	return p.proceed(ctx, true)
}

// execProgram is the container's own program with what cfg says in its place.
func (c *Container) execProgram(cfg ExecConfig) (program, error) {
	p := c.exec.program
	if len(cfg.Args) == 0 || cfg.Args[0] == "" {
		return program{}, errors.New("no arguments: there is nothing to run")
	}
	p.args, p.terminal, p.starter = cfg.Args, cfg.Terminal, -1
	if !c.exec.userNS {
		var err error
		if p.starter, err = directFD(); err != nil {
			return program{}, err
		}
	}
	if cfg.Cwd != "" {
		if !strings.HasPrefix(cfg.Cwd, "/") {
			return program{}, fmt.Errorf("working directory %q is not absolute", cfg.Cwd)
		}
		p.cwd = cfg.Cwd
	}
	if cfg.Terminal {
		if cfg.Stdio[0] == nil {
			return program{}, errors.New("a terminal is wanted, but standard input is none")
		}
		if err := checkTerminal(int(cfg.Stdio[0].Fd())); err != nil {
			return program{}, err
		}
	}
	if cfg.User != "" {
		u, err := lookupUser(fmt.Sprintf("/proc/%d/root", c.proc.pid), specs.User{Username: cfg.User})
		if err != nil {
			return program{}, err
		}
		if u.uid != p.uid { // a user that is not root has no capabilities, as after su
			p.caps = p.caps.forUser(u.uid)
		}
		p.uid, p.gid, p.groups = u.uid, u.gid, u.groups
		p.env = setEnv(p.env, "HOME="+u.home)
	}
	for _, e := range cfg.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return program{}, fmt.Errorf("environment %q is not KEY=value", e)
		}
		p.env = setEnv(p.env, e)
	}
	return p, nil
}

// forUser is c for a process of user uid: only root keeps its capabilities.
func (c capSets) forUser(uid uint32) capSets {
	if uid == 0 {
		c.effective, c.permitted = c.bounding, c.bounding
	} else {
		c.effective, c.permitted, c.ambient = 0, 0, 0
	}
	return c
}

// setEnv returns a copy of env with KEY=value e in place of an older KEY.
func setEnv(env []string, e string) []string {
	key := e[:strings.IndexByte(e, '=')+1]
	return append(slices.DeleteFunc(slices.Clone(env), func(o string) bool { return strings.HasPrefix(o, key) }), e)
}

// execScript is the whole life of the child until it runs the program.
func (c *Container) execScript(prog *program, ctl hostFD, entry []int) (_ *script, err error) {
	s, err := newScript()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.free()
		}
	}()
	s.step("begin")
	s.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	at := len(s.ops)
	s.call(opJump, 0)
	s.enter(entry)
	s.step("join the container's namespaces")
	pidfd := hostFD(c.proc.pidfd.Fd())
	s.call(unix.SYS_SETNS, pidfd, c.joined)
	s.step("clone into the container")
	s.forkSecond(0)
	s.step("wait for limits")
	s.call(opWait, ctl)
	s.step("session")
	s.call(unix.SYS_SETSID)
	if c.exec.userNS {
		s.step("become root of the user namespace")
		s.call(unix.SYS_SETGROUPS, 0, 0)
		s.call(unix.SYS_SETRESGID, 0, 0, 0)
		s.call(unix.SYS_SETRESUID, 0, 0, 0)
		s.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	}
	if err := s.become(prog, ctl); err != nil {
		return nil, err
	}
	s.fillClose(at)
	return s, s.finish()
}
