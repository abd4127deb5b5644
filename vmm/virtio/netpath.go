package virtio

import (
	"encoding/binary"

	"sekimori/vmm/virtq"
)

// no allocation, no log below this line

// transmit takes what is available on the transmit queue. What is made
// available meanwhile has a kick of its own, so that a guest that refills the
// queue as fast as it is drained holds nobody up.
func (n *Net) transmit(q *virtq.Queue) error {
	taken := false
	for range q.Size() {
		ok, err := q.Pop(&n.txChain)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		n.frame(&n.txChain)
		// Given back whatever became of the frame: a queue that bad frames stay
		// in starves.
		if err := q.Push(n.txChain.Head, 0); err != nil {
			return err
		}
		taken = true
	}
	if !taken {
		return nil
	}
	return n.tx.interrupt()
}

// frame copies a frame out of the guest, once, and hands the copy on.
func (n *Net) frame(c *virtq.Chain) {
	got, err := c.CopyOut(n.buf, 0)
	frame := n.buf[min(got, netHeaderLen):got]
	if why := n.fault(c, got, err); why != 0 {
		n.backend.Refuse(frame, c.Head, why)
		return
	}
	n.backend.Transmit(frame, c.Head)
}

// fault says what is wrong with a chain of the transmit queue, of which the
// first got bytes are in buf.
func (n *Net) fault(c *virtq.Chain, got int, err error) NetFault {
	switch frame := got - netHeaderLen; {
	case c.Writable() > 0:
		return WritableBuffer
	case err != nil:
		return BadBuffer
	case frame < 0:
		return ShortHeader
	case offloads(n.buf):
		return BadOffloadHeader
	case frame < netFrameMin:
		return ShortFrame
	case frame > n.limit:
		return LongFrame
	}
	return 0
}

// offloads tells whether a transmit header asks for anything: "If
// VIRTIO_NET_F_CSUM is not negotiated, the driver MUST set flags to zero", "If
// none of the VIRTIO_NET_F_HOST_TSO4, TSO6, USO or UFO options have been
// negotiated, the driver MUST set gso_type to VIRTIO_NET_HDR_GSO_NONE" (virtio
// 1.2, 5.1.6.2.1); the other fields then have nothing to say either.
//
//	flags gso_type hdr_len gso_size csum_start csum_offset num_buffers
//	  u8     u8     le16     le16      le16        le16        le16
//
// num_buffers is "unused on transmitted packets" (5.1.6.2), and Linux leaves
// there what was in memory before (drivers/net/virtio_net.c, xmit_skb, v6.12).
func offloads(header []byte) bool {
	return binary.LittleEndian.Uint64(header)|uint64(binary.LittleEndian.Uint16(header[8:])) != 0
}

// rxHeader stands before every frame that the guest gets: nothing is
// offloaded, and "If VIRTIO_NET_F_MRG_RXBUF has not been negotiated, the device
// MUST set num_buffers to 1" (virtio 1.2, 5.1.6.4.1).
var rxHeader = [netHeaderLen]byte{10: 1}

// Deliver hands the guest a frame, or returns why not, at once: it never waits
// for the guest. It may be called from any goroutine, also from
// [NetBackend.Transmit].
func (n *Net) Deliver(frame []byte) error {
	if len(frame) > n.limit {
		return ErrFrameLength
	}
	n.rx.mu.Lock()
	defer n.rx.mu.Unlock()
	q := n.rx.q
	if q == nil {
		return ErrDown
	}
	ok, err := q.Pop(&n.rxChain)
	switch {
	case err != nil:
		n.rx.broke(err)
		return ErrDown
	case !ok:
		return ErrNoBuffers
	}
	written, result := fill(&n.rxChain, frame), error(nil)
	if written == 0 {
		result = ErrBadBuffer
	}
	if err := q.Push(n.rxChain.Head, written); err != nil {
		n.rx.broke(err)
		return ErrDown
	}
	if err := n.rx.interrupt(); err != nil {
		n.rx.broke(err)
	}
	return result
}

// fill writes a frame, behind its header, to a chain of the receive queue, and
// returns how many bytes it wrote: all or none, as far as the driver is told.
func fill(c *virtq.Chain, frame []byte) uint32 {
	total := netHeaderLen + len(frame)
	if c.Readable() > 0 || c.Writable() < uint64(total) {
		return 0
	}
	if _, err := c.CopyIn(rxHeader[:], 0); err != nil {
		return 0
	}
	if _, err := c.CopyIn(frame, netHeaderLen); err != nil {
		return 0
	}
	return uint32(total)
}
