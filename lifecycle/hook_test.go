package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekimori/lifecycle"
)

type hookFunc = func(context.Context, *lifecycle.Container, lifecycle.Event) error

var errHook = errors.New("hook is unhappy")

func unhappy(context.Context, *lifecycle.Container, lifecycle.Event) error { return errHook }

// TestHookFails: after the start a failing hook stops the container, unless it
// fails open.
func TestHookFails(t *testing.T) {
	for _, open := range []bool{false, true} {
		t.Run(fmt.Sprint("open ", open), func(t *testing.T) {
			r := newRig(t, "a", "b")
			r.hook("a", lifecycle.Ready, "bad", unhappy).FailOpen = open
			r.hook("a", lifecycle.Ready, "after bad", nil)
			p := r.start()
			if open {
				for !slices.Contains(r.list(), "hook after bad") {
					time.Sleep(time.Millisecond)
				}
				r.exit("a", 0)
			} else {
				for p.Container("a").Status() != lifecycle.Stopped { // without our doing
					time.Sleep(time.Millisecond)
				}
				if slices.Contains(r.list(), "hook after bad") {
					t.Error("the hook after the one that failed has run")
				}
			}
			r.exit("b", 0)
			code, err := wait(t, p)
			if open && (code != 0 || err != nil) || !open && (code == 0 || !errors.Is(err, errHook)) {
				t.Errorf("Wait() = %d, %v", code, err)
			}
			if !open && !strings.Contains(err.Error(), `container "a": ready hook "bad": hook is unhappy`) {
				t.Errorf("Wait() = _, %v", err)
			}
			if !slices.Contains(r.list(), "signal a 15") && !open {
				t.Error("the container was not asked to end")
			}
		})
	}
}

// TestPostStopFails: the other poststop hooks still run.
func TestPostStopFails(t *testing.T) {
	r := newRig(t, "a")
	r.hook("a", lifecycle.PostStop, "bad", unhappy)
	r.hook("a", lifecycle.PostStop, "good", nil)
	p := r.start()
	r.exit("a", 0)
	if code, err := wait(t, p); code != 1 || !errors.Is(err, errHook) {
		t.Errorf("Wait() = %d, %v; want 1 and the hook's error", code, err)
	}
	if !slices.Contains(r.list(), "hook good") {
		t.Error("the hook after the one that failed has not run")
	}
}

// TestHookTimeout: a hook that minds its context fails; one that does not has
// its container killed, fail open or not.
func TestHookTimeout(t *testing.T) {
	release := make(chan struct{})
	tests := []struct {
		name string
		run  hookFunc
		kill bool
	}{
		{"minds", func(ctx context.Context, _ *lifecycle.Container, _ lifecycle.Event) error {
			<-ctx.Done()
			return nil
		}, false},
		{"stuck", func(context.Context, *lifecycle.Container, lifecycle.Event) error {
			<-release
			return nil
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, "a")
			h := r.hook("a", lifecycle.Ready, "slow", tt.run)
			h.Timeout = 20 * time.Millisecond
			h.FailOpen = tt.kill
			p := r.start()
			code, err := wait(t, p)
			if tt.kill {
				close(release)
			}
			var he *lifecycle.HookError
			if code == 0 || !tt.kill && (!errors.As(err, &he) || he.Stuck != tt.kill || !strings.Contains(err.Error(), "timed out after 20ms")) {
				t.Errorf("Wait() = %d, %v", code, err)
			}
			if killed := slices.Contains(r.list(), "kill a"); killed != tt.kill {
				t.Errorf("killed: %t; want %t", killed, tt.kill)
			}
		})
	}
}

// TestLockDown: a hook that touched policies and fails leaves nothing passing,
// in all the containers it touched, even if it fails open.
func TestLockDown(t *testing.T) {
	r := newRig(t, "a", "b", "c")
	r.container("b").Mode = lifecycle.Audit
	r.hook("a", lifecycle.Ready, "touches b", func(ctx context.Context, c *lifecycle.Container, _ lifecycle.Event) error {
		if err := c.Pod().Container("b").LoadPolicy(ctx, []byte("new"), ""); err != nil {
			return err
		}
		return errHook
	}).FailOpen = true
	p := r.start()
	for r.net.card("b") != (fakeCard{mode: lifecycle.Enforce}) {
		time.Sleep(time.Millisecond)
	}
	if got := r.net.card("b"); got.program != "" || got.mode != lifecycle.Enforce {
		t.Errorf("policy of b: %+v; want none, enforced", got)
	}
	for _, n := range []string{"a", "c"} {
		if got := r.net.card(n); got.program != "P-"+n {
			t.Errorf("policy of %s: %+v; want its own", n, got)
		}
		r.exit(n, 0)
	}
	r.exit("b", 0)
	if code, err := wait(t, p); code != 0 || err != nil {
		t.Errorf("Wait() = %d, %v; want 0, nil", code, err)
	}
}

// TestLockDownRefused: a policy that was refused is one that was touched; and
// if the lock-down fails as well, the container is killed.
func TestLockDownRefused(t *testing.T) {
	r := newRig(t, "a")
	refused := errors.New("program refused")
	r.fail["load a new enforce"] = refused
	r.fail["load a  enforce"] = errors.New("data path is broken")
	r.hook("a", lifecycle.Ready, "reload", func(ctx context.Context, c *lifecycle.Container, _ lifecycle.Event) error {
		return c.LoadPolicy(ctx, []byte("new"), "")
	}).FailOpen = true
	p := r.start()
	if code, _ := wait(t, p); code != 128+9 {
		t.Errorf("Wait() = %d; want 137", code)
	}
	if i, j := slices.Index(r.list(), "load a  enforce"), slices.Index(r.list(), "kill a"); i < 0 || j < i {
		t.Errorf("calls: %q; want a lock-down, then a kill", r.list())
	}
}

// TestGivenUpHook: a hook that goes on after its time cannot change a policy any
// more.
func TestGivenUpHook(t *testing.T) {
	r := newRig(t, "a", "b")
	release, late := make(chan struct{}), make(chan error)
	h := r.hook("a", lifecycle.Ready, "stuck", func(ctx context.Context, c *lifecycle.Container, _ lifecycle.Event) error {
		b := c.Pod().Container("b")
		if err := b.LoadPolicy(ctx, []byte("in time"), ""); err != nil {
			return err
		}
		<-release
		late <- b.LoadPolicy(ctx, []byte("late"), "")
		return nil
	})
	h.Timeout = 20 * time.Millisecond
	p := r.start()
	for p.Container("a").Status() != lifecycle.Stopped {
		time.Sleep(time.Millisecond)
	}
	if got := r.net.card("b"); got.program != "" {
		t.Errorf("policy of b: %+v; want none", got)
	}
	close(release)
	if err := <-late; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("LoadPolicy() after the hook's time = %v; want %v", err, context.DeadlineExceeded)
	}
	if got := r.net.card("b"); got.program != "" {
		t.Errorf("policy of b: %+v; want none", got)
	}
	r.exit("b", 0)
	wait(t, p)
}

// TestSignals: SIGUSR1 has a hook in one of two containers, SIGHUP reloads.
func TestSignals(t *testing.T) {
	r := newRig(t, "a", "b")
	ran := make(chan string, 8)
	say := func(_ context.Context, c *lifecycle.Container, e lifecycle.Event) error {
		ran <- fmt.Sprint(c.Name(), " ", e.Point, " ", e.Signal)
		return nil
	}
	r.hook("a", "signal:SIGUSR1", "usr1", say)
	r.hook("b", lifecycle.Reload, "reload", say)
	p := r.start()
	for _, tt := range []struct {
		sig  syscall.Signal
		want string
	}{{syscall.SIGUSR1, "a signal:USR1 USR1"}, {syscall.SIGHUP, "b reload HUP"}} {
		p.Signal(tt.sig)
		select {
		case got := <-ran:
			if got != tt.want {
				t.Errorf("%v ran %q; want %q", tt.sig, got, tt.want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%v ran nothing", tt.sig)
		}
	}
	p.Signal(syscall.SIGUSR2) // nobody's
	r.exit("a", 0)
	r.exit("b", 0)
	wait(t, p)
	for _, c := range r.list() {
		if strings.HasPrefix(c, "signal ") {
			t.Errorf("a workload of several got %q", c)
		}
	}
}

// TestSignalAlone: what no hook wants goes to the workload of a single container.
func TestSignalAlone(t *testing.T) {
	r := newRig(t, "a")
	p := r.start()
	p.Signal(syscall.SIGUSR2)
	if code, err := wait(t, p); code != 128+12 || err != nil {
		t.Errorf("Wait() = %d, %v; want 140, nil", code, err)
	}
}

// TestHangUp: the SIGHUP of a terminal that was closed stops a pod that nobody
// would see any more, unless its workload takes the signal.
func TestHangUp(t *testing.T) {
	for _, tt := range []struct {
		name              string
		detached, ignores bool
		containers        []string
		want              []string // the signals that workloads got
	}{
		{"several", false, false, []string{"a", "b"}, []string{"signal b 15", "signal a 15"}},
		{"alone", false, false, []string{"a"}, []string{"signal a 1"}},
		{"alone and deaf", false, true, []string{"a"}, []string{"kill a"}},
		{"detached", true, false, []string{"a", "b"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.containers...)
			r.cfg.Detached = tt.detached
			r.rt.onCreate = func(i *fakeInstance) { i.ignores = tt.ignores }
			p := r.start()
			p.Signal(syscall.SIGHUP)
			if tt.detached {
				time.Sleep(20 * time.Millisecond)
				if got := r.endings(); len(got) > 0 {
					t.Errorf("a detached pod: %q", got)
				}
				p.Kill()
				wait(t, p)
				return
			}
			wait(t, p)
			if diff := cmp.Diff(tt.want, r.endings()); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTimers(t *testing.T) {
	r := newRig(t, "a")
	var after, every, overlap, running atomic.Int32
	r.hook("a", "after:30ms", "after", func(context.Context, *lifecycle.Container, lifecycle.Event) error {
		after.Add(1)
		return nil
	})
	done := make(chan struct{})
	r.hook("a", "every:10ms", "every", func(context.Context, *lifecycle.Container, lifecycle.Event) error {
		if running.Add(1) > 1 {
			overlap.Add(1)
		}
		time.Sleep(15 * time.Millisecond) // slower than its timer
		running.Add(-1)
		if every.Add(1) == 5 {
			close(done)
		}
		return nil
	})
	p := r.start()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the timer does not come again")
	}
	r.exit("a", 0)
	wait(t, p)
	if after.Load() != 1 || overlap.Load() != 0 {
		t.Errorf("after: ran %d times; want once; %d runs of every: overlapped", after.Load(), overlap.Load())
	}
}

// TestViolations: many reports, few runs, none forgotten.
func TestViolations(t *testing.T) {
	r := newRig(t, "a")
	var runs, count atomic.Uint64
	first := make(chan struct{}, 16)
	r.hook("a", lifecycle.Violation, "violation", func(_ context.Context, _ *lifecycle.Container, e lifecycle.Event) error {
		runs.Add(1)
		count.Add(e.Count)
		if string(e.Record) == "" {
			t.Error("the event has no record")
		}
		first <- struct{}{}
		return nil
	})
	p := r.start()
	events, cancel := p.Subscribe(2048)
	defer cancel()
	<-time.After(50 * time.Millisecond)
	for i := range 1000 {
		p.Violation("a", json.RawMessage(fmt.Sprintf(`{"n":%d}`, i)))
	}
	p.Violation("nobody", json.RawMessage(`{}`)) // must not hurt
	for count.Load() < 1000 {
		select {
		case <-first:
		case <-time.After(10 * time.Second):
			t.Fatalf("hooks saw %d of 1000 in %d runs", count.Load(), runs.Load())
		}
	}
	if runs.Load() > 3 || count.Load() != 1000 {
		t.Errorf("hooks saw %d of 1000 in %d runs; want 3 at most", count.Load(), runs.Load())
	}
	r.exit("a", 0)
	wait(t, p)
	var total uint64
	for e := range events {
		if e.Type == lifecycle.EventViolation {
			total += e.Count
		}
	}
	if total != 1001 {
		t.Errorf("the events count %d reports; want 1001", total)
	}
}

func TestReady(t *testing.T) {
	t.Run("exec", func(t *testing.T) {
		r := newRig(t, "a")
		r.container("a").Ready = &lifecycle.Probe{Exec: []string{"check"}, Interval: 10 * time.Millisecond}
		tries := atomic.Int32{}
		r.rt.onCreate = func(i *fakeInstance) {
			i.onExec = func([]string) int { return max(0, 3-int(tries.Add(1))) }
		}
		p := r.start()
		for tries.Load() < 3 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond)
		if tries.Load() != 3 {
			t.Errorf("ready after %d tries; want 3", tries.Load())
		}
		r.exit("a", 0)
		wait(t, p)
	})
	t.Run("never", func(t *testing.T) {
		r := newRig(t, "a")
		r.container("a").Ready = &lifecycle.Probe{Exec: []string{"check"}, Interval: 10 * time.Millisecond, Timeout: 50 * time.Millisecond}
		r.rt.onCreate = func(i *fakeInstance) { i.onExec = func([]string) int { return 1 } }
		p := r.start()
		code, err := wait(t, p)
		if code == 0 || !errors.Is(err, lifecycle.ErrNotReady) || !strings.Contains(err.Error(), `container "a": not ready in time (50ms): check: exit status 1`) {
			t.Errorf("Wait() = %d, %v", code, err)
		}
	})
	t.Run("exits first", func(t *testing.T) {
		r := newRig(t, "a")
		r.container("a").Ready = &lifecycle.Probe{Exec: []string{"check"}, Interval: 10 * time.Millisecond}
		r.rt.onCreate = func(i *fakeInstance) { i.onExec = func([]string) int { return 1 } }
		p := r.start()
		r.exit("a", 4)
		if code, err := wait(t, p); code != 4 || err != nil {
			t.Errorf("Wait() = %d, %v; want 4, nil", code, err)
		}
	})
}
