package nicshadow

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"sekimori/nicshadow/frame"
)

// A Config configures a [Switch].
type Config struct {
	// Table judges the frames of the ports.
	Table *Table
	// DropLog and Capture are told of what dropped; nil for none. They stay
	// open when the switch is closed.
	DropLog *DropLog
	Capture *Capture
	// Record is told of every frame that a program judged; nil for none. Its
	// configuration says so too.
	Record *Capture
	// Log takes lifecycle events; nil discards them.
	Log *slog.Logger
}

// A PortConfig configures a port.
type PortConfig struct {
	// Name is the container's, or what the trusted port is called.
	Name string
	// Sender is who the port's frames are attributed to: the port is the
	// proof. 0 for a trusted port.
	Sender Sender
	// MAC is the address assigned to the card, by which the others reach it.
	MAC frame.MAC
	// MTU is the longest payload in bytes; 0 means 1500.
	MTU int
	// Device is the other end of the card: Read returns one frame and may
	// wait, Write takes one frame and must not. A Write that has no room
	// returns an error that is EAGAIN or ENOBUFS. Closing it ends a Read.
	Device io.ReadWriteCloser
	// Trusted marks the uplink: its frames are not judged, but none may bear
	// a container's source address.
	Trusted bool
}

// A Switch moves frames between ports.
//
// A port is open while its sender has a program in force; a trusted port
// always is. What comes from a closed port drops as "no program", what goes to
// one as "receiver closed".
type Switch struct {
	cfg Config
	// ports is never changed: changes store a new one.
	ports atomic.Pointer[portSet]
	live  atomic.Pointer[LiveConfig] // nil for none

	// mu guards changes of ports, and closed.
	mu     sync.Mutex
	closed bool
}

// A portSet is the forwarding table: it is fixed, nothing is learned.
type portSet struct {
	byMAC map[uint64]*station
	all   []*port
}

// Errors of a switch, to compare with by errors.Is.
var (
	ErrClosed     = errors.New("switch is closed")
	ErrPortExists = errors.New("port exists")
	ErrMACInUse   = errors.New("mac is in use")
	ErrNoPort     = errors.New("no such port")
	ErrMixed      = errors.New("a switch has ports of its own or ports with a path, not both")
)

// NewSwitch returns a switch without ports.
func NewSwitch(cfg Config) *Switch {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Switch{cfg: cfg}
	s.ports.Store(&portSet{})
	return s
}

// AddPort adds a port and starts to move its frames. The device is the
// switch's from then on, and closed by it; on an error it is still the
// caller's.
func (s *Switch) AddPort(cfg PortConfig) error {
	mtu, err := payload(cfg.MTU)
	switch {
	case err != nil:
	case cfg.Trusted != (cfg.Sender == 0):
		err = errors.New("a port is either trusted or has a sender")
	default:
		err = unicast(cfg.MAC)
	}
	if err != nil {
		return fmt.Errorf("add port %s: %w", cfg.Name, err)
	}
	p := newPort(s, cfg.Name, cfg.Sender, cfg.MAC, mtu, nil, cfg.Device)
	p.reader, p.trusted = cfg.Device, cfg.Trusted
	return s.add(p)
}

// payload is the longest payload of a port, in bytes.
func payload(mtu int) (int, error) {
	switch {
	case mtu == 0:
		return 1500, nil
	case mtu < 68 || mtu > frame.MaxLength-headerLen-maxTags*tagLen:
		return 0, fmt.Errorf("mtu %d is out of range", mtu)
	}
	return mtu, nil
}

// unicast refuses what is not the address of one card.
func unicast(mac frame.MAC) error {
	if mac.Group() || mac == (frame.MAC{}) {
		return fmt.Errorf("mac %v is not an address of one card", mac)
	}
	return nil
}

// add puts a port into the forwarding table, and starts to read it.
func (s *Switch) add(p *port) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.ports.Load()
	switch {
	case s.closed:
		return fmt.Errorf("add port %s: %w", p.name, ErrClosed)
	case old.named(p.name) != nil:
		return fmt.Errorf("add port %s: %w", p.name, ErrPortExists)
	}
	if len(old.all) > 0 && (old.all[0].path == nil) != (p.path == nil) {
		return fmt.Errorf("add port %s: %w", p.name, ErrMixed)
	}
	for _, st := range p.stations() {
		if old.byMAC[st.mac] != nil {
			return fmt.Errorf("add port %s: mac %v: %w", p.name, frame.MACFromUint64(st.mac), ErrMACInUse)
		}
	}
	s.ports.Store(newPortSet(append(slices.Clone(old.all), p)))
	for _, st := range p.stations() {
		st.bind()
	}
	if p.reader != nil {
		p.done.Go(p.run)
	}
	return nil
}

// RemovePort takes a port out of the forwarding table, closes its device, and
// returns when its last frame is done with.
func (s *Switch) RemovePort(name string) error {
	s.mu.Lock()
	p := s.ports.Load().named(name)
	if p != nil {
		s.ports.Store(s.ports.Load().without(p))
	}
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("remove port %s: %w", name, ErrNoPort)
	}
	return p.stop()
}

// Close removes all ports.
func (s *Switch) Close() error {
	s.mu.Lock()
	s.closed = true
	ports := s.ports.Swap(&portSet{}).all
	s.mu.Unlock()
	var errs []error
	for _, p := range ports {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// TrustedStats returns the counters of a trusted port; those of the others
// are [Table.Stats] of their senders.
func (s *Switch) TrustedStats(name string) (Stats, error) {
	p := s.ports.Load().named(name)
	if p == nil || !p.trusted {
		return Stats{}, fmt.Errorf("stats of trusted port %s: %w", name, ErrNoPort)
	}
	if p.path != nil {
		p.sw.cfg.Table.mu.Lock()
		defer p.sw.cfg.Table.mu.Unlock()
		p.own.pull()
	}
	return p.own.stats(), nil
}

func newPortSet(all []*port) *portSet {
	set := &portSet{byMAC: make(map[uint64]*station, len(all)), all: all}
	for _, p := range all {
		for _, st := range p.stations() {
			set.byMAC[st.mac] = st
		}
	}
	return set
}

func (s *portSet) named(name string) *port {
	for _, p := range s.all {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (s *portSet) without(p *port) *portSet {
	all := slices.Clone(s.all)
	return newPortSet(slices.DeleteFunc(all, func(q *port) bool { return q == p }))
}
