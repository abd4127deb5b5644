package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/linux"
)

// A Client is the agent of one machine, as the host calls it. Its methods may
// be called from several goroutines. When the machine is down every call fails
// with [ErrGone].
type Client struct {
	host *Host
	peer *peer
	last atomic.Uint64 // number of the last exec
	// still says that the agent took too long for the last of what is done at once.
	still atomic.Bool
}

func newClient(h *Host, conn net.Conn) *Client {
	c := &Client{host: h}
	c.peer = newPeer(conn, maxFromGuest, c.serve)
	return c
}

// serve takes the agent's notices. It has no calls.
func (c *Client) serve(_ context.Context, verb string, body json.RawMessage) (any, error) {
	switch verb {
	case noteEvent:
		var e Event
		if err := decodeStrict(body, &e); err != nil {
			return nil, fmt.Errorf("notice %s: %w", verb, err)
		}
		c.host.cfg.Event(e)
		return nil, nil
	case noteLog:
		var l Log
		if err := decodeStrict(body, &l); err != nil {
			return nil, fmt.Errorf("notice %s: %w", verb, err)
		}
		// Not above warnings: an operator need not act on a guest's word.
		c.host.cfg.Log.Log(context.Background(), min(slog.Level(l.Level), slog.LevelWarn), "agent", "said", fmt.Sprintf("%.1024q", l.Text))
		return nil, nil
	}
	return nil, fmt.Errorf("verb %.64q: unknown", verb)
}

// Gone is closed when the agent can no longer be reached.
func (c *Client) Gone() <-chan struct{} { return c.peer.ctx.Done() }

// Setup tells the agent of its pod. It is the first call.
func (c *Client) Setup(ctx context.Context, s Setup) error {
	return c.peer.call(ctx, verbSetup, s, nil)
}

// Attach gives a container its card, with its program in force, by hypercalls
// of the agent, before a frame can leave it.
func (c *Client) Attach(ctx context.Context, a Attach) error {
	return c.peer.call(ctx, verbAttach, a, nil)
}

// Hook runs a callback in the guest and waits for it.
func (c *Client) Hook(ctx context.Context, h HookCall) error {
	return c.peer.call(ctx, verbHook, h, nil)
}

// A CreateConfig says which container to make.
type CreateConfig struct {
	Name   string       // how calls name it
	ID     string       // POD/CONTAINER
	Spec   *bundle.Spec // never written to; its paths are the guest's
	IDBase uint32       // the guest's id of the container's id 0
	// Shifted are paths of the specification whose export shows owners in the
	// container's range already.
	Shifted []string
	// Stdio are the workload's streams on the host; nil is /dev/null. They stay
	// the caller's. If the specification wants a terminal, Stdio[0] is the slave
	// of a pseudo terminal of the host: it is joined to one of the guest's.
	Stdio [3]*os.File
}

// Create makes a container's first process in its namespaces, waiting.
func (c *Client) Create(ctx context.Context, cfg CreateConfig) (*Container, error) {
	terminal := cfg.Spec.OCI.Process != nil && cfg.Spec.OCI.Process.Terminal
	s, err := c.newStreams(cfg.Stdio, terminal)
	if err != nil {
		return nil, err
	}
	var r started
	call := create{Container: cfg.Name, ID: cfg.ID, Spec: cfg.Spec, IDBase: cfg.IDBase, Shifted: cfg.Shifted, Stdio: s.stdio}
	if err := c.peer.call(ctx, verbCreate, call, &r); err != nil {
		s.abandon()
		return nil, err
	}
	k := &Container{client: c, name: cfg.Name, remote: remote{client: c, process: process{Container: cfg.Name}, pid: r.Pid, streams: s}}
	if err := s.connect(ctx); err != nil {
		k.Destroy()
		return nil, err
	}
	return k, nil
}

// call makes a call that ends by itself, or with the machine.
func (c *Client) call(verb string, in, out any) error {
	return c.peer.call(context.Background(), verb, in, out)
}

// quickTimeout is how long the agent may take for what its kernel does at once, and
// stillTimeout how long if it took longer the last time.
const (
	quickTimeout = 10 * time.Second
	stillTimeout = time.Second
)

// ErrNoAnswer is the error of a call that the agent took too long for.
var ErrNoAnswer = errors.New("the agent does not answer")

// quick is call for what the guest does at once: a guest that stands still
// holds up nobody for long.
func (c *Client) quick(verb string, in, out any) error {
	timeout := quickTimeout
	if c.still.Load() {
		timeout = stillTimeout
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, ErrNoAnswer)
	defer cancel()
	err := c.peer.call(ctx, verb, in, out)
	c.still.Store(errors.Is(err, ErrNoAnswer))
	return err
}

func ignoreGone(err error) error {
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}

// A Container is one container in the machine. Its methods are those of
// [linux.Container], and fail with [ErrGone] when the machine is down.
type Container struct {
	remote
	client *Client
	name   string
}

// Prepare has the agent set up the container's root file system.
func (k *Container) Prepare(ctx context.Context) error {
	return k.client.peer.call(ctx, verbPrepare, target{k.name}, nil)
}

// Start has the agent execute the workload; it returns when execve has
// succeeded.
func (k *Container) Start(ctx context.Context) error {
	return k.client.peer.call(ctx, verbStart, target{k.name}, nil)
}

// Kill ends all processes of the container.
func (k *Container) Kill() error {
	return k.client.quick(verbKill, target{k.name}, nil)
}

// Stats are the container's figures now.
func (k *Container) Stats() (s linux.Stats, err error) {
	return s, k.client.quick(verbStats, target{k.name}, &s)
}

// Ignores reports whether it is known that the signal would have no effect on
// the workload.
func (k *Container) Ignores(sig syscall.Signal) bool {
	var yes bool
	return k.client.quick(verbIgnores, signal{k.process, sig}, &yes) == nil && yes
}

// Listens reports whether something in the container listens on a TCP port.
func (k *Container) Listens(port uint16, loopback bool) (found bool, err error) {
	return found, k.client.quick(verbListen, listen{k.name, port, loopback}, &found)
}

// Destroy removes the container. It is idempotent; with a machine that is down
// nothing is left of it.
func (k *Container) Destroy() error {
	err := k.client.quick(verbDestroy, target{k.name}, nil)
	k.streams.end()
	return ignoreGone(err)
}

// Exec runs a process in the container; it returns when execve has succeeded.
func (k *Container) Exec(ctx context.Context, cfg linux.ExecConfig) (*Process, error) {
	return k.client.exec(ctx, k.name, cfg)
}

// Exec runs a process in the guest itself, as its root, outside all containers.
// Cwd and User do not count.
func (c *Client) Exec(ctx context.Context, cfg linux.ExecConfig) (*Process, error) {
	return c.exec(ctx, "", cfg)
}

func (c *Client) exec(ctx context.Context, container string, cfg linux.ExecConfig) (*Process, error) {
	s, err := c.newStreams(cfg.Stdio, cfg.Terminal)
	if err != nil {
		return nil, err
	}
	id := process{Container: container, Exec: c.last.Add(1)}
	var r started
	call := exec{process: id, Args: cfg.Args, Env: cfg.Env, Cwd: cfg.Cwd, User: cfg.User, Stdio: s.stdio}
	if err := c.peer.call(ctx, verbExec, call, &r); err != nil {
		s.abandon()
		return nil, err
	}
	p := &Process{remote{client: c, process: id, pid: r.Pid, streams: s}}
	if err := s.connect(ctx); err != nil {
		p.Signal(syscall.SIGKILL)
		return nil, err
	}
	return p, nil
}

// A Process is what Exec started.
type Process struct{ remote }

// A remote is a process in the machine.
type remote struct {
	client  *Client
	process process
	pid     int
	streams *streams
}

// Pid is the process's id in the guest's pid namespace.
func (r *remote) Pid() int { return r.pid }

// Wait returns when the process has ended and what it wrote until then has been
// passed on. If the machine goes down meanwhile it counts as killed.
func (r *remote) Wait() (st linux.ExitStatus, err error) {
	err = r.client.call(verbWait, r.process, &st)
	if ignoreGone(err) == nil && err != nil {
		r.streams.end()
		if down := r.client.host.cfg.Down; down != nil {
			if cause := down(); cause != nil {
				return linux.ExitStatus{Signal: syscall.SIGKILL}, cause
			}
		}
		return linux.ExitStatus{Signal: syscall.SIGKILL}, fmt.Errorf("the machine is down: %w", err)
	}
	r.streams.drain()
	return st, err
}

// Signal sends sig to the process. SIGWINCH makes its terminal, if it has one,
// as large as the host's first.
func (r *remote) Signal(sig syscall.Signal) error {
	if sig == syscall.SIGWINCH && r.streams.stdio.Terminal {
		rows, cols := r.streams.size()
		if rows == 0 {
			return nil
		}
		return r.client.quick(verbResize, resize{r.process, rows, cols}, nil)
	}
	return r.client.quick(verbSignal, signal{r.process, sig}, nil)
}
