package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sekimori/introspect"
	"sekimori/lifecycle"
	"sekimori/lifecycle/agent"
	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/vmm/hypercall"
	"sekimori/vmm/virtio"
)

// A guestNIC is a container's card in a machine: a virtio device on one side, a
// port of the switch on the other.
type guestNIC struct {
	name     string // of the container
	device   *virtio.Net
	mac      frame.MAC // of the device; the agent gives it the container's
	envelope *rule.Program
	watched  bool // the file only watches it
	// port is nil while the container is not attached: nothing passes then.
	port atomic.Pointer[nicshadow.PushPort]
}

func newGuestNIC(mac frame.MAC, mtu int) (*guestNIC, error) {
	n := &guestNIC{mac: mac}
	var err error
	n.device, err = virtio.NewNet(virtio.NetConfig{MAC: mac, MTU: mtu, Backend: n})
	return n, err
}

// plug gives the card a port of the switch.
func (n *guestNIC) plug(sw *nicshadow.Switch, sender uint32, mac frame.MAC, mtu int) error {
	port, err := sw.AddPushPort(nicshadow.PushConfig{
		Name: n.name, Sender: nicshadow.Sender(sender), MAC: mac, MTU: mtu, Device: n, Envelope: n.envelope, Watched: n.watched,
	})
	n.port.Store(port)
	return err
}

// faults are the names of what a device refuses.
var faults = map[virtio.NetFault]nicshadow.Reason{
	virtio.BadBuffer: nicshadow.BadDescriptor, virtio.WritableBuffer: nicshadow.BadDescriptor,
	virtio.ShortHeader: nicshadow.BadDescriptor, virtio.BadOffloadHeader: nicshadow.BadOffloadHeader,
	virtio.ShortFrame: nicshadow.FromFrame(frame.Truncated), virtio.LongFrame: nicshadow.FromFrame(frame.TooLong),
}

// Transmit judges a frame before the guest runs on.
func (n *guestNIC) Transmit(b []byte, _ uint16) {
	if p := n.port.Load(); p != nil {
		p.Send(b)
	}
}

// Refuse counts a frame that was no frame.
func (n *guestNIC) Refuse(b []byte, _ uint16, why virtio.NetFault) {
	if p := n.port.Load(); p != nil {
		p.Refuse(b, faults[why])
	}
}

// Write delivers a frame to the guest.
func (n *guestNIC) Write(b []byte) (int, error) {
	if err := n.device.Deliver(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close does nothing: the device is the machine's.
func (n *guestNIC) Close() error { return nil }

// A guestNetwork is the data path of a pod in a machine. Its cards are the
// machine's, which the agent gives to the containers; their policies are put in
// force by hypercalls of the agent, before it does.
type guestNetwork struct {
	*network
	machine *machine
	policy  *guestPolicy
}

var _ lifecycle.Network = (*guestNetwork)(nil)

// Attach has the agent put the policy in force and move the card.
func (n *guestNetwork) Attach(ctx context.Context, name string, nic *bundle.NIC, _ *os.File, program []byte, mode string) (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cards[name] != nil {
		return fmt.Errorf("card of %q: is attached", name)
	}
	i := slices.IndexFunc(n.machine.nics, func(g *guestNIC) bool { return g.name == name })
	if i < 0 {
		return fmt.Errorf("card of %q: the machine has none", name)
	}
	if err := n.bringUplink(); err != nil {
		return err
	}
	mac, err := frame.ParseMAC(nic.MAC)
	if err != nil {
		return err
	}
	n.last++
	if nic.Audit {
		mode = lifecycle.Audit
	}
	g, c := n.machine.nics[i], &card{sender: n.last, mode: n.pick(mode), audit: nic.Audit, closed: len(program) == 0}
	if c.closed {
		program = nothing()
	}
	call := agent.Attach{Container: name, Sender: c.sender, NIC: nic, Program: program, Audit: c.wireMode() == hypercall.ModeAudit, Card: g.mac.String()}
	if s := n.machine.shared; s != nil {
		call.Card, call.Shared = sharedMAC.String(), true
		err = s.attach(name, nicshadow.Sender(c.sender), mac, nic, g)
	} else {
		err = g.plug(n.sw, c.sender, mac, nic.MTU)
	}
	if err != nil {
		return err
	}
	n.policy.admit(c.sender, name, mac, nic.Audit)
	err = n.machine.client.Attach(ctx, call)
	if err == nil {
		err = n.policy.attached(c.sender, program)
	}
	if err != nil {
		return errors.Join(err, n.remove(g, c.sender))
	}
	n.cards[name] = c
	return nil
}

// Stats adds what the guest asked for and was not given.
func (n *guestNetwork) Stats(ctx context.Context, name string) (json.RawMessage, error) {
	if name == "" {
		return json.Marshal(podStats{Unattributed: n.table.Unattributed(), Refused: n.machine.refused()})
	}
	return n.network.Stats(ctx, name)
}

// remove takes a card from its container.
func (n *guestNetwork) remove(g *guestNIC, sender uint32) error {
	unplug := func() error { return n.machine.shared.port.Load().Detach(nicshadow.Sender(sender)) }
	if n.machine.shared == nil {
		g.port.Store(nil)
		unplug = func() error { return n.sw.RemovePort(g.name) }
	}
	n.policy.forget(sender)
	err := n.calls.Unregister(sender)
	var refused *hypercall.Error
	if errors.As(err, &refused) && refused.Status == hypercall.StatusUnknownSender {
		err = nil // the guest never got so far, or has said so itself
	}
	return errors.Join(unplug(), err)
}

// SetMode changes between enforce and audit, on the host's own word.
func (n *guestNetwork) SetMode(ctx context.Context, name, mode string) error {
	err := n.network.SetMode(ctx, name, mode)
	if err == nil {
		n.policy.ownMode(name)
	}
	return err
}

// Detach removes the card.
func (n *guestNetwork) Detach(name string) error {
	return n.with(name, func(c *card) error {
		delete(n.cards, name)
		i := slices.IndexFunc(n.machine.nics, func(g *guestNIC) bool { return g.name == name })
		return n.remove(n.machine.nics[i], c.sender)
	})
}

// Close ends the machine, and then the data path.
func (n *guestNetwork) Close() error { return errors.Join(n.machine.close(), n.network.Close()) }

// A guestPolicy does what a guest's hypercalls ask, for the cards that the host
// has admitted; and tells the pod of what changed.
type guestPolicy struct {
	backend
	forced string     // mode of every policy, "" if the guest decides
	shared *sharedNIC // nil if each container has its own card

	// mu guards the fields below.
	mu    sync.Mutex
	cards map[uint32]*admitted
	hooks map[*activeHook]bool
}

// An admitted card is one whose policy the guest may set.
type admitted struct {
	name     string
	mac      frame.MAC
	attached bool
	audit    bool      // whatever is loaded, until somebody sets a mode: nic(mode = "audit")
	began    time.Time // of the last load
	staged   map[[hypercall.HashSize]byte][]byte
}

// An activeHook is a callback that runs in the guest.
type activeHook struct {
	ctx context.Context
	pod *lifecycle.Pod
}

// newGuestPolicy makes the policy of a machine that has no card admitted.
func newGuestPolicy() *guestPolicy {
	return &guestPolicy{cards: map[uint32]*admitted{}, hooks: map[*activeHook]bool{}}
}

// bind says where the policies of the cards go, before the first is admitted.
func (p *guestPolicy) bind(table *nicshadow.Table, forced string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table, p.forced = table, forced
}

var _ hypercall.Backend = (*guestPolicy)(nil)

func (p *guestPolicy) admit(sender uint32, name string, mac frame.MAC, audit bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cards[sender] = &admitted{name: name, mac: mac, audit: audit, staged: map[[hypercall.HashSize]byte][]byte{}}
}

// ownMode ends the audit that a card began in: a mode was set.
func (p *guestPolicy) ownMode(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.cards {
		if c.name == name {
			c.audit = false
		}
	}
}

func (p *guestPolicy) forget(sender uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.cards, sender)
	if p.shared != nil {
		p.shared.forget(sender)
	}
}

// attached ends the attaching of a card, whose policy must be the one that the
// agent was given: a guest that says so and did something else is found out.
func (p *guestPolicy) attached(sender uint32, program []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, err := p.table.Stats(nicshadow.Sender(sender))
	if err != nil {
		return fmt.Errorf("the agent did not register the card: %w", err)
	}
	c := p.cards[sender]
	if want, ok := c.staged[st.Program]; !ok || string(want) != string(program) {
		return errors.New("the agent did not put the policy in force")
	}
	c.attached = true
	return nil
}

// card finds an admitted card; a guest speaks of no other.
func (p *guestPolicy) card(sender uint32) (*admitted, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cards[sender]
	if c == nil {
		return nil, &hypercall.Error{Status: hypercall.StatusUnknownSender, Msg: fmt.Sprintf("sender %d is no card of this machine", sender)}
	}
	return c, nil
}

// Register is of cards that the host admitted, under the host's name for them.
func (p *guestPolicy) Register(r hypercall.Registration) error {
	c, err := p.card(r.Sender)
	if err != nil {
		return err
	}
	if r.Name != c.name || r.MAC != c.mac {
		return &hypercall.Error{Status: hypercall.StatusRefused, Msg: fmt.Sprintf("sender %d is the card of %s, %v", r.Sender, c.name, c.mac)}
	}
	if err := p.backend.Register(r); err != nil {
		return err
	}
	if p.shared != nil {
		p.shared.register(introspect.Member{Number: r.Sender, NetNS: r.NetNS, CgroupID: r.Cgroup})
	}
	return nil
}

// Load keeps the program, for the pod's record of what is in force.
func (p *guestPolicy) Load(sender uint32, program []byte) (hash [hypercall.HashSize]byte, err error) {
	c, err := p.card(sender)
	if err != nil {
		return hash, err
	}
	began := time.Now()
	if hash, err = p.backend.Load(sender, program); err != nil {
		return hash, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.began = began
	if len(c.staged) >= nicshadow.MaxStaged {
		clear(c.staged) // what the table has put out, or soon would
	}
	c.staged[hash] = program
	return hash, nil
}

// Swap puts a program in force, in the mode that the command line forces.
func (p *guestPolicy) Swap(sender uint32, hash [hypercall.HashSize]byte, m hypercall.Mode) error {
	c, err := p.card(sender)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if c.audit {
		m = hypercall.ModeAudit
	}
	p.mu.Unlock()
	m = p.pick(m)
	if err := p.backend.Swap(sender, hash, m); err != nil {
		return err
	}
	p.mu.Lock()
	program, took := c.staged[hash], time.Since(c.began)
	p.mu.Unlock()
	p.changed(c, program, m, took)
	return nil
}

// SetMode changes between enforce and audit.
func (p *guestPolicy) SetMode(sender uint32, m hypercall.Mode) error {
	c, err := p.card(sender)
	if err != nil {
		return err
	}
	m = p.pick(m)
	began := time.Now()
	if err := p.backend.SetMode(sender, m); err != nil {
		return err
	}
	p.ownMode(c.name)
	p.changed(c, nil, m, time.Since(began))
	return nil
}

// Unregister closes a card of the guest's own.
func (p *guestPolicy) Unregister(sender uint32) error {
	if _, err := p.card(sender); err != nil {
		return err
	}
	return p.backend.Unregister(sender)
}

// Stats are of the guest's own cards.
func (p *guestPolicy) Stats(sender uint32) (hypercall.Stats, error) {
	if _, err := p.card(sender); err != nil {
		return hypercall.Stats{}, err
	}
	return p.backend.Stats(sender)
}

func (p *guestPolicy) pick(m hypercall.Mode) hypercall.Mode {
	if p.forced != "" {
		return callMode(p.forced)
	}
	return m
}

// changed tells the pod that the guest changed a policy. Which callback did, if
// several run, cannot be known: each of them is held to it.
func (p *guestPolicy) changed(c *admitted, program []byte, m hypercall.Mode, took time.Duration) {
	p.mu.Lock()
	attached := c.attached
	var told *lifecycle.Container
	for h := range p.hooks {
		if k := h.pod.Container(c.name); k != nil {
			k.Touch(h.ctx)
			told = k
		}
	}
	p.mu.Unlock()
	if !attached || told == nil {
		return
	}
	mode := lifecycle.Enforce
	if m == hypercall.ModeAudit {
		mode = lifecycle.Audit
	}
	told.NotePolicy(program, mode, took)
}

// enter notes that a callback runs in the guest, until the function it returns
// is called.
func (p *guestPolicy) enter(ctx context.Context, pod *lifecycle.Pod) (leave func()) {
	h := &activeHook{ctx, pod}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks[h] = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.hooks, h)
	}
}

// event takes what the agent has for the journal: it comes of callbacks.
func (p *guestPolicy) event(e agent.Event) {
	p.mu.Lock()
	var k *lifecycle.Container
	for h := range p.hooks {
		k = h.pod.Container(e.Container)
	}
	p.mu.Unlock()
	if k != nil {
		_ = k.NoteAgent(e.Event) // of a guest that makes it up: not worth a line
	}
}

// guestHook is a callback as a hook that the agent runs.
func (m *machine) guestHook(index int) func(context.Context, *lifecycle.Container, lifecycle.Event) error {
	return func(ctx context.Context, c *lifecycle.Container, e lifecycle.Event) error {
		raw, err := json.Marshal(e)
		if err != nil {
			return err
		}
		call := agent.HookCall{Container: c.Name(), Index: index, Event: raw}
		for _, name := range c.Pod().Containers() {
			k := c.Pod().Container(name)
			call.States = append(call.States, agent.State{Container: name, Pid: k.Pid(), ExitStatus: k.ExitStatus()})
		}
		leave := m.policy.enter(ctx, c.Pod())
		defer leave()
		return m.client.Hook(ctx, call)
	}
}
