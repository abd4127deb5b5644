package lifecycle

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
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

// maxOutput is how much of each output of a command [Container.Output] keeps.
const maxOutput = 1 << 20

// outputGrace is how long output is still read once the command has exited: a
// process it left behind may hold the pipe open for ever.
const outputGrace = time.Second

// Output runs a command in the container and waits. At most 1 MiB of each
// output is kept.
func (c *Container) Output(ctx context.Context, args []string) (ExecResult, error) {
	return c.output(ctx, args, c.pod.journal.emit)
}

func (c *Container) output(ctx context.Context, args []string, tell func(Event)) (ExecResult, error) {
	var stdout, stderr capture
	e := ExecConfig{Args: args}
	for i, o := range []*capture{&stdout, &stderr} {
		w, err := o.open()
		if err != nil {
			stdout.close()
			return ExecResult{}, err
		}
		defer w.Close()
		e.Stdio[i+1] = w
	}
	p, err := c.exec(ctx, e, tell)
	e.Stdio[1].Close() // or the reader would not see the end
	e.Stdio[2].Close()
	if err != nil {
		stdout.close()
		stderr.close()
		return ExecResult{}, err
	}
	st, err := p.Wait()
	res := ExecResult{Status: st.Status(), Stdout: stdout.close(), Stderr: stderr.close()}
	if err == nil {
		err = ctx.Err()
	}
	return res, err
}

// A capture keeps the beginning of what is written to a pipe.
type capture struct {
	r    *os.File
	buf  bytes.Buffer
	done sync.WaitGroup
}

// open returns the end to write to, and starts the goroutine that reads; close
// ends it.
func (k *capture) open() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	k.r = r
	k.done.Go(func() {
		io.Copy(&k.buf, io.LimitReader(r, maxOutput))
		io.Copy(io.Discard, r)
	})
	return w, nil
}

func (k *capture) close() string {
	if k.r == nil {
		return ""
	}
	k.r.SetReadDeadline(time.Now().Add(outputGrace))
	k.done.Wait()
	k.r.Close()
	return k.buf.String()
}

func ptr[T any](v T) *T { return &v }
