package lifecycle

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"sekimori/lifecycle/linux"
)

// Exec starts one more process in the container. If ctx ends before it does,
// it is killed.
func (c *Container) Exec(ctx context.Context, e ExecConfig) (Process, error) {
	return c.exec(ctx, e, c.pod.journal.emit)
}

// exec is Exec with somebody to tell what happens.
func (c *Container) exec(ctx context.Context, e ExecConfig, tell func(Event)) (Process, error) {
	if len(e.Args) == 0 {
		return nil, fmt.Errorf("container %q: exec: no command", c.name)
	}
	c.execMu.RLock()
	defer c.execMu.RUnlock()
	inst, err := c.instance(VerbExec)
	if err != nil {
		return nil, err
	}
	p, err := inst.Exec(ctx, e)
	if err != nil {
		tell(Event{Type: EventExec, Container: c.name, Args: e.Args, Error: err.Error()})
		return nil, fmt.Errorf("container %q: exec %s: %w", c.name, e.Args[0], err)
	}
	tell(Event{Type: EventExec, Container: c.name, Args: e.Args, Pid: p.Pid()})
	x := &execProcess{Process: p, container: c.name, tell: tell}
	x.stop = context.AfterFunc(ctx, func() { p.Signal(syscall.SIGKILL) })
	return x, nil
}

// An execProcess records its end.
type execProcess struct {
	Process
	container string
	tell      func(Event)
	stop      func() bool
}

func (x *execProcess) Wait() (ExitStatus, error) {
	st, err := x.Process.Wait()
	x.stop()
	e := Event{Type: EventExecExit, Container: x.container, Pid: x.Pid()}
	if err != nil {
		e.Error = err.Error()
	} else {
		e.Status, e.Signal = ptr(st.Status()), signalName(st.Signal)
	}
	x.tell(e)
	return st, err
}

// An ExecResult is what a command in a container left.
type ExecResult struct {
	Status         int // exit code, 128+n for signal n
	Stdout, Stderr string
}

// outputGrace is how long output is still read once what wrote it has ended.
const outputGrace = linux.OutputGrace

// Output runs a command in the container and waits. At most 1 MiB of each
// output is kept.
func (c *Container) Output(ctx context.Context, args []string) (ExecResult, error) {
	return c.output(ctx, args, c.pod.journal.emit)
}

func (c *Container) output(ctx context.Context, args []string, tell func(Event)) (ExecResult, error) {
	r, err := linux.Output(ctx, func(stdio [3]*os.File) (linux.Waiter, error) {
		p, err := c.exec(ctx, ExecConfig{Args: args, Stdio: stdio}, tell)
		if err != nil {
			return nil, err
		}
		return waiter{p}, nil
	})
	return ExecResult(r), err
}

// A waiter is a process in the words of package linux.
type waiter struct{ Process }

func (w waiter) Wait() (linux.ExitStatus, error) {
	st, err := w.Process.Wait()
	return linux.ExitStatus(st), err
}

func ptr[T any](v T) *T { return &v }
