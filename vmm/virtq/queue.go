package virtq

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"sekimori/vmm/guestmem"
)

// MaxSize is the largest queue: "The maximum Queue Size value is 32768"
// (virtio 1.2, 2.7).
const MaxSize = 32768

// Lengths of the parts of a queue (virtio 1.2, 2.7), and what they are made of.
const (
	descLen     = 16
	ringHeadLen = 4 // flags and idx, 16 bits each
	availLen    = 2
	usedLen     = 8
	eventLen    = 2 // used_event and avail_event: part of the ring also where they are not used
)

// A Config says where a queue lies.
type Config struct {
	// Name tells the queue in errors: "tx".
	Name string
	// Size is the number of descriptors, a power of two.
	Size uint16
	// Desc, Avail and Used are where the parts begin.
	Desc, Avail, Used guestmem.GPA
	// Next is the index of the first chain to take, 0 but for a queue that goes
	// on where it was stopped ([Queue.Next]). Whatever was taken before it was
	// given back.
	Next uint16
}

// A Queue is the device's side of a split virtqueue. It is not safe for
// concurrent use; the driver, on its side, is always concurrent.
type Queue struct {
	mem *guestmem.Memory
	cfg Config

	next  uint16 // index of the chain to take next
	seen  uint16 // the driver's index, when last read
	used  uint16 // our index
	flags uint16 // our flags

	broken error
}

// New returns the queue that lies in mem as cfg says. It reads nothing yet.
func New(mem *guestmem.Memory, cfg Config) (*Queue, error) {
	q := &Queue{mem: mem, cfg: cfg, next: cfg.Next, seen: cfg.Next, used: cfg.Next}
	// "Queue Size value is always a power of 2. The maximum Queue Size value
	// is 32768" (virtio 1.2, 2.7).
	if bits.OnesCount16(cfg.Size) != 1 {
		return nil, q.ringError(nil, "size %d is not a power of two up to %d", cfg.Size, MaxSize)
	}
	size := uint64(cfg.Size)
	// "The driver MUST ensure that the physical address of the first byte of
	// each virtqueue part is a multiple of the specified alignment value"
	// (virtio 1.2, 2.7.1): 16, 2 and 4. Of the available ring 4 is asked here,
	// so that its flags and index are loaded as one word; Linux aligns it to 16.
	for _, part := range []struct {
		name  string
		addr  guestmem.GPA
		align guestmem.GPA
		n     uint64
	}{
		{"descriptor table", cfg.Desc, 16, descLen * size},
		{"available ring", cfg.Avail, 4, ringHeadLen + availLen*size + eventLen},
		{"used ring", cfg.Used, 4, ringHeadLen + usedLen*size + eventLen},
	} {
		switch {
		case part.addr%part.align != 0:
			return nil, q.ringError(nil, "%s at %#x: not a multiple of %d", part.name, uint64(part.addr), part.align)
		case !mem.Contains(part.addr, part.n):
			// A used ring behind the end of RAM had gokvm write the host's memory.
			return nil, q.ringError(&guestmem.RangeError{Addr: part.addr, Len: part.n, RAM: mem.Size()}, "%s", part.name)
		}
	}
	return q, nil
}

// Size is the number of descriptors, and so the most chains that can be
// available at a time.
func (q *Queue) Size() int { return int(q.cfg.Size) }

// Desc is where the descriptor table lies: by it a queue is known to who looks
// at it from the driver's side.
func (q *Queue) Desc() guestmem.GPA { return q.cfg.Desc }

// Next is the index of the chain that the next Pop takes: where a queue that is
// made again goes on.
func (q *Queue) Next() uint16 { return q.next }

// Broken is the error that broke the queue; nil while it is whole.
func (q *Queue) Broken() error { return q.broken }

// Pop takes the next chain that the driver made available, with every
// descriptor checked, and tells whether there was one. Each chain that is
// taken is to be given back with Push.
func (q *Queue) Pop(c *Chain) (bool, error) {
	if q.broken != nil {
		return false, q.broken
	}
	if q.next == q.seen {
		if err := q.look(); err != nil || q.next == q.seen {
			return false, err
		}
	}
	slot := guestmem.GPA(q.next & (q.cfg.Size - 1))
	head, err := q.mem.Load16(q.cfg.Avail + ringHeadLen + availLen*slot)
	if err != nil {
		return false, q.fail(q.ringError(err, "available ring"))
	}
	q.next++ // also if the chain is bad: it is not taken twice
	if err := q.walk(c, head); err != nil {
		return false, q.fail(err)
	}
	return true, nil
}

// look reads the driver's index. The atomic load orders what the driver wrote
// before it: the slots of the ring, and the chains.
func (q *Queue) look() error {
	word, err := q.mem.Load32(q.cfg.Avail)
	if err != nil {
		return q.fail(q.ringError(err, "available ring"))
	}
	idx := uint16(word >> 16)
	// "A driver MUST NOT decrement the available idx on a virtqueue" (virtio
	// 1.2, 2.7.6.1), and no more chains than descriptors can be in the ring:
	// with 65,535 of them one kick was 65,535 frames.
	if ahead := idx - q.next; ahead > q.cfg.Size {
		return q.fail(q.ringError(nil, "available index %d is %d ahead of %d, more than the queue's %d", idx, ahead, q.next, q.cfg.Size))
	}
	q.seen = idx
	return nil
}

// Push gives the chain that begins at head back to the driver, with the first
// written bytes of its writable part filled in.
func (q *Queue) Push(head uint16, written uint32) error {
	if q.broken != nil {
		return q.broken
	}
	var elem [usedLen]byte
	binary.LittleEndian.PutUint32(elem[0:], uint32(head))
	binary.LittleEndian.PutUint32(elem[4:], written)
	slot := guestmem.GPA(q.used & (q.cfg.Size - 1))
	if err := q.mem.Write(q.cfg.Used+ringHeadLen+usedLen*slot, elem[:]); err != nil {
		return q.fail(q.ringError(err, "used ring"))
	}
	// "The device MUST set len prior to updating the used idx" (virtio 1.2,
	// 2.7.8.2): the store of the index is atomic, and comes after.
	q.used++
	return q.publish()
}

// publish stores our flags and index. It is also the full fence that has to
// stand between them and a look at what the driver stored last: its flags
// before an interrupt, its index after SetNotify.
func (q *Queue) publish() error {
	if err := q.mem.Store32(q.cfg.Used, uint32(q.used)<<16|uint32(q.flags)); err != nil {
		return q.fail(q.ringError(err, "used ring"))
	}
	return nil
}

const (
	availNoInterrupt = 1 // VIRTQ_AVAIL_F_NO_INTERRUPT
	usedNoNotify     = 1 // VIRTQ_USED_F_NO_NOTIFY
)

// NeedInterrupt tells whether the driver is to be interrupted for what was
// pushed: "If flags is 1, the device SHOULD NOT send a notification. If flags
// is 0, the device MUST send a notification" (virtio 1.2, 2.7.7.2).
func (q *Queue) NeedInterrupt() (bool, error) {
	if q.broken != nil {
		return false, q.broken
	}
	word, err := q.mem.Load32(q.cfg.Avail)
	if err != nil {
		return false, q.fail(q.ringError(err, "available ring"))
	}
	return word&availNoInterrupt == 0, nil
}

// SetNotify asks the driver to kick the queue when it makes chains available,
// or not to: "The device MAY set flags to 1 to advise the driver that
// notifications are not needed" (virtio 1.2, 2.7.10.2). It is advice. What was
// made available before the driver saw that notifications are on again has no
// kick: look with Pop once more after turning them on.
func (q *Queue) SetNotify(on bool) error {
	if q.broken != nil {
		return q.broken
	}
	q.flags = usedNoNotify
	if on {
		q.flags = 0
	}
	return q.publish()
}

func (q *Queue) fail(err error) error {
	q.broken = err
	return err
}

func (q *Queue) ringError(err error, format string, args ...any) *RingError {
	return &RingError{Queue: q.cfg.Name, Why: fmt.Sprintf(format, args...), Err: err}
}
