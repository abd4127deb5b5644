package uml

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Idle is how long each processor has been idle.
func Idle() map[int]time.Duration { return (&affinity{}).look().idle }

// TestBetter: a machine moves when others have a good part of its processor and
// another is idle for most of the time, and for nothing less.
func TestBetter(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name       string
		ours       time.Duration // of 1000 ms
		busy, idle [3]time.Duration
		want       int // 0: it stays there
	}{
		{"alone and busy", 900 * ms, [3]time.Duration{950 * ms, 0, 0}, [3]time.Duration{50 * ms, 1000 * ms, 1000 * ms}, 0},
		{"alone and idle", 0, [3]time.Duration{10 * ms, 0, 0}, [3]time.Duration{990 * ms, 1000 * ms, 1000 * ms}, 0},
		{"somebody else, a little", 500 * ms, [3]time.Duration{700 * ms, 0, 0}, [3]time.Duration{300 * ms, 1000 * ms, 1000 * ms}, 0},
		{"somebody else", 500 * ms, [3]time.Duration{1000 * ms, 400 * ms, 100 * ms}, [3]time.Duration{0, 600 * ms, 900 * ms}, 2},
		{"somebody else, and all are busy", 500 * ms, [3]time.Duration{1000 * ms, 900 * ms, 600 * ms}, [3]time.Duration{0, 100 * ms, 400 * ms}, 0},
		{"somebody else, and the idle one is not for us", 0, [3]time.Duration{1000 * ms, 900 * ms, 0}, [3]time.Duration{0, 100 * ms, 0}, 0},
	} {
		a := &affinity{}
		for i := range 3 {
			a.allowed.Set(i)
		}
		before := load{busy: map[int]time.Duration{0: 5 * ms, 1: 7 * ms, 2: 0}, idle: map[int]time.Duration{0: 1 * ms, 1: 0, 2: 3 * ms}, ours: 11 * ms}
		now := load{busy: map[int]time.Duration{}, idle: map[int]time.Duration{}, ours: before.ours + tt.ours}
		for i := range 3 {
			now.busy[i], now.idle[i] = before.busy[i]+tt.busy[i], before.idle[i]+tt.idle[i]
		}
		if cpu, ok := a.better(before, now); ok != (tt.want > 0) || cpu != tt.want {
			t.Errorf("%s: %d, %v; want %d", tt.name, cpu, ok, tt.want)
		}
		a.allowed = unix.CPUSet{}
		a.allowed.Set(0)
		if cpu, ok := a.better(before, now); ok {
			t.Errorf("%s: to %d, where it must not", tt.name, cpu)
		}
	}
}
