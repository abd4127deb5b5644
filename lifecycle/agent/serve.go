package agent

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"sekimori/lifecycle/linux"
)

// A Config is what the agent needs of the guest it runs in.
type Config struct {
	// Dial connects to the host.
	Dial func(context.Context) (net.Conn, error)
	// Setup is told of the pod, once, when its exports are mounted.
	Setup func(context.Context, Setup) error
	// Attach gives a container its card, in its network namespace.
	Attach func(ctx context.Context, a Attach, netns *os.File) error
	// Hook runs a callback.
	Hook func(context.Context, HookCall) error
}

// An Agent makes containers for the host.
type Agent struct {
	cfg    Config
	secret [SecretSize]byte
	peer   *peer
	log    *slog.Logger

	// mu guards the fields below.
	mu         sync.Mutex
	containers map[string]*guest
	here       map[uint64]*task // processes of no container
}

// A guest is a container of this agent, which is in the guest.
type guest struct {
	*linux.Container
	workload task
	mu       sync.Mutex // mu guards execs
	execs    map[uint64]*task
}

// A task is a process that the host knows by number.
type task struct {
	wait   func() (linux.ExitStatus, error)
	signal func(s signal) error
	relays *relays
}

// Dial calls the host.
func Dial(ctx context.Context, cfg Config) (*Agent, error) {
	a := &Agent{cfg: cfg, containers: map[string]*guest{}, here: map[uint64]*task{}}
	conn, err := a.open(ctx, kindControl, "")
	if err != nil {
		return nil, err
	}
	// All of it at once: nothing comes behind it that is not for us, and each
	// read of a byte would be a system call.
	line := make([]byte, 2*SecretSize+1)
	_, err = io.ReadFull(conn, line)
	if err == nil && line[2*SecretSize] != '\n' {
		err = errors.New("it is longer")
	}
	if err == nil {
		_, err = hex.Decode(a.secret[:], line[:2*SecretSize])
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("control connection: the host tells no secret: %w", err)
	}
	a.peer = newPeer(conn, maxFromHost, a.serve)
	a.log = slog.New(&noteHandler{peer: a.peer})
	return a, nil
}

// open makes one more connection to the host.
func (a *Agent) open(ctx context.Context, kind, name string) (net.Conn, error) {
	conn, err := a.cfg.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s connection: %w", kind, err)
	}
	p := preamble{Kind: kind, Name: name}
	if kind != kindControl {
		p.Secret = hex.EncodeToString(a.secret[:])
	}
	if err := p.open(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s connection: %w", kind, err)
	}
	return conn, nil
}

// Hypercalls opens the connection for hypercalls; there can be one.
func (a *Agent) Hypercalls(ctx context.Context) (net.Conn, error) {
	return a.open(ctx, kindHypercall, "")
}

// Secret is what the host told, by which hypercalls are admitted as well.
func (a *Agent) Secret() [SecretSize]byte { return a.secret }

// Log is a logger whose lines the host gets.
func (a *Agent) Log() *slog.Logger { return a.log }

// Notify hands the host an event for the pod's journal.
func (a *Agent) Notify(e Event) { a.peer.notify(noteEvent, e) }

// Container is the named container, or nil.
func (a *Agent) Container(name string) *linux.Container {
	if g := a.find(name); g != nil {
		return g.Container
	}
	return nil
}

func (a *Agent) find(name string) *guest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.containers[name]
}

// Serve does what the host asks until the host has gone; then all containers
// are destroyed.
func (a *Agent) Serve() error {
	go learn() // while the host thinks
	err := a.peer.run()
	a.mu.Lock()
	all := a.containers
	a.containers = map[string]*guest{}
	a.mu.Unlock()
	errs := []error{err}
	for _, g := range all {
		errs = append(errs, g.destroy())
	}
	return errors.Join(errs...)
}

// serve does one call of the host.
func (a *Agent) serve(ctx context.Context, verb string, body json.RawMessage) (any, error) {
	switch verb {
	case verbSetup:
		return decoded(body, func(s *Setup) (any, error) { return nil, a.setup(ctx, *s) })
	case verbHook:
		return decoded(body, func(h *HookCall) (any, error) { return nil, a.cfg.Hook(ctx, *h) })
	case verbCreate:
		return decoded(body, func(c *create) (any, error) { return a.create(ctx, c) })
	case verbAttach:
		return decoded(body, func(t *Attach) (any, error) { return nil, a.attach(ctx, t) })
	case verbExec:
		return decoded(body, func(e *exec) (any, error) { return a.exec(ctx, e) })
	case verbWait:
		return decoded(body, func(p *process) (any, error) { return a.wait(ctx, *p) })
	case verbSignal:
		return decoded(body, func(s *signal) (any, error) {
			t, err := a.task(s.process)
			if err != nil {
				return nil, err
			}
			return nil, t.signal(*s)
		})
	case verbIgnores:
		return decoded(body, func(s *signal) (any, error) {
			g, err := a.container(s.Container)
			if err != nil {
				return nil, err
			}
			return g.Ignores(s.Signal), nil
		})
	case verbResize:
		return decoded(body, func(r *resize) (any, error) {
			t, err := a.task(r.process)
			if err != nil {
				return nil, err
			}
			return nil, t.relays.resize(r.Rows, r.Cols)
		})
	case verbListen:
		return decoded(body, func(l *listen) (any, error) {
			g, err := a.container(l.Container)
			if err != nil {
				return nil, err
			}
			return g.Listens(l.Port, l.Loopback)
		})
	}
	return decoded(body, func(t *target) (any, error) { return a.simple(ctx, verb, t.Container) })
}

// simple does the calls that name a container and nothing else.
func (a *Agent) simple(ctx context.Context, verb, name string) (any, error) {
	if verb == verbDestroy {
		return nil, a.destroy(name)
	}
	g, err := a.container(name)
	if err != nil {
		return nil, err
	}
	switch verb {
	case verbPrepare:
		return nil, g.Prepare(ctx)
	case verbStart:
		err := g.Start(ctx)
		g.workload.relays.release()
		return nil, err
	case verbKill:
		return nil, g.Kill()
	case verbStats:
		return g.Stats()
	}
	return nil, fmt.Errorf("verb %.64q: unknown", verb)
}

// decoded hands a call's body to f.
func decoded[T any](body json.RawMessage, f func(*T) (any, error)) (any, error) {
	v := new(T)
	if err := decodeStrict(body, v); err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	return f(v)
}

func (a *Agent) container(name string) (*guest, error) {
	g := a.find(name)
	if g == nil {
		return nil, fmt.Errorf("container %q: not in this machine", name)
	}
	return g, nil
}

func (a *Agent) attach(ctx context.Context, t *Attach) error {
	g, err := a.container(t.Container)
	if err != nil {
		return err
	}
	ns, err := g.NetNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	return a.cfg.Attach(ctx, *t, ns)
}
