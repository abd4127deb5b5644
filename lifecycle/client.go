package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"sekimori/lifecycle/store"
)

// A Client asks the supervisor of a pod. Each call makes a connection of its
// own; the methods may be called from several goroutines.
type Client struct {
	store *store.Store
	pod   string
}

// Dial finds the supervisor of the named pod under a state directory (empty is
// DefaultRoot). If there is none the error is a [*store.DownError].
func Dial(root, pod string) (*Client, error) {
	s, err := store.OpenExisting(rootOr(root))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &store.DownError{Name: pod, Err: err}
	}
	if err != nil {
		return nil, err
	}
	c := &Client{store: s, pod: pod}
	conn, err := s.Dial(pod)
	if err != nil {
		s.Close()
		return nil, err
	}
	conn.Close()
	return c, nil
}

// Close ends the use of the client.
func (c *Client) Close() error { return c.store.Close() }

// ContainerStats are the figures of one container at one moment.
type ContainerStats struct {
	Name    string          `json:"name"`
	Status  Status          `json:"status"`
	Pid     int             `json:"pid,omitempty"`
	Guest   bool            `json:"guest,omitempty"` // Pid is of a machine's kernel, not the host's
	Stats   Stats           `json:"stats"`
	Network json.RawMessage `json:"network,omitempty"` // what Network.Stats returns
	Error   string          `json:"error,omitempty"`
}

// A RemoteError is an error that the supervisor reported.
type RemoteError struct{ Msg string }

// Error is what the supervisor said.
func (e *RemoteError) Error() string { return e.Msg }

// call sends a request and returns the connection and its first answer. The end
// of ctx closes the connection until stop is called.
func (c *Client) call(ctx context.Context, req *request, files ...*os.File) (w *wire, r *reply, stop func() bool, err error) {
	conn, err := c.store.Dial(c.pod)
	if err != nil {
		return nil, nil, nil, err
	}
	w = &wire{conn: conn, max: maxReply}
	stop = context.AfterFunc(ctx, func() { conn.Close() })
	if err = w.write(req, files...); err == nil {
		r, err = w.reply()
	}
	if err != nil {
		stop()
		w.close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, nil, err
	}
	return w, r, stop, nil
}

// reply reads an answer.
func (w *wire) reply() (*reply, error) {
	line, err := w.read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the supervisor closed the connection: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return nil, err
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("the supervisor's answer: %w", err)
	}
	if !r.OK {
		return nil, &RemoteError{Msg: r.Error}
	}
	return &r, nil
}

// ask is a call with one answer.
func (c *Client) ask(ctx context.Context, req *request) (*reply, error) {
	w, r, stop, err := c.call(ctx, req)
	if err != nil {
		return nil, err
	}
	stop()
	w.close()
	return r, nil
}

// Ping returns nil if the supervisor answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.ask(ctx, &request{Verb: ctlPing})
	return err
}

// Stats of one container, or with an empty name of all.
func (c *Client) Stats(ctx context.Context, container string) ([]ContainerStats, error) {
	r, err := c.ask(ctx, &request{Verb: ctlStats, Container: container})
	if err != nil {
		return nil, err
	}
	return r.Stats, nil
}

// PodStats are those of all containers, and what the pod's network says of itself
// (nil: it has none).
func (c *Client) PodStats(ctx context.Context) (all []ContainerStats, network json.RawMessage, err error) {
	r, err := c.ask(ctx, &request{Verb: ctlStats})
	if err != nil {
		return nil, nil, err
	}
	return r.Stats, r.Pod, nil
}

// Stop stops the pod and returns when nothing is left of it; timeout as in
// [Pod.Stop].
func (c *Client) Stop(ctx context.Context, timeout time.Duration) error {
	ms := int64(timeout / time.Millisecond)
	if timeout > 0 {
		ms = max(ms, 1)
	}
	_, err := c.ask(ctx, &request{Verb: ctlStop, TimeoutMS: ms})
	return err
}

// Kill kills the pod and returns when nothing is left of it.
func (c *Client) Kill(ctx context.Context) error {
	_, err := c.ask(ctx, &request{Verb: ctlKill})
	return err
}

// Signal sends a signal to a container's workload. The name may be empty if
// there is only one container.
func (c *Client) Signal(ctx context.Context, container string, sig syscall.Signal) error {
	_, err := c.ask(ctx, &request{Verb: ctlSignal, Container: container, Signal: int(sig)})
	return err
}

// SetMode sets the policy mode of a container, or with an empty name of all.
func (c *Client) SetMode(ctx context.Context, container, mode string) error {
	_, err := c.ask(ctx, &request{Verb: ctlMode, Container: container, Mode: mode})
	return err
}

// Exec starts a process in a container, with the files of e.Stdio as its own;
// nil is /dev/null. The name may be empty if there is only one container. The
// end of ctx kills the process. For a terminal see [Client.OpenTerminal].
func (c *Client) Exec(ctx context.Context, container string, e ExecConfig) (*RemoteProcess, error) {
	return c.process(ctx, e.Stdio, &request{Verb: ctlExec, Container: container, Exec: &execRequest{
		Args: e.Args, Env: e.Env, Cwd: e.Cwd, User: e.User, Terminal: e.Terminal,
	}})
}

// Run hands a machine that waits for its containers the command line that runs
// them, in the working directory dir and with these files as the command's own; nil
// is /dev/null. What is returned stands for the command: if the connection breaks,
// the pod stops.
func (c *Client) Run(ctx context.Context, stdio [3]*os.File, dir string, args []string) (*RemoteProcess, error) {
	return c.process(ctx, stdio, &request{Verb: ctlRun, Run: &runRequest{Args: args, Dir: dir}})
}

func (c *Client) process(ctx context.Context, files [3]*os.File, req *request) (*RemoteProcess, error) {
	for i := range files {
		if files[i] == nil {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			defer null.Close()
			files[i] = null
		}
	}
	w, _, stop, err := c.call(ctx, req, files[:]...)
	if err != nil {
		return nil, err
	}
	return &RemoteProcess{wire: w, stop: stop}, nil
}

// A RemoteProcess is a process started by [Client.Exec], or what [Client.Run]
// ordered. If the connection breaks, the supervisor ends it.
type RemoteProcess struct {
	wire *wire
	stop func() bool
	mu   sync.Mutex // mu is held while a message is written
}

// Wait returns the exit status. It is called once.
func (p *RemoteProcess) Wait() (ExitStatus, error) {
	defer p.wire.close()
	r, err := p.wire.reply()
	p.stop()
	if err != nil {
		return ExitStatus{}, err
	}
	if r.Exit == nil {
		return ExitStatus{}, errors.New("the supervisor's answer: no exit status")
	}
	return r.Exit.status(), nil
}

// Signal sends sig to the process.
func (p *RemoteProcess) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wire.write(&request{Verb: ctlSignal, Signal: int(sig)})
}
