package introspect

import (
	"encoding/binary"
	"errors"

	"sekimori/vmm/guestmem"
)

// A Memory reads a guest kernel's memory by virtual address. It is for one
// goroutine at a time.
type Memory interface {
	// Look calls f, which is what reads: whatever it costs to be ready for
	// memory that is gone is paid once for all that f reads. An error of that
	// kind ends f at once, and is what Look returns.
	Look(f func() error) error
	// Read copies what lies at va to b. An address that is not the kernel's, or
	// that nothing is mapped at, is an error, and b holds anything then. It
	// allocates nothing where it succeeds. Within Look only.
	Read(va uint64, b []byte) error
	// Physical is where va lies in the guest's RAM. Within Look only.
	Physical(va uint64) (guestmem.GPA, error)
}

// ErrUnmapped says that an address is not of the kernel's memory.
var ErrUnmapped = errors.New("address is not of the kernel's memory")

// le is the byte order of guests.
var le = binary.LittleEndian

// word reads a pointer or another number of 64 bits.
func (g *Guest) word(va uint64) (uint64, error) {
	b := g.buf[:8]
	if err := g.mem.Read(va, b); err != nil {
		return 0, err
	}
	return le.Uint64(b), nil
}

// half reads a number of 32 bits.
func (g *Guest) half(va uint64) (uint32, error) {
	b := g.buf[:4]
	if err := g.mem.Read(va, b); err != nil {
		return 0, err
	}
	return le.Uint32(b), nil
}

// pointer reads a pointer that may not be NULL.
func (g *Guest) pointer(va uint64) (uint64, error) {
	p, err := g.word(va)
	if err == nil && p == 0 {
		err = errNull
	}
	return p, err
}

var errNull = errors.New("null pointer")

// A looker is the RAM behind a Memory, within Look.
type looker struct {
	ram  *guestmem.Memory
	view guestmem.View
	f    func() error
	look func(guestmem.View) error
}

// Look implements [Memory].
func (l *looker) Look(f func() error) error {
	if l.look == nil {
		l.look = func(v guestmem.View) error {
			l.view = v
			return l.f()
		}
	}
	l.f = f
	return l.ram.Look(l.look)
}
