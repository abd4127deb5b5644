package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// clock holds the clock that the vDSO reads against the kernel's, for two seconds of
// which half are slept, and says how many times as long it takes to ask the kernel.
func clock([]string) error {
	var before, after unix.Timespec
	last := time.Now()
	start := last
	reads, late := 0, time.Duration(0)
	for ; time.Since(start) < 2*time.Second; reads++ {
		// Both clocks in turns: neither goes back, and each lies between two of the other.
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &before); err != nil {
			return err
		}
		now := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &after); err != nil {
			return err
		}
		if ns := now.UnixNano(); ns < before.Nano() || ns > after.Nano() {
			return fmt.Errorf("read %d: %d is not between %d and %d", reads, ns, before.Nano(), after.Nano())
		}
		if now.Before(last) {
			return fmt.Errorf("read %d: the clock went back by %v", reads, last.Sub(now))
		}
		late = max(late, time.Duration(after.Nano()-now.UnixNano()))
		switch last = now; reads % 3 {
		case 0: // longer than a tick, in the process
			for time.Since(now) < 15*time.Millisecond {
			}
		case 1:
			time.Sleep(15 * time.Millisecond)
		}
	}
	const n = 100
	vdso, kernel := time.Hour, time.Hour
	for range 20 { // the least of them: others may want the processor meanwhile
		begin := time.Now()
		for range n {
			time.Now()
		}
		half := time.Now()
		for range n {
			if err := unix.ClockGettime(unix.CLOCK_REALTIME, &after); err != nil {
				return err
			}
		}
		vdso, kernel = min(vdso, half.Sub(begin)), min(kernel, time.Since(half))
	}
	fmt.Printf("%d reads, at most %v late\n%d times as long: %v and %v\n", reads, late, kernel/vdso, vdso/n, kernel/n)
	return nil
}
