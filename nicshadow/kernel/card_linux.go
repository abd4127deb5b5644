package kernel

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ebpf"
	"sekimori/nicshadow/tap"
)

// A card is a container's, or the uplink: the path of a port.
type card struct {
	sw       *Switch
	pair     *tap.Pair
	cfg      CardConfig
	programs *ebpf.Card
	port     atomic.Pointer[nicshadow.PathPort] // nil before it is one

	// mu guards last, what was counted when the card was closed; nil before.
	mu   sync.Mutex
	last *nicshadow.Counts
}

var _ nicshadow.Path = (*card)(nil)

// Enforce puts a program in force. Where the kernel cannot be made to run it, the
// error says which line of the policy asks too much.
func (c *card) Enforce(p *rule.Program, m nicshadow.Mode) error {
	err := c.programs.Enforce(p, m == nicshadow.Audit)
	var much *ebpf.Unsupported
	if errors.As(err, &much) && p != nil {
		if file, line, col := p.Position(uint32(much.PC)); file != "" {
			return fmt.Errorf("%s:%d:%d: %w", file, line, col, err)
		}
	}
	return err
}

// Watch sets what is told.
func (c *card) Watch(w nicshadow.Watch) error {
	return c.programs.Watch(ebpf.Watch{All: w.All, Drops: true, Rate: w.Rate, Burst: w.Burst})
}

// Read adds up what was counted since it was last called.
func (c *card) Read(out *nicshadow.Counts) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil {
		*out, *c.last = *c.last, nicshadow.Counts{}
		return nil
	}
	return c.read(out)
}

func (c *card) read(out *nicshadow.Counts) error {
	n, hits, err := c.programs.Read()
	if err != nil {
		return err
	}
	out.Bytes, out.Allowed, out.Delivered = n[ebpf.CountBytes], n[ebpf.CountAllowed], n[ebpf.CountDelivered]
	copy(out.Dropped[:], n[ebpf.CountDropped:])
	copy(out.Would[:], n[ebpf.CountWould:])
	for _, h := range hits {
		mode := nicshadow.Enforce
		if h.Audit {
			mode = nicshadow.Audit
		}
		out.Hits = append(out.Hits, nicshadow.Hits{Program: h.Program, Mode: mode, Count: h.Count})
	}
	return nil
}

// Close takes the programs away, and so the card from the network.
func (c *card) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil {
		return nil
	}
	errs := []error{c.programs.Stop()}
	c.last = &nicshadow.Counts{}
	errs = append(errs, c.read(c.last))
	c.sw.mu.Lock()
	if slot := c.programs.Slot(); c.sw.cards[slot] == c {
		delete(c.sw.cards, slot)
	}
	c.sw.mu.Unlock()
	errs = append(errs, c.programs.Close())
	if !c.cfg.Card.EndsWithNetNS {
		errs = append(errs, c.pair.Remove())
	}
	if c.cfg.Closed != nil {
		errs = append(errs, c.cfg.Closed())
	}
	return errors.Join(errs...)
}
