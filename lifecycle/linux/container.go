package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Container is one container on this kernel. Its methods may be called from
// several goroutines, Prepare and Start once each and in this order.
type Container struct {
	id     string
	log    *slog.Logger
	cgroup *cgroup
	proc   *process
	exec   execParams // what Exec needs to know of the container
	first  bool       // the workload is process 1 of its pid namespace
	joined uint64     // namespaces, as clone flags, that differ from the host's

	// mu guards what follows.
	mu     sync.Mutex
	state  state
	status ExitStatus
	waited chan struct{} // closed when status is set; nil until somebody waits
	werr   error
}

// A state is how far a container has come. The zero state is the first.
type state uint8

const (
	created state = iota
	prepared
	started
	stopped
	destroyed
)

func (s state) String() string {
	return [...]string{"created", "prepared", "started", "stopped", "destroyed"}[s]
}

// An ExitStatus says how a process ended.
type ExitStatus struct {
	Code   int            // exit code, if Signal is 0
	Signal syscall.Signal // the signal that killed it, or 0
}

// Status is the code a shell would report: 128+n for signal n.
func (e ExitStatus) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// A siginfo is siginfo_t as waitid fills it in (include/uapi/asm-generic/siginfo.h).
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [100]byte
}

var _ [128]byte = [unsafe.Sizeof(siginfo{})]byte{} // SAFETY: a size only

// exit turns the kernel's words into ours. Code 1 is CLD_EXITED.
func (i *siginfo) exit() ExitStatus {
	if i.code == 1 {
		return ExitStatus{Code: int(i.status)}
	}
	return ExitStatus{Signal: syscall.Signal(i.status)}
}

// Pid is the id of the container's first process in the host's pid namespace.
func (c *Container) Pid() int { return c.proc.pid }

// NetNS opens the container's network namespace; the caller closes it. It is
// valid after the container's end, until closed.
func (c *Container) NetNS() (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/ns/net", c.proc.pid))
}

// Prepare has the process set up its root file system: mounts, pivot_root,
// sysctls, masked paths. The workload has still not run.
func (c *Container) Prepare(ctx context.Context) error {
	return c.advance(ctx, "prepare", created, prepared)
}

// Start has the process give up its privileges and execute the workload. It
// returns once execve has succeeded.
func (c *Container) Start(ctx context.Context) error {
	return c.advance(ctx, "start", prepared, started)
}

// advance leads the process from one gate to the next.
func (c *Container) advance(ctx context.Context, verb string, from, to state) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != from {
		return fmt.Errorf("%s container %s: it is %s, want %s", verb, c.id, c.state, from)
	}
	if to == started {
		// Not earlier: the limits are the workload's, not of the work before.
		if err := setRlimits(c.proc.pid, c.exec.rlimits); err != nil {
			return fmt.Errorf("%s container %s: %w", verb, c.id, err)
		}
	}
	if err := c.proc.proceed(ctx, to == started); err != nil {
		return fmt.Errorf("%s container %s: %w", verb, c.id, err)
	}
	c.state = to
	return nil
}

// Wait returns when the container's first process has ended, and with it, by
// the pid namespace, all others. It may be called more than once.
func (c *Container) Wait() (ExitStatus, error) {
	c.mu.Lock()
	first := c.waited == nil
	if first {
		c.waited = make(chan struct{})
	}
	done := c.waited
	c.mu.Unlock()
	if first {
		st, err := c.proc.wait()
		c.mu.Lock()
		c.status, c.werr = st, err
		c.state = max(c.state, stopped)
		c.mu.Unlock()
		close(done)
	}
	<-done
	return c.status, c.werr
}

// Signal sends sig to the container's first process. A process that has ended
// is os.ErrProcessDone.
func (c *Container) Signal(sig syscall.Signal) error { return c.proc.signal(sig) }

// signal never hits another process that was given the same id.
func (p *process) signal(sig syscall.Signal) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return os.ErrProcessDone
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return os.ErrProcessDone
	}
	if serr == unix.ESRCH {
		return os.ErrProcessDone
	}
	return serr
}

// Kill ends all processes of the container.
func (c *Container) Kill() error {
	err := c.proc.signal(unix.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	return errors.Join(err, c.cgroup.kill())
}

// Destroy removes the container whatever its state: processes, cgroup, and with
// the last process its namespaces and mounts. It is idempotent, tries every
// step and joins the errors.
func (c *Container) Destroy() error {
	var errs []error
	if c.proc != nil {
		errs = append(errs, c.Kill())
		if _, err := c.Wait(); err != nil {
			errs = append(errs, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == destroyed {
		return nil
	}
	if c.proc != nil {
		c.proc.release()
		c.proc.pidfd.Close()
	}
	if c.cgroup != nil {
		errs = append(errs, c.cgroup.remove())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("destroy container %s: %w", c.id, err)
	}
	c.state = destroyed
	return nil
}

// startTime reads field 22 of /proc/PID/stat: when the process was made, in
// clock ticks since boot. Together with the id it names a process for ever.
func startTime(pid int) (uint64, error) {
	data, err := readFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses that may contain anything.
	rest := string(data[strings.LastIndexByte(string(data), ')')+1:])
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields)+2)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
