package nested

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// machines counts the machines that run on each processor.
var machines struct {
	sync.Mutex
	on map[int]int
}

// startOnOneCPU starts a program whose threads all run on one processor, the one on
// which the fewest others of this process do. The function it returns is to be called
// when the program has ended.
//
// QEMU 7.2 loses interrupts where it plays SVM: VMRUN and #VMEXIT change
// interrupt_request without the lock under which the thread of the timers sets a bit of
// it (target/i386/tcg/sysemu/svm_helper.c). On one processor those threads never run
// at once. It costs 5 % of the time: L1 has one processor, and the other thread has
// little to do.
func startOnOneCPU(cmd *exec.Cmd) (ended func(), err error) {
	runtime.LockOSThread() // whose affinity the program inherits
	defer runtime.UnlockOSThread()
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return nil, err
	}
	cpu := leastUsed(&allowed)
	one.Set(cpu)
	if err = unix.SchedSetaffinity(0, &one); err == nil {
		err = cmd.Start()
		err = errors.Join(err, unix.SchedSetaffinity(0, &allowed))
	}
	ended = func() {
		machines.Lock()
		defer machines.Unlock()
		machines.on[cpu]--
	}
	if err != nil {
		ended()
	}
	return ended, err
}

// leastUsed takes a processor.
func leastUsed(allowed *unix.CPUSet) int {
	machines.Lock()
	defer machines.Unlock()
	if machines.on == nil {
		machines.on = map[int]int{}
	}
	best := -1
	for cpu, left := 0, allowed.Count(); left > 0; cpu++ {
		if !allowed.IsSet(cpu) {
			continue
		}
		if left--; best < 0 || machines.on[cpu] < machines.on[best] {
			best = cpu
		}
	}
	machines.on[best]++
	return best
}
