package guestmem

import (
	"runtime/debug"
	"unsafe"
)

// Each access below lets a fault panic, in this goroutine and for this access
// only, and catches the panic. That costs 9 ns beside a copy of 1514 bytes,
// which takes 30 (BenchmarkRead); a SIGBUS that nobody catches ends the process.

// Read copies len(b) bytes of RAM at addr to b. The guest may change them
// meanwhile: b holds what was there at some time during the call, byte by
// byte. On a [*RangeError] nothing was copied.
func (m *Memory) Read(addr GPA, b []byte) error {
	if src := m.tail(addr); len(src) >= len(b) && src != nil {
		return m.copy(addr, b, src[:len(b)])
	}
	return m.pieces(addr, uint64(len(b)), func(addr GPA, ram []byte) error {
		done := b[:len(ram)]
		b = b[len(ram):]
		return m.copy(addr, done, ram)
	})
}

// Write copies b to RAM at addr. On a [*RangeError] nothing was copied.
func (m *Memory) Write(addr GPA, b []byte) error {
	if dst := m.tail(addr); len(dst) >= len(b) && dst != nil {
		return m.copy(addr, dst[:len(b)], b)
	}
	return m.pieces(addr, uint64(len(b)), func(addr GPA, ram []byte) error {
		done := b[:len(ram)]
		b = b[len(ram):]
		return m.copy(addr, ram, done)
	})
}

// pieces calls f with the RAM of [addr, addr+n), region by region.
func (m *Memory) pieces(addr GPA, n uint64, f func(GPA, []byte) error) error {
	if !m.Contains(addr, n) {
		return &RangeError{Addr: addr, Len: n, RAM: m.size}
	}
	for n > 0 {
		ram := m.tail(addr) // not empty: Contains saw it
		ram = ram[:min(n, uint64(len(ram)))]
		if err := f(addr, ram); err != nil {
			return err
		}
		addr += GPA(len(ram))
		n -= uint64(len(ram))
	}
	return nil
}

func (m *Memory) copy(addr GPA, dst, src []byte) (err error) {
	defer m.catch(addr, uint64(len(dst)), debug.SetPanicOnFault(true), &err)
	copy(dst, src)
	return nil
}

// Load16 loads the 16 bits at addr, a multiple of 2, in one access. It orders
// nothing: an atomic load or store beside it must.
func (m *Memory) Load16(addr GPA) (v uint16, err error) {
	p, err := m.word(addr, 2)
	if err != nil {
		return 0, err
	}
	defer m.catch(addr, 2, debug.SetPanicOnFault(true), &err)
	return *(*uint16)(p), nil // SAFETY: see word
}

// Load32 loads the 32 bits at addr, a multiple of 4, atomically.
func (m *Memory) Load32(addr GPA) (v uint32, err error) {
	p, err := m.word(addr, 4)
	if err != nil {
		return 0, err
	}
	defer m.catch(addr, 4, debug.SetPanicOnFault(true), &err)
	return load32(m, (*uint32)(p)), nil // SAFETY: see word
}

// Store32 stores the 32 bits v at addr, a multiple of 4, atomically. No later
// load passes it: it is the fence that virtio wants between the used index and
// the driver's flags.
func (m *Memory) Store32(addr GPA, v uint32) (err error) {
	p, err := m.word(addr, 4)
	if err != nil {
		return err
	}
	defer m.catch(addr, 4, debug.SetPanicOnFault(true), &err)
	store32(m, (*uint32)(p), v) // SAFETY: see word
	return nil
}

// Load64 loads the 64 bits at addr, a multiple of 8, atomically.
func (m *Memory) Load64(addr GPA) (v uint64, err error) {
	p, err := m.word(addr, 8)
	if err != nil {
		return 0, err
	}
	defer m.catch(addr, 8, debug.SetPanicOnFault(true), &err)
	return load64(m, (*uint64)(p)), nil // SAFETY: see word
}

// Store64 stores the 64 bits v at addr, a multiple of 8, atomically.
func (m *Memory) Store64(addr GPA, v uint64) (err error) {
	p, err := m.word(addr, 8)
	if err != nil {
		return err
	}
	defer m.catch(addr, 8, debug.SetPanicOnFault(true), &err)
	store64(m, (*uint64)(p), v) // SAFETY: see word
	return nil
}

// word finds the n bytes at addr. The pointer is into a region of m, with n
// bytes of it behind, and aligned to n, because regions begin at a multiple of
// wordLen both here and in the guest. It is live while m is, which the
// caller's deferred catch holds.
func (m *Memory) word(addr GPA, n uint64) (unsafe.Pointer, error) {
	ram := m.tail(addr)
	switch {
	case uint64(len(ram)) < n:
		return nil, &RangeError{Addr: addr, Len: n, RAM: m.size}
	case uint64(addr)%n != 0:
		return nil, &AlignError{Addr: addr, Len: n}
	}
	return unsafe.Pointer(unsafe.SliceData(ram)), nil // SAFETY: ram is not empty
}

// catch is deferred around an access: it puts back what a fault does in this
// goroutine, and makes an error of a fault in m.
func (m *Memory) catch(addr GPA, n uint64, old bool, err *error) {
	debug.SetPanicOnFault(old)
	v := recover()
	if v == nil {
		return
	}
	// The runtime's error for a fault tells its address. A region that the
	// page of the fault does not lie in was not what we touched.
	if fault, ok := v.(interface{ Addr() uintptr }); ok {
		if at, ok := m.holds(fault.Addr()); ok {
			if n == 0 { // whoever looks around reads more than one address
				addr, n = at, 1
			}
			*err = &FaultError{Addr: addr, Len: n}
			return
		}
	}
	panic(v) // a bug of ours: not the guest's memory
}
