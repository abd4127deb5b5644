// Package virtqtest plays the driver's side of a split virtqueue, for tests of
// devices: an honest driver ([Driver.Add]), and one that puts whatever it
// likes wherever it likes.
package virtqtest

import (
	"encoding/binary"
	"fmt"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtq"
)

// Flags of a descriptor (virtio 1.2, 2.7.5).
const (
	Next     = 1
	Write    = 2
	Indirect = 4
)

// NoInterrupt is the flag of the available ring (virtio 1.2, 2.7.6).
const NoInterrupt = 1

// A Desc is a descriptor as it lies in the table.
type Desc struct {
	Addr  guestmem.GPA
	Len   uint32
	Flags uint16
	Next  uint16
}

// A Used is an element of the used ring.
type Used struct {
	Head uint32
	Len  uint32
}

// A Driver is the driver's side of one queue. Its methods panic on an error:
// the memory is the test's own, and a ring that does not lie in it is a bug of
// the test.
type Driver struct {
	Mem *guestmem.Memory
	virtq.Config

	// Avail is the driver's index, as Publish last stored it.
	AvailIdx uint16
	seen     uint16 // of the used ring
	free     uint16 // next descriptor that Add takes
}

// Bytes is how much RAM the rings of a queue take, rounded up to a page.
func Bytes(size uint16) uint64 {
	n := uint64(size)*(16+2+8) + 2*6 + 2*16
	return (n + 4095) &^ 4095
}

// New lays a queue of size descriptors out at base, all zero.
func New(mem *guestmem.Memory, base guestmem.GPA, size uint16) *Driver {
	d := &Driver{Mem: mem}
	d.Name, d.Size = "test", size
	d.Config.Desc = base
	d.Config.Avail = base + 16*guestmem.GPA(size)
	d.Config.Used = (d.Config.Avail + 6 + 2*guestmem.GPA(size) + 15) &^ 15
	d.Reset()
	return d
}

// Reset zeroes the rings and begins anew.
func (d *Driver) Reset() {
	must(d.Mem.Write(d.Config.Desc, make([]byte, Bytes(d.Size))))
	d.AvailIdx, d.seen, d.free = 0, 0, 0
}

// Set writes descriptor i.
func (d *Driver) Set(i uint16, v Desc) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(v.Addr))
	binary.LittleEndian.PutUint32(b[8:], v.Len)
	binary.LittleEndian.PutUint16(b[12:], v.Flags)
	binary.LittleEndian.PutUint16(b[14:], v.Next)
	must(d.Mem.Write(d.Config.Desc+16*guestmem.GPA(i), b[:]))
}

// Add links descriptors of the given buffers to a chain, in the order given,
// and returns its head. Descriptors are taken in turn and never freed: a test
// that adds more than the queue has goes round.
func (d *Driver) Add(bufs ...Desc) (head uint16) {
	head = d.free
	for i, b := range bufs {
		at := d.free
		d.free = (d.free + 1) % d.Size
		if i < len(bufs)-1 {
			b.Flags |= Next
			b.Next = d.free
		}
		d.Set(at, b)
	}
	return head
}

// Publish makes the chains that begin at the heads available.
func (d *Driver) Publish(heads ...uint16) {
	for _, h := range heads {
		d.SetSlot(d.AvailIdx, h)
		d.AvailIdx++
	}
	d.SetAvailIdx(d.AvailIdx)
}

// SetSlot writes the slot of the available ring that index i falls on.
func (d *Driver) SetSlot(i, head uint16) {
	var b [2]byte
	binary.LittleEndian.PutUint16(b[:], head)
	must(d.Mem.Write(d.Config.Avail+4+2*guestmem.GPA(i%d.Size), b[:]))
}

// SetAvailIdx stores the driver's index, whatever it says.
func (d *Driver) SetAvailIdx(idx uint16) {
	d.AvailIdx = idx
	word, err := d.Mem.Load32(d.Config.Avail)
	must(err)
	must(d.Mem.Store32(d.Config.Avail, uint32(idx)<<16|word&0xffff))
}

// SetAvailFlags stores the driver's flags.
func (d *Driver) SetAvailFlags(flags uint16) {
	must(d.Mem.Store32(d.Config.Avail, uint32(d.AvailIdx)<<16|uint32(flags)))
}

// UsedHead returns the device's flags and index.
func (d *Driver) UsedHead() (flags, idx uint16) {
	word, err := d.Mem.Load32(d.Config.Used)
	must(err)
	return uint16(word), uint16(word >> 16)
}

// TakeUsed returns what the device gave back since the last call.
func (d *Driver) TakeUsed() []Used {
	var all []Used
	for _, idx := d.UsedHead(); d.seen != idx; d.seen++ {
		var b [8]byte
		must(d.Mem.Read(d.Config.Used+4+8*guestmem.GPA(d.seen%d.Size), b[:]))
		all = append(all, Used{binary.LittleEndian.Uint32(b[0:]), binary.LittleEndian.Uint32(b[4:])})
	}
	return all
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("virtqtest: %v", err)) // a bug of the test that uses this
	}
}
