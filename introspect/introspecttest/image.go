// Package introspecttest builds kernels of a few structs, for tests: what
// package introspect reads lies in an image of memory, at the offsets of any
// layout.
package introspecttest

import (
	"encoding/binary"
	"errors"

	"sekimori/vmm/guestmem"
)

const pageSize = 4096

// An Image is a kernel's memory by virtual address. It is sparse: what was
// never written is not mapped.
type Image struct {
	pages map[uint64]*[pageSize]byte
	// Direct is the virtual address of the beginning of RAM.
	Direct uint64
	// Reads and Bytes count what was read.
	Reads, Bytes int
}

var errUnmapped = errors.New("not mapped")

// NewImage returns memory of nothing, whose RAM begins at direct.
func NewImage(direct uint64) *Image {
	return &Image{pages: make(map[uint64]*[pageSize]byte), Direct: direct}
}

// Map makes n bytes at va readable: zeros, where nothing was written.
func (m *Image) Map(va, n uint64) {
	for page := va / pageSize; page <= (va+n-1)/pageSize; page++ {
		if m.pages[page] == nil {
			m.pages[page] = new([pageSize]byte)
		}
	}
}

// Unmap takes away the page at va.
func (m *Image) Unmap(va uint64) { delete(m.pages, va/pageSize) }

// Write writes b at va, and maps it.
func (m *Image) Write(va uint64, b []byte) {
	if len(b) > 0 {
		m.Map(va, uint64(len(b)))
	}
	for i, c := range b {
		at := va + uint64(i)
		m.pages[at/pageSize][at%pageSize] = c
	}
}

// Put64 writes a number of 64 bits.
func (m *Image) Put64(va, v uint64) { m.Write(va, binary.LittleEndian.AppendUint64(nil, v)) }

// Put32 writes a number of 32 bits.
func (m *Image) Put32(va uint64, v uint32) { m.Write(va, binary.LittleEndian.AppendUint32(nil, v)) }

// RAM returns the n bytes of RAM from its beginning.
func (m *Image) RAM(n uint64) []byte {
	ram := make([]byte, n)
	for page, p := range m.pages {
		if off := page*pageSize - m.Direct; off < n { // below it wraps
			copy(ram[off:], p[:])
		}
	}
	return ram
}

// Look is that of introspect.Memory.
func (m *Image) Look(f func() error) error { return f() }

// Read is that of introspect.Memory.
func (m *Image) Read(va uint64, b []byte) error {
	m.Reads++
	m.Bytes += len(b)
	for len(b) > 0 {
		p := m.pages[va/pageSize]
		if p == nil {
			return errUnmapped
		}
		n := copy(b, p[va%pageSize:])
		b, va = b[n:], va+uint64(n)
	}
	return nil
}

// Physical is that of introspect.Memory.
func (m *Image) Physical(va uint64) (guestmem.GPA, error) {
	if va < m.Direct || m.pages[va/pageSize] == nil {
		return 0, errUnmapped
	}
	return guestmem.GPA(va - m.Direct), nil
}
