package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A HostConfig is what the host's end of a machine's conversation needs.
type HostConfig struct {
	// Secret is what the agent is told when it calls, and no one else.
	Secret [SecretSize]byte
	// Hypercall serves the hypercall connection until it ends, and closes it.
	Hypercall func(net.Conn)
	// File serves an export by 9P until the connection ends, and closes it. It
	// returns false if there is no export of that name.
	File func(name string, conn net.Conn) bool
	// Event takes what the agent has for the pod's journal. It must not wait.
	Event func(Event)
	// Down says what the machine died of, once the agent is gone; it may wait for
	// it to end. Nil, or a nil error, if there is no more to say than that.
	Down func() error
	// Log takes the agent's own log; not nil.
	Log *slog.Logger
}

// A Host is the host's end: it accepts the agent's connections.
type Host struct {
	cfg   HostConfig
	l     net.Listener
	wg    sync.WaitGroup // of the goroutines: accept, and one for each connection
	agent chan *Client   // has the client once the agent has called
	done  chan struct{}  // closed by Close

	// mu guards the fields below.
	mu        sync.Mutex
	conns     map[net.Conn]bool
	streams   map[string]chan net.Conn // waited for
	files     map[string]bool          // being served
	control   bool                     // the agent has called
	hypercall bool
	refused   uint64
	reasons   map[string]bool // that were told of
	closed    bool
}

// maxConns bounds the connections of one machine. A container has three at the
// most, and an exec as many.
const maxConns = 4096

// Serve accepts connections from l until Close, which closes l too.
func Serve(l net.Listener, cfg HostConfig) *Host {
	h := &Host{
		cfg: cfg, l: l, agent: make(chan *Client, 1), done: make(chan struct{}),
		conns: map[net.Conn]bool{}, streams: map[string]chan net.Conn{}, files: map[string]bool{},
	}
	h.wg.Go(h.accept)
	h.wg.Go(learn)
	return h
}

// Agent waits for the agent to call.
func (h *Host) Agent(ctx context.Context) (*Client, error) {
	select {
	case c := <-h.agent:
		h.agent <- c
		return c, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-h.done:
		return nil, ErrGone
	}
}

// Refused counts the connections that were cut off: of no known kind, with a
// wrong secret, or a second where one is allowed. Only an attacker makes any.
func (h *Host) Refused() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refused
}

// Close ends all connections and returns when nothing uses them any more.
func (h *Host) Close() error {
	h.mu.Lock()
	closed := h.closed
	h.closed = true
	conns := h.conns
	h.conns = map[net.Conn]bool{}
	h.mu.Unlock()
	if closed {
		return nil
	}
	close(h.done)
	err := h.l.Close()
	for conn := range conns {
		conn.Close()
	}
	h.wg.Wait()
	return err
}

func (h *Host) accept() {
	for {
		conn, err := h.l.Accept()
		if err != nil {
			select {
			case <-h.done:
				return
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			h.cfg.Log.Warn("machine: accept", "err", err)
			time.Sleep(10 * time.Millisecond) // out of descriptors: give others time to close some
			continue
		}
		if !h.add(conn) {
			conn.Close()
			continue
		}
		h.wg.Go(func() {
			defer h.remove(conn)
			h.handle(conn)
		})
	}
}

func (h *Host) add(conn net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.conns) >= maxConns {
		return false
	}
	h.conns[conn] = true
	return true
}

func (h *Host) remove(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, conn)
}

// handle serves one connection until it ends; of a stream, until it is handed on.
func (h *Host) handle(conn net.Conn) {
	p, err := readPreamble(conn, h.cfg.Secret)
	if err == nil {
		err = h.dispatch(conn, p)
	}
	if err != nil {
		n, tell := h.refusal(err.Error())
		conn.Close()
		if tell {
			h.cfg.Log.Warn("machine: connection refused", "err", err, "refused", n)
		}
	}
}

// maxReasons is how many reasons of refusals are told when they are new.
const maxReasons = 16

// refusal counts a connection that was refused, and says whether to tell of it:
// the first for each of a few reasons, then the 1st, 2nd, 4th, 8th of all. An
// attacker does not fill the log.
func (h *Host) refusal(why string) (n uint64, tell bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused++
	if !h.reasons[why] && len(h.reasons) < maxReasons {
		if h.reasons == nil {
			h.reasons = map[string]bool{}
		}
		h.reasons[why], tell = true, true
	}
	return h.refused, tell || h.refused&(h.refused-1) == 0
}

func (h *Host) dispatch(conn net.Conn, p preamble) error {
	switch p.Kind {
	case kindControl:
		if !h.once(&h.control) {
			return errors.New("a second control connection")
		}
		if _, err := conn.Write([]byte(hex.EncodeToString(h.cfg.Secret[:]) + "\n")); err != nil {
			return err
		}
		c := newClient(h, conn)
		h.agent <- c // has room for one
		if err := c.peer.run(); err != nil {
			h.cfg.Log.Warn("machine: control connection", "err", err)
		}
	case kindHypercall:
		if !h.once(&h.hypercall) {
			return errors.New("a second hypercall connection")
		}
		h.cfg.Hypercall(conn)
	case kindFile:
		if !h.claim(p.Name) {
			return fmt.Errorf("export %.64q: is mounted", p.Name)
		}
		if !h.cfg.File(p.Name, conn) {
			return fmt.Errorf("export %.64q: there is none", p.Name)
		}
	case kindStream:
		h.mu.Lock()
		c := h.streams[p.Name]
		delete(h.streams, p.Name)
		h.mu.Unlock()
		if c == nil {
			return fmt.Errorf("stream %.64q: nobody waits for it", p.Name)
		}
		c <- conn // has room for one
	default:
		return fmt.Errorf("kind %.64q: unknown", p.Kind)
	}
	return nil
}

// once sets what only one connection may be.
func (h *Host) once(is *bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := *is
	*is = true
	return !was
}

// claim takes an export for one connection, for good: a second mount of it
// would have a server of its own.
func (h *Host) claim(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.files[name]
	h.files[name] = true
	return !was
}

// A pending stream is one that the agent will open.
type pending struct {
	name string
	c    chan net.Conn
}

// expect makes the name of a stream that the agent is going to be asked for.
func (h *Host) expect() pending {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	p := pending{hex.EncodeToString(b[:]), make(chan net.Conn, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams[p.name] = p.c
	return p
}

// take returns the stream's connection, which the agent opened before it
// answered the call that the stream was named in.
func (h *Host) take(ctx context.Context, p pending) (net.Conn, error) {
	select {
	case conn := <-p.c:
		return conn, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-h.done:
		return nil, ErrGone
	}
}

// forget gives up a stream.
func (h *Host) forget(p pending) {
	h.mu.Lock()
	delete(h.streams, p.name)
	h.mu.Unlock()
	select {
	case conn := <-p.c:
		conn.Close()
	default:
	}
}
