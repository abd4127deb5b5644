package ebpf

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// A CardConfig says what a [Card] is.
type CardConfig struct {
	// Device is the index of the host's end of the pair, in the network
	// namespace of the calling thread.
	Device int
	// MAC is the address by which the others reach it.
	MAC frame.MAC
	// Limit is the longest frame in bytes.
	Limit int
	// Trusted marks the uplink: its frames are not judged, but none may bear a
	// container's source address.
	Trusted bool
}

// A Card is a pair of devices whose frames the kernel judges. Its programs live
// as long as it is open; nothing is pinned. The network stack behind the host's
// end is nobody's, so that without its programs nothing passes.
type Card struct {
	fabric  *Fabric
	cfg     CardConfig
	slot    uint32
	control *ebpf.Map
	memory  *memory
	out, in link.Link
	// arrive is the program for what a container is sent that has no say in it:
	// the same, whatever is in force.
	arrive *ebpf.Program

	// mu guards what follows.
	mu      sync.Mutex
	now     *generation // in force
	retired []*generation
	past    []*generation       // told of, still; nothing of them is in the kernel
	seen    [NumCounters]uint64 // counters as they were last read
	stopped bool
	closed  bool
}

// A generation is a rule program in force in a mode, with its counters.
type generation struct {
	number  uint32
	program *rule.Program // nil: nothing passes
	audit   bool
	hits    *ebpf.Map
	seen    []uint64
	until   time.Time // when it was replaced
	progs   [2]*ebpf.Program
	shared  *ebpf.Program // which of them is the card's
}

// Open makes a card of which nothing passes yet, and attaches its programs. The
// calling thread must be in the namespace of the device.
func (f *Fabric) Open(cfg CardConfig) (_ *Card, err error) {
	c := &Card{fabric: f, cfg: cfg, memory: newMemory()}
	if c.slot, err = f.take(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	c.control, err = ebpf.NewMap(&ebpf.MapSpec{Name: "seki_control", Type: ebpf.Array, KeySize: 4, ValueSize: controlLen, MaxEntries: 1, Flags: readOnly})
	if err != nil {
		return nil, fmt.Errorf("ebpf: map control: %w", err)
	}
	g, err := c.load(nil, false)
	if err != nil {
		return nil, err
	}
	c.now = g
	if c.in, err = link.AttachTCX(link.TCXOptions{Interface: cfg.Device, Program: g.progs[1], Attach: ebpf.AttachTCXEgress}); err != nil {
		return nil, fmt.Errorf("ebpf: %w", err)
	}
	if c.out, err = link.AttachTCX(link.TCXOptions{Interface: cfg.Device, Program: g.progs[0], Attach: ebpf.AttachTCXIngress}); err != nil {
		return nil, fmt.Errorf("ebpf: %w", err)
	}
	if cfg.Trusted {
		return c, c.port(portOpen | portDirectTo(nil))
	}
	return c, c.port(0)
}

// Slot is the card's number in events.
func (c *Card) Slot() uint32 { return c.slot }

// port puts the card into the forwarding table.
func (c *Card) port(flags uint32) error {
	v := [4]uint32{uint32(c.cfg.Device), c.slot, uint32(c.cfg.Limit), flags}
	if err := c.fabric.ports.Put(c.cfg.MAC.Uint64(), v); err != nil {
		return fmt.Errorf("ebpf: port: %w", err)
	}
	return nil
}

// portDirectTo is portDirect where p has no say in what the card is sent.
func portDirectTo(p *rule.Program) uint32 {
	if p == nil || !p.Remembers() && !p.JudgesIngress() {
		return portDirect
	}
	return 0
}

// load has the kernel verify both programs of a generation.
func (c *Card) load(p *rule.Program, audit bool) (_ *generation, err error) {
	g := &generation{number: c.fabric.next(), program: p, audit: audit, shared: c.arrive, progs: [2]*ebpf.Program{1: c.arrive}}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	cfg := cardConfig{slot: c.slot, generation: g.number, limit: uint32(c.cfg.Limit), audit: audit, trusted: c.cfg.Trusted, reasons: &c.fabric.reasons, memory: c.memory}
	shared := map[string]*ebpf.Map{sharedCounters: c.fabric.counters, sharedPorts: c.fabric.ports, sharedEvents: c.fabric.events, sharedControl: c.control}
	if p != nil {
		cfg.hits = p.Len()
		g.seen = make([]uint64, cfg.hits)
		if g.hits, err = ebpf.NewMap(&ebpf.MapSpec{Name: "seki_hits", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(8 * cfg.hits), MaxEntries: 1}); err != nil {
			return nil, fmt.Errorf("ebpf: map hits: %w", err)
		}
		shared[sharedHits] = g.hits
		if err := c.memory.admit(p, shared); err != nil {
			return nil, err
		}
	}
	for way := range g.progs {
		if way == 1 && c.arrive != nil && portDirectTo(p) != 0 {
			continue
		}
		code, err := compileCard(p, cfg, way == 1)
		if err != nil {
			return nil, err
		}
		x, err := code.load(shared)
		if err != nil {
			return nil, err
		}
		g.progs[way] = x.prog
		x.prog = nil
		x.Close()
	}
	if c.arrive == nil { // the first: nothing passes yet
		c.arrive, g.shared = g.progs[1], g.progs[1]
	}
	return g, nil
}

// Enforce puts a program and its mode in force: frames that come before it
// returns are judged by the old one or by the new one, frames after it by the
// new one. p nil lets nothing pass. On an error the old one stays.
func (c *Card) Enforce(p *rule.Program, audit bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errors.New("ebpf: card is closed")
	}
	g, err := c.load(p, audit)
	if err != nil {
		c.memory.forget(c.now.program)
		return err
	}
	if p == nil {
		if err := c.port(0); err != nil {
			return errors.Join(err, g.close())
		}
	}
	old := c.now
	if err := c.swap(old, g); err != nil {
		return errors.Join(err, g.close())
	}
	if p != nil {
		if err := c.port(portOpen | portDirectTo(p)); err != nil {
			return errors.Join(err, c.swap(g, old), g.close())
		}
	}
	c.memory.forget(p)
	old.until = time.Now()
	c.retired = append(c.retired, old)
	c.now = g
	return nil
}

// swap puts the programs of g in the place of those of old.
func (c *Card) swap(old, g *generation) error {
	if g.progs[1] != old.progs[1] {
		if err := c.in.Update(g.progs[1]); err != nil {
			return fmt.Errorf("ebpf: update: %w", err)
		}
	}
	if err := c.out.Update(g.progs[0]); err != nil {
		return errors.Join(fmt.Errorf("ebpf: update: %w", err), c.in.Update(old.progs[1]))
	}
	return nil
}

// A Watch says what a card tells of.
type Watch struct {
	// All frames that are judged; otherwise those that drop, or would.
	All, Drops bool
	// Rate is how many drops a second, and Burst how many at once.
	Rate, Burst int
}

// Watch sets what the card tells of.
func (c *Card) Watch(w Watch) error {
	v := [3]uint64{0, uint64(time.Second) / uint64(max(w.Rate, 1)), uint64(time.Second) / uint64(max(w.Rate, 1)) * uint64(max(w.Burst-1, 0))}
	if w.All {
		v[0] |= watchAll
	}
	if w.Drops {
		v[0] |= watchDrops
	}
	if err := c.control.Put(uint32(0), v); err != nil {
		return fmt.Errorf("ebpf: watch: %w", err)
	}
	return nil
}

// Program is the one of a generation, and its mode; ok is false where that was
// long ago.
func (c *Card) Program(number uint32) (p *rule.Program, audit, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range slices.Concat([]*generation{c.now}, c.retired, c.past) {
		if g.number == number {
			return g.program, g.audit, true
		}
	}
	return nil, false, false
}

// Hits are how often instructions of a program decided, since they were last
// read.
type Hits struct {
	Program *rule.Program
	Audit   bool
	Count   []uint64
}

// settled is when a program that was replaced is done with its last frame: it
// takes the kernel's readers (RCU) milliseconds. Of maxPast programs before
// events can still be told.
const (
	settled = time.Second
	maxPast = 256
)

// Read returns what the card counted since the last Read, by the places of
// counters, and of each program that did.
func (c *Card) Read() (counts []uint64, hits []Hits, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := make([]uint64, NumCounters)
	if err := c.fabric.counters.Lookup(c.slot, &now); err != nil {
		return nil, nil, fmt.Errorf("ebpf: counters: %w", err)
	}
	counts = make([]uint64, NumCounters)
	for i, n := range now {
		counts[i] = n - c.seen[i]
		c.seen[i] = n
	}
	for _, g := range append(slices.Clone(c.retired), c.now) {
		h, err := g.read()
		if err != nil {
			return nil, nil, err
		}
		if h.Count != nil {
			hits = append(hits, h)
		}
	}
	c.retired = slices.DeleteFunc(c.retired, func(g *generation) bool {
		old := time.Since(g.until) > settled
		if old {
			err = errors.Join(err, g.close())
			c.past = append(c.past, &generation{number: g.number, program: g.program, audit: g.audit})
		}
		return old
	})
	if n := len(c.past) - maxPast; n > 0 {
		c.past = slices.Delete(c.past, 0, n)
	}
	return counts, hits, err
}

// read is what decided since the last read; no counts where nothing did.
func (g *generation) read() (Hits, error) {
	h := Hits{Program: g.program, Audit: g.audit}
	if g.hits == nil {
		return h, nil
	}
	now := make([]uint64, len(g.seen))
	if err := g.hits.Lookup(uint32(0), &now); err != nil {
		return h, fmt.Errorf("ebpf: hits: %w", err)
	}
	for i, n := range now {
		if n == g.seen[i] {
			continue
		}
		if h.Count == nil {
			h.Count = make([]uint64, len(now))
		}
		h.Count[i] = n - g.seen[i]
	}
	g.seen = now
	return h, nil
}

func (g *generation) close() error {
	var errs []error
	for _, p := range g.progs {
		if p != nil && p != g.shared {
			errs = append(errs, p.Close())
		}
	}
	if g.hits != nil {
		errs = append(errs, g.hits.Close())
	}
	return errors.Join(errs...)
}

// Stop takes the card out of the forwarding table, and its programs from the
// device: from then on nothing passes. What was counted can be read still.
func (c *Card) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stop()
}

func (c *Card) stop() error {
	if c.stopped {
		return nil
	}
	c.stopped = true
	var errs []error
	if err := c.fabric.ports.Delete(c.cfg.MAC.Uint64()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		errs = append(errs, fmt.Errorf("ebpf: port: %w", err))
	}
	for _, l := range []link.Link{c.out, c.in} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// Close stops the card, and gives back what it holds.
func (c *Card) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	errs := []error{c.stop()}
	for _, g := range append(c.retired, c.now) {
		if g != nil {
			errs = append(errs, g.close())
		}
	}
	c.retired = nil
	if c.arrive != nil {
		errs = append(errs, c.arrive.Close())
	}
	if c.control != nil {
		errs = append(errs, c.control.Close())
	}
	errs = append(errs, c.memory.close())
	c.fabric.give(c.slot)
	return errors.Join(errs...)
}
