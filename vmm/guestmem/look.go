package guestmem

import "runtime/debug"

// A View is RAM during a [Memory.Look].
type View struct{ m *Memory }

// Look calls f and catches faults once for all that f reads. Who follows
// pointers from one struct of a guest to the next, ten bytes here and eight
// there, pays more for catching than for reading: five reads that depend on
// each other took 200 ns, and 82 within one Look (BenchmarkLook). At a fault f ends
// there and then, like at a panic, and Look returns a [*FaultError].
//
// f must not start a goroutine that reads, nor keep the View.
func (m *Memory) Look(f func(View) error) (err error) {
	defer m.catch(0, 0, debug.SetPanicOnFault(true), &err)
	return f(View{m})
}

// Read is [Memory.Read].
func (v View) Read(addr GPA, b []byte) error {
	if src := v.m.tail(addr); len(src) >= len(b) && src != nil {
		copy(b, src)
		return nil
	}
	return v.m.pieces(addr, uint64(len(b)), func(_ GPA, ram []byte) error {
		b = b[copy(b, ram):]
		return nil
	})
}
