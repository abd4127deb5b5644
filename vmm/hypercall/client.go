package hypercall

import (
	"fmt"
	"strings"
	"sync"
)

// A Transport carries a request and returns its answer.
type Transport func(req []byte) (answer []byte, err error)

// A Client makes calls. Its methods may be called from several goroutines.
// A refused call returns an [Error]; a transport's error is returned wrapped.
type Client struct {
	transport Transport

	// mu guards what follows, and keeps the numbers in order on the channel.
	mu      sync.Mutex
	version uint16
	seq     uint64
}

// NewClient returns a client; [Client.Hello] must be its first call.
func NewClient(t Transport) *Client { return &Client{transport: t} }

// Direct returns the transport of machine host: an in-process call.
func Direct(s *Server) Transport {
	return func(req []byte) ([]byte, error) { return s.Call(req), nil }
}

// Hello opens the channel with the secret handed over at boot and settles the
// version.
func (c *Client) Hello(secret [SecretSize]byte) error {
	b, err := c.call(CallHello, hello{min: 1, max: Version, secret: secret}.encode())
	if err != nil {
		return err
	}
	r := reader{b: b}
	version := r.u16()
	zero := r.zero(2)
	_ = r.u32()
	if !r.done() || !zero || version == 0 || version > Version {
		return fmt.Errorf("hypercall hello: %w", malformed("answer of %d bytes, version %d", len(b), version))
	}
	c.mu.Lock()
	c.version = version
	c.mu.Unlock()
	return nil
}

// Register makes a sender known. Nothing it sends passes until a program is
// in force.
func (c *Client) Register(g Registration) error {
	if len(g.Name) > MaxName {
		return fmt.Errorf("hypercall register: %w", malformed("name of %d bytes", len(g.Name)))
	}
	_, err := c.call(CallRegister, g.encode())
	return err
}

// Load stages a program and returns its hash, by which [Client.Swap] names it.
func (c *Client) Load(sender uint32, program []byte) (hash [HashSize]byte, err error) {
	if len(program) > MaxProgram {
		return hash, fmt.Errorf("hypercall load: %w", &Error{StatusTooLarge, fmt.Sprintf("%d bytes", len(program))})
	}
	b, err := c.call(CallLoad, encodeSender(sender, program))
	if err != nil {
		return hash, err
	}
	if len(b) != HashSize {
		return hash, fmt.Errorf("hypercall load: %w", malformed("answer of %d bytes", len(b)))
	}
	return [HashSize]byte(b), nil
}

// Swap puts a staged program and the mode of its verdicts in force, whole: each
// frame is judged by the old program in the old mode, or by the new in the new.
func (c *Client) Swap(sender uint32, hash [HashSize]byte, m Mode) error {
	_, err := c.call(CallSwap, encodeSender(sender, append(hash[:], byte(m))))
	return err
}

// SetMode sets whether the sender's verdicts are enforced.
func (c *Client) SetMode(sender uint32, m Mode) error {
	_, err := c.call(CallMode, encodeSender(sender, []byte{byte(m)}))
	return err
}

// Stats returns the sender's counters.
func (c *Client) Stats(sender uint32) (Stats, error) {
	b, err := c.call(CallStats, encodeSender(sender, nil))
	if err != nil {
		return Stats{}, err
	}
	return decodeStats(b)
}

// Unregister forgets a sender: from then on nothing it sends passes.
func (c *Client) Unregister(sender uint32) error {
	_, err := c.call(CallUnregister, encodeSender(sender, nil))
	return err
}

// call makes one call and returns the payload of its answer.
func (c *Client) call(call Call, payload []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	req := Header{Version: c.version, Call: call, Seq: c.seq}
	if call == CallHello {
		req.Version = 0
	}
	answer, err := c.transport(req.encode(payload))
	if err != nil {
		return nil, fmt.Errorf("hypercall %v: %w", call, err)
	}
	if len(answer) > MaxAnswer {
		return nil, fmt.Errorf("hypercall %v: %w", call, malformed("answer of %d bytes", len(answer)))
	}
	h, b, err := DecodeHeader(answer)
	if err != nil {
		return nil, fmt.Errorf("hypercall %v: %w", call, err)
	}
	if h.Status != StatusOK {
		return nil, fmt.Errorf("hypercall %v: %w", call, &Error{h.Status, strings.ToValidUTF8(string(b), "?")})
	}
	if h.Call != call || h.Seq != req.Seq {
		return nil, fmt.Errorf("hypercall %v: %w", call, malformed("answer to %v %s", h.Call, seqText(h.Seq, req.Seq)))
	}
	return b, nil
}

func seqText(got, want uint64) string { return fmt.Sprintf("with number %d, want %d", got, want) }
