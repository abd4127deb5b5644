package main

import (
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the processor time of the whole process, the garbage collector's
// threads included. Other processes' load does not count, though it does slow
// this one down.
func cpuTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0 // cannot be: Linux has had the clock since 2.6.12
	}
	return time.Duration(ts.Nano())
}

// A task is something measured: run does it n times.
type task struct {
	name  string
	run   func(n int)
	least int // times a round at least, however long it takes

	n      int       // times a round
	rounds []float64 // ns each time, one a round
	allocs float64   // each time
	bytes  float64   // allocated each time
}

// minimum and median are in ns each time.
func (t *task) minimum() float64 { return slices.Min(t.rounds) }

func (t *task) median() float64 {
	s := slices.Sorted(slices.Values(t.rounds))
	return s[len(s)/2]
}

// race measures all tasks in the same rounds, so that whatever else the
// machine does meets them all alike. Each takes about slice of processor time
// a round; every round begins with another one.
func race(tasks []*task, rounds int, slice time.Duration) {
	for _, t := range tasks {
		t.calibrate(slice)
	}
	for r := range rounds {
		for i := range tasks {
			t := tasks[(i+r)%len(tasks)]
			start := cpuTime()
			t.run(t.n)
			t.rounds = append(t.rounds, float64(cpuTime()-start)/float64(t.n))
		}
	}
}

// calibrate finds how often t runs in slice, and what it allocates.
func (t *task) calibrate(slice time.Duration) {
	t.n = max(1, t.least)
	for {
		start := cpuTime()
		t.run(t.n)
		took := cpuTime() - start
		if took >= slice/8 || t.n > 1<<28 {
			t.n = max(1, t.least, int(float64(t.n)*float64(slice)/float64(max(took, 1))))
			break
		}
		t.n *= 4
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	t.run(t.n)
	runtime.ReadMemStats(&after)
	t.allocs = float64(after.Mallocs-before.Mallocs) / float64(t.n)
	t.bytes = float64(after.TotalAlloc-before.TotalAlloc) / float64(t.n)
}
