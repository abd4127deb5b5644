// Package early does what must be done before other packages initialise. It
// imports only the runtime, so that the linker has it initialised before all
// that need package syscall or time, which is nearly everything (the order is
// that of import paths, among those packages whose imports are initialised).
package early

import "runtime"

// procs is how many processors the runtime would use.
var procs int

func init() {
	grow(-1)
	procs = runtime.GOMAXPROCS(1)
}

// AllProcessors ends the time in which one processor runs all goroutines. A
// container's start is one thing after the other; with a second processor the
// runtime wakes a thread for each goroutine to look whether there is work for
// it too, and splits the heap in two: 1 ms of processor time, and a hundred
// page faults.
func AllProcessors() { runtime.GOMAXPROCS(procs) }

// grow makes the stack of its goroutine large at once. From 2 KiB up it
// would double five times on the way, and each time look up every frame in the
// tables of the linker, page by page: 0.4 ms of a start.
//
//go:noinline
func grow(i int) byte {
	if i < 0 {
		return 0 // by now there is room; and none of it has been touched
	}
	var room [40 << 10]byte
	return room[i]
}
