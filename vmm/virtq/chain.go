package virtq

import (
	"encoding/binary"

	"sekimori/vmm/guestmem"
)

// Flags of a descriptor (virtio 1.2, 2.7.5).
const (
	descNext     = 1 // VIRTQ_DESC_F_NEXT
	descWrite    = 2 // VIRTQ_DESC_F_WRITE
	descIndirect = 4 // VIRTQ_DESC_F_INDIRECT
)

// A Chain is a chain of descriptors: a readable part, which the driver filled
// in, then a writable one, for the device to fill in. It is a private copy of
// the descriptors, so it stays as it was checked; the buffers are the guest's,
// and change under our hands. The next Pop into it overwrites it; a Chain that
// is used again allocates nothing.
type Chain struct {
	// Head is the chain's first descriptor, which tells the driver, and whoever
	// looks into the driver's memory, which one it is.
	Head uint16

	mem      *guestmem.Memory
	buffers  []buffer // readable ones first
	split    int      // how many are readable
	readable uint64
	writable uint64
}

type buffer struct {
	addr guestmem.GPA
	n    uint64
}

// Readable is the length of the readable part in bytes, at most 1<<32.
func (c *Chain) Readable() uint64 { return c.readable }

// Writable is the length of the writable part in bytes, at most 1<<32.
func (c *Chain) Writable() uint64 { return c.writable }

// walk reads the chain that begins at head into c. Every descriptor is read
// once, and no more of them than the queue has: "A driver MUST NOT create a
// descriptor chain longer than the Queue Size of the device" (virtio 1.2,
// 2.7.5.3.1).
func (q *Queue) walk(c *Chain, head uint16) error {
	*c = Chain{Head: head, mem: q.mem, buffers: c.buffers[:0]}
	at := head
	bad := func(why string) error { return &ChainError{Queue: q.cfg.Name, Head: head, Desc: at, Why: why} }
	if head >= q.cfg.Size {
		return bad("the queue has no such descriptor")
	}
	for range q.cfg.Size {
		var d [descLen]byte
		if err := q.mem.Read(q.cfg.Desc+descLen*guestmem.GPA(at), d[:]); err != nil {
			return q.ringError(err, "descriptor table")
		}
		addr := binary.LittleEndian.Uint64(d[0:])
		n := uint64(binary.LittleEndian.Uint32(d[8:]))
		flags := binary.LittleEndian.Uint16(d[12:])
		next := binary.LittleEndian.Uint16(d[14:])
		switch {
		case flags&descIndirect != 0:
			// "The driver MUST NOT set the VIRTQ_DESC_F_INDIRECT flag unless the
			// VIRTIO_F_INDIRECT_DESC feature was negotiated" (virtio 1.2, 2.7.5.3.1).
			return bad("indirect, which was not negotiated")
		case flags&descWrite == 0 && c.split < len(c.buffers):
			// "The driver MUST place any device-writable descriptor elements after
			// any device-readable descriptor elements" (virtio 1.2, 2.7.4.2).
			return bad("readable after a writable one")
		case n > 1<<32-c.readable-c.writable:
			// "Drivers MUST NOT add a descriptor chain longer than 2^32 bytes in
			// total" (virtio 1.2, 2.7.5.2).
			return bad("the chain is longer than 4 GiB")
		case n > 0 && n-1 > ^uint64(0)-addr: // addr+n may wrap
			return bad("its buffer wraps around the address space")
		}
		c.buffers = append(c.buffers, buffer{guestmem.GPA(addr), n})
		if flags&descWrite != 0 {
			c.writable += n
		} else {
			c.readable += n
			c.split = len(c.buffers)
		}
		if flags&descNext == 0 {
			return nil
		}
		if next >= q.cfg.Size {
			return bad("links to a descriptor that the queue does not have")
		}
		at = next
	}
	// "this implies that loops in the descriptor chain are forbidden!" (virtio
	// 1.2, 2.7.5.2).
	return bad("the chain is longer than the queue: it loops")
}

// CopyOut copies the readable part, from off on, to b. It returns the number
// of bytes copied, which is less than len(b) only where the part ends. What
// was copied is what is to be judged and used: to read it again is to read
// something else.
func (c *Chain) CopyOut(b []byte, off uint64) (int, error) {
	return c.copy(c.buffers[:c.split], off, b, false)
}

// CopyIn copies b to the writable part, from off on. It returns the number of
// bytes copied, which is less than len(b) only where the part ends. "A device
// MUST NOT write to a device-readable buffer" (virtio 1.2, 2.7.5.1).
func (c *Chain) CopyIn(b []byte, off uint64) (int, error) {
	return c.copy(c.buffers[c.split:], off, b, true)
}

func (c *Chain) copy(part []buffer, off uint64, b []byte, in bool) (done int, err error) {
	for _, buf := range part {
		if off >= buf.n {
			off -= buf.n
			continue
		}
		if done == len(b) {
			break
		}
		piece := b[done : done+int(min(buf.n-off, uint64(len(b)-done)))]
		if in {
			err = c.mem.Write(buf.addr+guestmem.GPA(off), piece)
		} else {
			err = c.mem.Read(buf.addr+guestmem.GPA(off), piece)
		}
		if err != nil {
			return done, err
		}
		done += len(piece)
		off = 0
	}
	return done, nil
}
