package nicshadow

import (
	"errors"
	"fmt"
	"io"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A PushConfig configures a port whose frames are pushed by the device model
// of a guest: the other end of a card that one container owns.
type PushConfig struct {
	// Name is the container's.
	Name string
	// Sender is who the port's frames are attributed to: the port is the
	// proof.
	Sender Sender
	// MAC is the address assigned to the card, by which the others reach it.
	MAC frame.MAC
	// MTU is the longest payload in bytes; 0 means 1500.
	MTU int
	// Device takes frames for the guest. Write must not wait; without room it
	// returns an error that is EAGAIN or ENOBUFS. It may be called by any
	// port's goroutine, during a Send of the same card too.
	Device io.WriteCloser
	// Envelope is the host's own program for the card. It is a part of the
	// port, sealed: no call of the [Table], and so no hypercall, changes it.
	// The sender's program can only narrow it: a frame must pass both, in audit
	// mode as well. A guest has one, or its kernel could send what it likes.
	Envelope *rule.Program
	// Watched says that the host itself asks only to watch the card: while the
	// sender is in audit mode the envelope is not asked.
	Watched bool
}

// ErrNoEnvelope says that a guest's port was to be made without an envelope.
var ErrNoEnvelope = errors.New("a guest's port needs an envelope")

// A PushPort is a port whose frames are pushed.
type PushPort struct{ port *port }

// AddPushPort adds a port whose frames come by [PushPort.Send]. The device is
// the switch's from then on, and closed by it; on an error it is still the
// caller's. [Switch.RemovePort] waits for a Send that is under way, so it must
// not be called from within one.
func (s *Switch) AddPushPort(cfg PushConfig) (*PushPort, error) {
	switch {
	case cfg.Sender == 0:
		return nil, fmt.Errorf("add port %s: %w", cfg.Name, ErrUnknownSender)
	case cfg.Envelope == nil:
		return nil, fmt.Errorf("add port %s: %w", cfg.Name, ErrNoEnvelope)
	}
	mtu, err := payload(cfg.MTU)
	if err == nil {
		err = unicast(cfg.MAC)
	}
	if err != nil {
		return nil, fmt.Errorf("add port %s: %w", cfg.Name, err)
	}
	p := newPort(s, cfg.Name, cfg.Sender, cfg.MAC, mtu, newEnvelope(cfg.Envelope, cfg.Watched), cfg.Device)
	if err := s.add(p); err != nil {
		return nil, err
	}
	return &PushPort{p}, nil
}

// no allocation, no lock, no log below this line

// Send judges a frame and moves it on, on the caller's goroutine: when it
// returns, all is decided, and the guest may run on. b must be a private copy:
// it is what is judged and what is sent; it is not kept.
//
// The calls of one port come one after the other; a second at the same time is
// a bug of the device model, and its frame drops as "unjudged". Those of a port
// that was removed are forgotten.
func (p *PushPort) Send(b []byte) {
	if !p.port.enter() {
		return
	}
	p.port.frame(p.port.self, b)
	p.port.gate.leave()
}

// Refuse drops a frame that the guest handed over wrongly, for a reason that is
// not in the frame: it is counted and told like any other drop. b is what could
// be read of it. Its calls and those of Send come one after the other.
func (p *PushPort) Refuse(b []byte, r Reason) {
	if !p.port.enter() {
		return
	}
	p.port.self.refuse(b, r)
	p.port.gate.leave()
}

// enter passes the gate, and counts who may not: what is not judged drops.
func (p *port) enter() bool {
	if p.gate.enter() {
		return true
	}
	if p.gate.busy() {
		p.self.count(Unjudged)
	}
	return false
}
