package agent

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// A message of the control connection, as JSON behind its length of 32 bits,
// little-endian. A call has a Verb and an ID that the caller has not used
// before; its answer has that ID and no Verb. A notice is a call without ID.
type message struct {
	ID    uint64          `json:"id,omitempty"`
	Verb  string          `json:"verb,omitempty"`
	Error string          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// verbCancel is a notice: the caller does not wait for the call whose ID is the
// body any more.
const verbCancel = "cancel"

// A handler serves one call. Its context ends when the caller has given up, and
// when the connection has.
type handler func(ctx context.Context, verb string, body json.RawMessage) (any, error)

// A RemoteError is an error that the other end reported.
type RemoteError struct{ Msg string }

// Error is what the other end said.
func (e *RemoteError) Error() string { return e.Msg }

// ErrGone is in the error of every call when the connection has ended: the
// machine is down, or the agent has died.
var ErrGone = errors.New("the agent is gone")

// A peer is one end of a control connection: it calls, and serves the calls of
// the other end, each on a goroutine of its own.
type peer struct {
	conn   net.Conn
	max    uint32 // longest message that is read
	serve  handler
	ctx    context.Context // of all handlers; ends with the connection
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // of the handlers

	writeMu sync.Mutex // is held while a message is written

	// mu guards the fields below.
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan message
	serving map[uint64]context.CancelFunc
}

// maxServing bounds the calls of the other end that are served at once.
const maxServing = 1024

func newPeer(conn net.Conn, max uint32, serve handler) *peer {
	p := &peer{conn: conn, max: max, serve: serve, waiting: map[uint64]chan message{}, serving: map[uint64]context.CancelFunc{}}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	return p
}

// run reads messages until the connection ends; then every call in progress
// fails with [ErrGone].
func (p *peer) run() error {
	err := p.read()
	// Reset is how a close reads when the other end had not read everything, and
	// how a machine's death does, which others tell.
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		err = nil
	}
	gone := ErrGone
	if err != nil {
		gone = fmt.Errorf("%w: %w", ErrGone, err)
	}
	p.cancel(gone)
	p.conn.Close()
	p.wg.Wait()
	return err
}

// readBuffer holds a usual message, so that one read takes its length and all of
// it: a system call of the guest takes a hundred times one of the host.
const readBuffer = 16 << 10

func (p *peer) read() error {
	var size [4]byte
	in := bufio.NewReaderSize(p.conn, readBuffer)
	for {
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(size[:])
		if n > p.max {
			return fmt.Errorf("message of %d bytes, limit is %d", n, p.max)
		}
		// Grown as it comes: a length alone costs the other end nothing.
		b, err := io.ReadAll(io.LimitReader(in, int64(n)))
		if err != nil {
			return err
		}
		if uint32(len(b)) != n {
			return io.ErrUnexpectedEOF
		}
		var m message
		if err := decodeStrict(b, &m); err != nil {
			return fmt.Errorf("message: %w", err)
		}
		if err := p.take(m); err != nil {
			return err
		}
	}
}

// take deals with one message. It does not wait, but for the handler of a
// notice: notices keep their order, so they are not served beside each other.
func (p *peer) take(m message) error {
	if m.ID == 0 && m.Verb != "" && m.Verb != verbCancel {
		_, err := p.serve(p.ctx, m.Verb, m.Body)
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case m.Verb == "":
		c := p.waiting[m.ID] // nil: nobody waits any more
		delete(p.waiting, m.ID)
		if c != nil {
			c <- m // has room for one
		}
		return nil
	case m.Verb == verbCancel:
		var id uint64
		if err := json.Unmarshal(m.Body, &id); err != nil {
			return fmt.Errorf("message: cancel: %w", err)
		}
		if cancel := p.serving[id]; cancel != nil {
			cancel()
		}
		return nil
	case p.serving[m.ID] != nil:
		return fmt.Errorf("message: call %d is being served", m.ID)
	case len(p.serving) >= maxServing:
		return fmt.Errorf("message: more than %d calls at once", maxServing)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	p.serving[m.ID] = cancel
	p.wg.Go(func() {
		p.answer(ctx, m)
		p.mu.Lock()
		delete(p.serving, m.ID)
		p.mu.Unlock()
		cancel()
	})
	return nil
}

// answer serves a call.
func (p *peer) answer(ctx context.Context, m message) {
	out, err := p.serve(ctx, m.Verb, m.Body)
	a := message{ID: m.ID}
	if err == nil {
		a.Body, err = json.Marshal(out)
	}
	if err != nil {
		a.Error = err.Error()
		if a.Error == "" {
			a.Error = "unknown error"
		}
	}
	p.write(a) // what cannot be written ends the connection, and read says why
}

func (p *peer) write(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if uint64(len(b)) > 1<<32-1 {
		return fmt.Errorf("message of %d bytes", len(b))
	}
	p.writeMu.Lock()
	defer p.writeMu.Unlock()
	_, err = p.conn.Write(append(binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

// notify sends a notice.
func (p *peer) notify(verb string, in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return p.write(message{Verb: verb, Body: body})
}

// call makes a call and waits for its answer, which is decoded into out (nil:
// there is none to speak of). When ctx ends, the other end is told.
func (p *peer) call(ctx context.Context, verb string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	c := make(chan message, 1)
	p.mu.Lock()
	p.last++
	id := p.last
	p.waiting[id] = c
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, id)
		p.mu.Unlock()
	}()
	if err := p.write(message{ID: id, Verb: verb, Body: body}); err != nil {
		return p.gone(err)
	}
	var m message
	select {
	case m = <-c:
	case <-ctx.Done():
		p.notify(verbCancel, id)
		return context.Cause(ctx)
	case <-p.ctx.Done():
		select { // the answer may have been the last thing that came
		case m = <-c:
		default:
			return context.Cause(p.ctx)
		}
	}
	if m.Error != "" {
		return &RemoteError{Msg: m.Error}
	}
	if out == nil {
		return nil
	}
	if err := decodeStrict(m.Body, out); err != nil {
		return fmt.Errorf("the agent's answer to %s: %w", verb, err)
	}
	return nil
}

func (p *peer) gone(err error) error {
	if cause := context.Cause(p.ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("%w: %w", ErrGone, err)
}
