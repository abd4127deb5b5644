package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sekimori/introspect"
	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/starlark"
	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq"
)

// sharedMAC is the address of the card that all containers of a machine share.
// Nobody is reached by it: each container has a link of its own on it.
var sharedMAC = frame.MAC{0x02, 0x5e, 0x6b, 0x69, 0, 1}

// sharedPort is its port's name; no container can have it.
const sharedPort = "(card)"

// A sharedNIC is the one card of a machine whose containers share it. Who sent
// a frame is read from the guest's memory while the guest stands still.
type sharedNIC struct {
	*virtio.Net
	log     *slog.Logger
	port    atomic.Pointer[nicshadow.SharedPort] // nil until there may be containers: nothing passes then
	members *introspect.Members
	reader  reader     // of the guest's memory
	pid     func() int // of the guest's kernel on the host, where it is a process

	// Of the goroutine that serves the device, or whose turn it is among several.
	mem  *guestmem.Memory
	told bool // that it cannot be followed
	live atomic.Pointer[traced]

	mu    sync.Mutex                   // mu guards known
	known map[uint32]introspect.Member // by sender
}

// A traced is the card's transmit queue, as its driver in the guest has it.
type traced struct {
	guest *introspect.Guest
	queue *introspect.Queue
}

// A reader makes what reads a guest's memory out of what the kernel's image says
// of itself. It waits for the image to be read, which a boot leaves time for.
type reader func(*guestmem.Memory, *introspect.Members) (*introspect.Guest, error)

// newSharedNIC makes the card.
func newSharedNIC(mtu int, log *slog.Logger) (*sharedNIC, error) {
	n := &sharedNIC{log: log, members: introspect.NewMembers(), known: map[uint32]introspect.Member{}}
	var err error
	n.Net, err = virtio.NewNet(virtio.NetConfig{MAC: sharedMAC, MTU: mtu, Backend: n})
	return n, err
}

// inBackground begins to call f, and returns what waits for it. Whoever waits may
// be a thread that could not call f itself.
func inBackground[T any](f func() (T, error)) func() (T, error) {
	var v T
	var err error
	done := make(chan struct{})
	go func() { // ends soon
		defer close(done)
		v, err = f()
	}()
	return func() (T, error) {
		<-done
		return v, err
	}
}

// umlReader reads a User-Mode Linux kernel.
func (n *sharedNIC) umlReader(image string) reader {
	kernel := inBackground(func() (*introspect.UMLKernel, error) {
		f, err := os.Open(image)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return introspect.ReadUML(f)
	})
	return func(mem *guestmem.Memory, m *introspect.Members) (*introspect.Guest, error) {
		k, err := kernel()
		if err != nil {
			return nil, err
		}
		return k.Guest(mem, n.pid(), m)
	}
}

// share gives the machine one card for all its containers.
func (m *machine) share(mtu int) (err error) {
	if m.shared, err = newSharedNIC(mtu, m.log); err != nil {
		return err
	}
	if m.cfg.kind == bundle.MachineKVM {
		m.shared.reader, err = x86Reader(m.cfg.kernel, m.cfg.modules)
	} else {
		m.shared.reader = m.shared.umlReader(m.cfg.kernel)
	}
	if err != nil {
		return err
	}
	m.policy.shared = m.shared
	return nil
}

// plug gives the card a port of the switch.
func (n *sharedNIC) plug(sw *nicshadow.Switch, mtu int) error {
	port, err := sw.AddSharedPort(nicshadow.SharedConfig{Name: sharedPort, MTU: mtu, Device: n, Reflect: true})
	n.port.Store(port)
	return err
}

// memory follows the guest's memory.
func (n *sharedNIC) memory(m *guestmem.Memory) {
	n.live.Store(nil)
	n.mem = m
}

// Start follows where the driver's ring lies.
func (n *sharedNIC) Start(i int, q *virtq.Queue, t virtio.Transport) {
	if i == 1 { // the transmit queue (virtio 1.2, 5.1.2)
		live, err := n.trace(q)
		if err != nil && !n.told {
			n.told = true // a guest can start the queue as often as it likes
			n.log.Error("the machine's containers cannot be told apart: nothing passes", "err", err)
		}
		n.live.Store(live)
	}
	n.Net.Start(i, q, t)
}

// trace finds out how to follow what is sent on q.
func (n *sharedNIC) trace(q *virtq.Queue) (*traced, error) {
	guest, err := n.reader(n.mem, n.members)
	if err != nil {
		return nil, err
	}
	queue, err := guest.Queue(introspect.Ring{MAC: sharedMAC, Desc: q.Desc(), Count: uint32(q.Size())})
	if err != nil {
		return nil, err
	}
	return &traced{guest, queue}, nil
}

// Transmit finds the frame's sender and has it judged, before the guest runs on.
func (n *sharedNIC) Transmit(b []byte, head uint16) {
	port, live := n.port.Load(), n.live.Load()
	if port == nil {
		return
	}
	if live == nil {
		port.Send(b, nicshadow.Origin{Cause: "the guest's memory cannot be read"})
		return
	}
	o := live.queue.Owner(head, len(b))
	port.Send(b, nicshadow.Origin{Sender: nicshadow.Sender(o.Member), Kernel: o.Kernel, Cause: o.Cause})
}

// Refuse drops what was no frame, and nobody's.
func (n *sharedNIC) Refuse(b []byte, _ uint16, why virtio.NetFault) {
	if port := n.port.Load(); port != nil {
		port.Send(b, nicshadow.Origin{Cause: why.String()})
	}
}

// Write delivers a frame to the guest.
func (n *sharedNIC) Write(b []byte) (int, error) {
	if err := n.Deliver(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close does nothing: the device is the machine's.
func (n *sharedNIC) Close() error { return nil }

// register says by what in the guest a sender is known: the agent told.
func (n *sharedNIC) register(m introspect.Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[m.Number] = m
	n.set()
}

// forget takes a sender out, before its namespace ends and the kernel gives its
// number to another.
func (n *sharedNIC) forget(sender uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, sender)
	n.set()
}

// set tells who is who. n.mu is held.
func (n *sharedNIC) set() {
	var all []introspect.Member
	for _, m := range n.known {
		all = append(all, m)
	}
	n.members.Set(all)
}

// attach makes a container a member of the port.
func (n *sharedNIC) attach(name string, sender nicshadow.Sender, mac frame.MAC, nic *bundle.NIC, g *guestNIC) error {
	var addrs []netip.Addr
	for _, p := range nic.Addrs {
		addrs = append(addrs, p.Addr())
	}
	return n.port.Load().Attach(nicshadow.Member{Name: name, Sender: sender, MAC: mac, Addrs: addrs, Envelope: g.envelope, Watched: g.watched})
}

// checkShared refuses what cannot be held to its identity on a shared card. A
// container that may administer its link can give it the address of another
// one that is down, and have the kernel answer in its name: frames of the
// kernel's own have no sender but the address they carry.
func checkShared(c *starlark.Container) error {
	if c.Spec.NIC.DHCP || c.Spec.NIC.DHCP6 {
		return errors.New(`ip = "dhcp": needs a card of its own: machine(nic = "own")`)
	}
	if p := c.Spec.OCI.Process; p.Capabilities != nil {
		for _, set := range [][]string{p.Capabilities.Bounding, p.Capabilities.Permitted, p.Capabilities.Ambient} {
			for _, no := range []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_BPF"} {
				if slices.Contains(set, no) {
					return fmt.Errorf(`capability %s: may change whose address the shared card's links have: machine(nic = "own")`, strings.TrimPrefix(no, "CAP_"))
				}
			}
		}
	}
	return nil
}
