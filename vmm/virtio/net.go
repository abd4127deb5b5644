package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"sekimori/vmm/virtq"
)

// Feature bits of a network device (virtio 1.2, 5.1.3). No checksum and no
// segmentation offload is among them: with those a header that the sender
// chose makes the next hop rewrite a frame that was already judged.
const (
	netFeatureMTU    = 1 << 3
	netFeatureMAC    = 1 << 5
	netFeatureStatus = 1 << 16
)

// Queues of a network device (virtio 1.2, 5.1.2).
const (
	netReceive  = 0
	netTransmit = 1
)

const (
	netQueueSize = 256
	// netHeaderLen is the length of struct virtio_net_hdr, which has
	// num_buffers at its end in every modern device (virtio 1.2, 5.1.6).
	netHeaderLen = 12
	// netFrameMin is an Ethernet header: what is shorter is no frame.
	netFrameMin = 14
	// netFrameExtra is what a frame may be longer than its card's MTU: its
	// header and two VLAN tags, of which the parser drops more.
	netFrameExtra = 14 + 2*4
)

// A NetBackend takes the frames that the guest sends. Its methods run on the
// thread that kicked, with the transmit queue locked, before the guest runs
// on. They must not wait, and must not start, stop or kick the device they are
// called by; delivering to it is fine.
type NetBackend interface {
	// Transmit takes a frame, at least an Ethernet header long. It is a private
	// copy, so that what is judged is what is sent, and is the device's again
	// when Transmit returns. head is the frame's first descriptor: by it the
	// driver's own record of the frame can be found.
	Transmit(frame []byte, head uint16)

	// Refuse takes a frame that drops because of how it was handed over, and
	// why. What could be read of it, cut to the card's limit, is for the record.
	Refuse(frame []byte, head uint16, why NetFault)
}

// A NetFault is why a frame was not taken from the guest.
type NetFault uint8

// The zero NetFault is none.
const (
	_ NetFault = iota
	// BadBuffer: a buffer is not in the guest's RAM.
	BadBuffer
	// WritableBuffer: the chain asks to be written to.
	WritableBuffer
	// ShortHeader: there is less than the header in front of a frame.
	ShortHeader
	// BadOffloadHeader: the header asks for what was not negotiated.
	BadOffloadHeader
	// ShortFrame: less than an Ethernet header.
	ShortFrame
	// LongFrame: more than the card's MTU allows.
	LongFrame
	netFaults
)

var netFaultNames = [netFaults]string{
	"none", "bad buffer", "writable buffer", "short header", "bad offload header", "short frame", "long frame",
}

func (f NetFault) String() string {
	if f < netFaults {
		return netFaultNames[f]
	}
	return fmt.Sprintf("NetFault(%d)", uint8(f))
}

// Why a frame was not delivered. All but ErrNoBuffers are the guest's fault or
// say that there is none.
var (
	// ErrNoBuffers: the guest posted none for now. It is EAGAIN.
	ErrNoBuffers = fmt.Errorf("no receive buffers: %w", syscall.EAGAIN)
	// ErrDown: the driver has not started the queue, or broke it.
	ErrDown = errors.New("receive queue is down")
	// ErrFrameLength: the frame is longer than the card's MTU allows.
	ErrFrameLength = errors.New("frame is longer than the card's mtu allows")
	// ErrBadBuffer: the buffer that the guest posted cannot take the frame.
	ErrBadBuffer = errors.New("receive buffer is too short, read-only or outside ram")
)

// A NetConfig configures a network device.
type NetConfig struct {
	// MAC is the card's address.
	MAC [6]byte
	// MTU is the longest payload in bytes; 0 means 1500.
	MTU int
	// Backend takes what the guest sends.
	Backend NetBackend
}

// A Net is a virtio network device: one receive queue and one transmit queue.
type Net struct {
	backend NetBackend
	space   [12]byte // configuration
	limit   int      // longest frame in bytes
	rx, tx  ring

	// Guarded by rx.mu and tx.mu.
	rxChain, txChain virtq.Chain
	// buf takes a header and one byte more than a frame may have, so that what
	// was cut is known to be too long. Guarded by tx.mu.
	buf []byte
}

// NewNet returns a network device whose queues are not started.
func NewNet(cfg NetConfig) (*Net, error) {
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	switch {
	case cfg.Backend == nil:
		return nil, errors.New("virtio net: no backend")
	case cfg.MAC[0]&1 != 0 || cfg.MAC == [6]byte{}:
		return nil, fmt.Errorf("virtio net: mac %x is not an address of one card", cfg.MAC)
	case cfg.MTU < 68 || cfg.MTU > 65535: // virtio 1.2, 5.1.4.1
		return nil, fmt.Errorf("virtio net: mtu %d is out of range", cfg.MTU)
	}
	n := &Net{backend: cfg.Backend, limit: cfg.MTU + netFrameExtra}
	n.rx.index, n.tx.index = netReceive, netTransmit
	n.buf = make([]byte, netHeaderLen+n.limit+1)
	// struct virtio_net_config (virtio 1.2, 5.1.4): mac, status,
	// max_virtqueue_pairs, mtu.
	copy(n.space[0:], cfg.MAC[:])
	binary.LittleEndian.PutUint16(n.space[6:], 1) // VIRTIO_NET_S_LINK_UP
	binary.LittleEndian.PutUint16(n.space[8:], 1)
	binary.LittleEndian.PutUint16(n.space[10:], uint16(cfg.MTU))
	return n, nil
}

// Type implements [Device].
func (n *Net) Type() uint32 { return TypeNet }

// Features implements [Device].
func (n *Net) Features() uint64 {
	return FeatureVersion1 | netFeatureMAC | netFeatureStatus | netFeatureMTU
}

// Queues implements [Device].
func (n *Net) Queues() []uint16 { return []uint16{netQueueSize, netQueueSize} }

// ReadConfig implements [Device].
func (n *Net) ReadConfig(off uint32, b []byte) { readConfig(n.space[:], off, b) }

// WriteConfig implements [Device]: "The driver MUST NOT write to any of the
// device configuration fields" (virtio 1.2, 5.1.4.2).
func (n *Net) WriteConfig(uint32, []byte) {}

// Start implements [Device].
func (n *Net) Start(i int, q *virtq.Queue, t Transport) {
	switch i {
	case netReceive:
		// New receive buffers are found by the next frame: a kick for them would
		// only cost the guest a stop.
		if err := q.SetNotify(false); err != nil {
			t.Broken(i, err)
			return
		}
		n.rx.start(q, t)
	case netTransmit:
		n.tx.start(q, t)
	}
}

// Stop implements [Device].
func (n *Net) Stop(i int) {
	switch i {
	case netReceive:
		n.rx.stop()
	case netTransmit:
		n.tx.stop()
	}
}

// Kick implements [Device].
func (n *Net) Kick(i int) {
	if i != netTransmit {
		return
	}
	n.tx.mu.Lock()
	defer n.tx.mu.Unlock()
	if n.tx.q == nil {
		return
	}
	if err := n.transmit(n.tx.q); err != nil {
		n.tx.broke(err)
	}
}
