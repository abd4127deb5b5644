package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/kernel"
	"sekimori/nicshadow/rule"
	"sekimori/vmm/hypercall"
)

// A network is the data path of one pod on machine host: a TAP device for each
// container's card, and one switch. All that is about policies goes through
// hypercalls, in-process, so that a machine with a guest plugs in behind the
// same bytes.
type network struct {
	table *nicshadow.Table
	sw    *nicshadow.Switch
	calls *hypercall.Client
	// forced is the mode that every policy has, whatever the file says; "" if
	// the file decides.
	forced string
	log    *slog.Logger
	env    func(string) string
	open   func(*os.File, *bundle.NIC, frame.MAC) (io.ReadWriteCloser, error)
	// inKernel makes cards whose frames the kernel judges; nil for none.
	inKernel *kernel.Switch
	end      []func() error // what Close does, last first

	// mu guards what follows, and what is in cards.
	mu     sync.Mutex
	cards  map[string]*card // by container
	last   uint32           // sender given out last
	uplink func() error     // makes the port to the host; nil for none, or when it is made
}

// A card is a container's network card.
type card struct {
	sender uint32
	mode   string
	closed bool // no program: nothing passes, whatever the mode
	audit  bool // whatever the policy says, until a callback says otherwise
}

var _ lifecycle.Network = (*network)(nil)

// newNetwork makes a switch without ports, and opens the channel by which
// policies reach it. end is what Close does when the switch is closed, last
// first; also if newNetwork fails.
func newNetwork(sw nicshadow.Config, forced string, end []func() error) (*network, error) {
	var secret [hypercall.SecretSize]byte
	rand.Read(secret[:]) // never fails (crypto/rand, Go 1.24)
	n := &network{table: sw.Table, sw: nicshadow.NewSwitch(sw), forced: forced, open: openCard, end: end, cards: map[string]*card{}}
	n.end = append(n.end, n.sw.Close)
	server := hypercall.NewServer(backend{n.table}, secret, 0)
	n.calls = hypercall.NewClient(hypercall.Direct(server))
	if err := n.calls.Hello(secret); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Attach makes the card inside netns. The policy is in force before the card
// exists, so no frame can be too early.
func (n *network) Attach(_ context.Context, name string, nic *bundle.NIC, netns *os.File, program []byte, mode string) (err error) {
	mac, err := frame.ParseMAC(nic.MAC)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cards[name] != nil {
		return fmt.Errorf("card of %q: is attached", name)
	}
	if err := n.bringUplink(); err != nil {
		return err
	}
	n.last++
	c := &card{sender: n.last, audit: nic.Audit}
	if err := n.calls.Register(hypercall.Registration{Sender: c.sender, Name: name, MAC: mac, NetNS: inode(netns)}); err != nil {
		return err
	}
	undo := func() error { return n.calls.Unregister(c.sender) }
	defer func() {
		if err != nil {
			err = errors.Join(err, undo())
		}
	}()
	if err := n.load(c, program, mode); err != nil {
		return err
	}
	if err := n.plug(netns, name, nic, mac, c.sender); err != nil {
		return err
	}
	n.cards[name] = c
	return nil
}

// plug makes the card a port of the switch.
func (n *network) plug(netns *os.File, name string, nic *bundle.NIC, mac frame.MAC, sender uint32) error {
	if n.inKernel != nil {
		return n.inKernel.AddCard(kernel.CardConfig{Name: name, Sender: nicshadow.Sender(sender), NetNS: netns, Card: cardConfig(nic, mac)})
	}
	dev, err := n.open(netns, nic, mac)
	if err != nil {
		return err
	}
	if err := n.sw.AddPort(nicshadow.PortConfig{Name: name, Sender: nicshadow.Sender(sender), MAC: mac, MTU: nic.MTU, Device: dev}); err != nil {
		return errors.Join(err, dev.Close())
	}
	return nil
}

// judgeInKernel makes the switch for so many cards whose frames the kernel
// judges.
func (n *network) judgeInKernel(cards int, log *slog.Logger) (err error) {
	if n.inKernel, err = kernel.New(kernel.Config{Ports: n.sw, Cards: cards, Log: log}); err != nil {
		return fmt.Errorf("nic(datapath = \"kernel\"): %w\n    seki doctor says what this kernel can do; or datapath = \"user\"", err)
	}
	// Behind the ports, whose last frames it tells of.
	n.end = slices.Insert(n.end, len(n.end)-1, n.inKernel.Close)
	return nil
}

// bringUplink makes the port to the host, with the first card. n.mu is held.
func (n *network) bringUplink() error {
	if n.uplink == nil {
		return nil
	}
	up := n.uplink
	n.uplink = nil
	return up()
}

// pick is the mode that is set where mode is asked for.
func (n *network) pick(mode string) string {
	if n.forced != "" {
		return n.forced
	}
	return mode
}

// load puts program and mode in force, in one step. n.mu is held.
func (n *network) load(c *card, program []byte, mode string) error {
	next := *c
	if c.audit {
		mode = lifecycle.Audit
	}
	next.mode, next.closed = n.pick(mode), len(program) == 0
	if next.closed {
		program = nothing()
	}
	hash, err := n.calls.Load(c.sender, program)
	if err != nil {
		return err
	}
	if err := n.calls.Swap(c.sender, hash, next.wireMode()); err != nil {
		return err
	}
	*c = next
	return nil
}

// wireMode is the card's mode. Where nothing may pass it enforces: in audit
// mode the program that drops all would let all pass.
func (c *card) wireMode() hypercall.Mode {
	if c.mode == lifecycle.Audit && !c.closed {
		return hypercall.ModeAudit
	}
	return hypercall.ModeEnforce
}

// nothing is the program that drops every frame, as bytes.
func nothing() []byte { return nothingProgram().Bytes() }

var nothingProgram = sync.OnceValue(func() *rule.Program {
	p, err := rule.New(&rule.Unit{
		Insns: []rule.Insn{{Op: rule.OpRet}},
		Whys:  []rule.Why{{Kind: rule.WhyGuard, Name: "closed"}},
		Lines: []rule.Pos{{}},
	})
	if err != nil {
		panic(err) // a bug here: the unit is a constant
	}
	return p
})

// LoadPolicy replaces the program and its mode.
func (n *network) LoadPolicy(_ context.Context, name string, program []byte, mode string) error {
	return n.with(name, func(c *card) error { return n.load(c, program, mode) })
}

// SetMode changes between enforce and audit.
func (n *network) SetMode(_ context.Context, name, mode string) error {
	return n.with(name, func(c *card) error {
		c.mode, c.audit = n.pick(mode), false
		return n.calls.SetMode(c.sender, c.wireMode())
	})
}

func (n *network) with(name string, do func(*card) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.cards[name]
	if c == nil {
		return fmt.Errorf("card of %q: there is none", name)
	}
	return do(c)
}

// Stats returns a [netStats], or for no name a [podStats].
func (n *network) Stats(_ context.Context, name string) (json.RawMessage, error) {
	if name == "" {
		return json.Marshal(podStats{Unattributed: n.table.Unattributed()})
	}
	var st hypercall.Stats
	err := n.with(name, func(c *card) (err error) {
		st, err = n.calls.Stats(c.sender)
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(newNetStats(st))
}

// Detach removes the card.
func (n *network) Detach(name string) error {
	return n.with(name, func(c *card) error {
		delete(n.cards, name)
		// The port first: a frame that comes while it closes still has its
		// program, and no counter is lost.
		return errors.Join(n.sw.RemovePort(name), n.calls.Unregister(c.sender))
	})
}

// Close ends the data path.
func (n *network) Close() error {
	var errs []error
	for i := len(n.end) - 1; i >= 0; i-- {
		errs = append(errs, n.end[i]())
	}
	n.end = nil
	return errors.Join(errs...)
}
