package guestmem

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"
)

// A GPA is a guest-physical address. It is never a host pointer: the only way
// from one to the other is through [Memory].
type GPA uint64

// A Memory is the RAM of one guest. Its regions never change. Every method
// may be called from any goroutine, also while another closes it.
type Memory struct {
	regions []region // by base, without overlap
	size    uint64
	// mapped: the regions are mappings made here, which Close gives back.
	mapped bool
}

// A region is a run of RAM.
type region struct {
	base GPA
	b    []byte
	// host is where b lies, to compare the address of a fault with. The memory
	// is not the garbage collector's to move: it is mapped, or a slice whose
	// holder is b.
	host uintptr
}

// A Slice is RAM that the caller keeps as bytes.
type Slice struct {
	Base  GPA
	Bytes []byte
}

// wordLen is the longest word that is loaded whole: regions begin at a
// multiple of it, here and in the guest, so that what is aligned for the guest
// is aligned for the host.
const wordLen = 8

// FromSlices returns the memory that the slices hold. They stay the caller's,
// and [Memory.Close] does nothing to them.
func FromSlices(s ...Slice) (*Memory, error) {
	regions := make([]region, 0, len(s))
	for _, s := range s {
		regions = append(regions, newRegion(s.Base, s.Bytes))
	}
	return newMemory(regions)
}

func newRegion(base GPA, b []byte) region {
	// SAFETY: the address is only compared, never turned into a pointer again.
	return region{base: base, b: b, host: uintptr(unsafe.Pointer(unsafe.SliceData(b)))}
}

func newMemory(regions []region) (*Memory, error) {
	slices.SortFunc(regions, func(a, b region) int { return cmp.Compare(a.base, b.base) })
	m := &Memory{regions: regions}
	for i, r := range regions {
		n := uint64(len(r.b))
		switch {
		case n == 0:
			return nil, fmt.Errorf("guest memory at %#x: no bytes", uint64(r.base))
		case uint64(r.base)%wordLen != 0 || r.host%wordLen != 0:
			return nil, fmt.Errorf("guest memory at %#x: not at a multiple of %d bytes", uint64(r.base), wordLen)
		case n-1 > ^uint64(0)-uint64(r.base): // base+n may wrap
			return nil, fmt.Errorf("guest memory [%#x, +%d): wraps", uint64(r.base), n)
		case i > 0 && uint64(r.base-regions[i-1].base) < uint64(len(regions[i-1].b)):
			return nil, fmt.Errorf("guest memory at %#x: overlaps that at %#x", uint64(r.base), uint64(regions[i-1].base))
		}
		m.size += n
	}
	return m, nil
}

// Size is the amount of RAM in bytes, holes not counted.
func (m *Memory) Size() uint64 { return m.size }

// Contains tells whether [addr, addr+n) is RAM, all of it.
func (m *Memory) Contains(addr GPA, n uint64) bool {
	for range m.regions { // a run of RAM ends after all regions
		tail := m.tail(addr)
		switch {
		case tail == nil:
			return false
		case n <= uint64(len(tail)):
			return true
		}
		addr += GPA(len(tail))
		n -= uint64(len(tail))
	}
	return false
}

// tail returns the RAM from addr to the end of its region; nil if addr is not
// RAM.
func (m *Memory) tail(addr GPA) []byte {
	for i := range m.regions {
		r := &m.regions[i]
		// Below the base this wraps, and is more than any length.
		if off := uint64(addr) - uint64(r.base); off < uint64(len(r.b)) {
			return r.b[off:]
		}
	}
	return nil
}

// holds tells whether the host's address is of a page of this memory, and of
// which guest's address.
func (m *Memory) holds(host uintptr) (GPA, bool) {
	for i := range m.regions {
		if r := &m.regions[i]; host-r.host < uintptr(len(r.b)) {
			return r.base + GPA(host-r.host), true
		}
	}
	return 0, false
}
