//go:build race

package guestmem

import "sync/atomic"

// The race detector does sync/atomic's accesses in C, on the scheduler's stack,
// where no fault can be caught: it tries the address in Go before, but a guest
// that truncates its file in between ends the process. A plain access of an
// aligned word of mapped memory is as whole, and faults where it can be caught;
// the detector does not look there. What a plain store lacks, that no later load
// passes it, an atomic access to memory of our own adds.

func load32(m *Memory, p *uint32) uint32 {
	if m.mapped {
		return *p
	}
	return atomic.LoadUint32(p)
}

func load64(m *Memory, p *uint64) uint64 {
	if m.mapped {
		return *p
	}
	return atomic.LoadUint64(p)
}

func store32(m *Memory, p *uint32, v uint32) {
	if !m.mapped {
		atomic.StoreUint32(p, v)
		return
	}
	*p = v
	fence()
}

func store64(m *Memory, p *uint64, v uint64) {
	if !m.mapped {
		atomic.StoreUint64(p, v)
		return
	}
	*p = v
	fence()
}

func fence() {
	var own atomic.Uint32
	own.Add(1)
}
