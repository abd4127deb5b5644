package introspect

import (
	"errors"
	"fmt"

	"sekimori/introspect/layout"
	"sekimori/vmm/guestmem"
)

// A Queue is a transmit queue of the guest's network card: where its driver
// keeps what belongs to each descriptor. It is found when it is first needed,
// because a driver makes its queues before it registers the device, and again
// when it is not where it was: the guest may take its driver down and up.
type Queue struct {
	g    *Guest
	ring Ring

	state uint64 // of struct vring_virtqueue; 0: not found
	napi  uint64 // of the queue's napi.weight
	desc  uint64 // virtual address of the descriptor table
	dev   uint64 // struct net_device of the card
}

// A Ring is what the device knows of the queue.
type Ring struct {
	MAC   [6]byte // of the card
	Pair  uint16  // 0 for the only transmit queue
	Desc  guestmem.GPA
	Count uint32 // of descriptors
}

// Errors of a queue that cannot be followed.
var (
	errNoDriver   = errors.New("the driver's queue is not found")
	errTooManyNIC = errors.New("too many network devices")
)

// Bounds of the search for a queue.
const (
	maxDevices = 4096
	maxPairs   = 32 << 10 // VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX (virtio 1.2, 5.1.6.5.6)
)

// Queue returns the queue of a ring. The kernel's layout must have the
// driver's structs.
func (g *Guest) Queue(r Ring) (*Queue, error) {
	switch {
	case !g.layout.Traces():
		return nil, &layout.Error{Path: "virtnet_info", Why: "not in the kernel's BTF: the driver is a module whose BTF is missing"}
	case g.initNet == 0:
		return nil, fmt.Errorf("introspect queue: the address of init_net is not known")
	case r.Count == 0 || r.Count > 1<<15:
		return nil, fmt.Errorf("introspect queue: %d descriptors", r.Count)
	}
	return &Queue{g: g, ring: r}, nil
}

// no allocation, no lock, no log below this line

// locate finds the queue's state: in the list of network devices, that which
// has the card's address, whose private part points back at it and whose
// queue's descriptor table lies where the device was told that it does.
func (q *Queue) locate() error {
	g, n := q.g, &q.g.layout.Net
	if err := g.find(); err != nil {
		return err
	}
	head := g.initNet + g.slide + uint64(n.NetDevices)
	at, err := g.pointer(head)
	for devices := 0; err == nil && at != head; devices++ {
		if devices == maxDevices {
			return errTooManyNIC
		}
		dev := at - uint64(n.DevList)
		if q.card(dev) {
			return nil
		}
		at, err = g.pointer(dev + uint64(n.DevList))
	}
	if err == nil {
		err = errNoDriver
	}
	return err
}

// card looks whether a network device is the card, and takes its queue.
func (q *Queue) card(dev uint64) bool {
	g, n := q.g, &q.g.layout.Net
	addr, err := g.pointer(dev + uint64(n.DevAddr))
	if err != nil {
		return false
	}
	mac := g.buf[:6]
	if g.mem.Read(addr, mac) != nil || [6]byte(mac) != q.ring.MAC {
		return false
	}
	info := dev + uint64(n.DevPriv)
	if back, err := g.word(info + uint64(n.InfoDev)); err != nil || back != dev {
		return false // another driver's, a macvlan's of the same address
	}
	pairs := g.buf[:2]
	if g.mem.Read(info+uint64(n.InfoPairs), pairs) != nil {
		return false
	}
	if max := le.Uint16(pairs); max == 0 || uint32(max) > maxPairs || q.ring.Pair >= max {
		return false
	}
	queues, err := g.pointer(info + uint64(n.InfoSendQueues))
	if err != nil {
		return false
	}
	queue := queues + uint64(q.ring.Pair)*uint64(n.SendQueueSize)
	vq, err := g.pointer(queue + uint64(n.SendQueueVQ))
	if err != nil {
		return false
	}
	q.dev = dev
	return q.take(vq-uint64(n.VQ), queue+uint64(n.SendQueueNAPI))
}

// take keeps a queue's state if the ring is the device's.
func (q *Queue) take(state, napi uint64) bool {
	g, n := q.g, &q.g.layout.Net
	p, err := g.read(state, g.ring)
	if err != nil || p.byte(n.VQPacked) != 0 || p.uint32(n.VQNum) != q.ring.Count {
		return false
	}
	desc := p.uint64(n.VQDesc)
	if at, err := g.mem.Physical(desc); err != nil || at != q.ring.Desc {
		return false
	}
	q.state, q.napi, q.desc = state, napi, desc
	return true
}

// data is what the driver keeps for the descriptor that begins a chain.
func (q *Queue) data(head uint16) (uint64, error) {
	if uint32(head) >= q.ring.Count {
		return 0, errNoDriver
	}
	for tries := 0; tries < 2; tries++ {
		if table := q.table(); table != 0 {
			n := &q.g.layout.Net
			return q.g.pointer(table + uint64(head)*uint64(n.DescSize) + uint64(n.DescData))
		}
		if err := q.locate(); err != nil {
			return 0, err
		}
	}
	return 0, errNoDriver
}

// table is the driver's array of what it keeps, if the queue is still what it
// was; 0 if it must be looked for.
func (q *Queue) table() uint64 {
	if q.state == 0 {
		return 0
	}
	n := &q.g.layout.Net
	p, err := q.g.read(q.state, q.g.ring)
	if err != nil || p.byte(n.VQPacked) != 0 || p.uint32(n.VQNum) != q.ring.Count || p.uint64(n.VQDesc) != q.desc {
		q.state = 0
		return 0
	}
	return p.uint64(n.VQState)
}
