package lifecycle_test

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
)

// endings are the calls that end workloads.
func (r *rig) endings() []string {
	return slices.DeleteFunc(r.list(), func(s string) bool {
		return !strings.HasPrefix(s, "signal ") && !strings.HasPrefix(s, "kill ")
	})
}

func TestStopOrder(t *testing.T) {
	r := newRig(t, "a", "b", "c", "d")
	r.container("c").StopSignal = syscall.SIGINT
	r.rt.onCreate = func(i *fakeInstance) {
		i.deaf = i.name == "b"
		i.ignores = i.name == "d"
	}
	p := r.start()
	if err := p.Stop(context.Background(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	want := []string{"kill d", "signal c 2", "signal b 15", "kill b", "signal a 15"}
	if diff := cmp.Diff(want, r.endings()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if code, err := wait(t, p); code != 0 || err != nil {
		t.Errorf("Wait() = %d, %v; want 0, nil", code, err)
	}
	if err := p.Stop(context.Background(), 0); err != nil {
		t.Errorf("Stop() of an ended pod = %v", err)
	}
}

// TestInterruptTwice: the first SIGINT waits for the workload, the second does
// not, nor for a hook that runs.
func TestInterruptTwice(t *testing.T) {
	r := newRig(t, "a")
	r.rt.onCreate = func(i *fakeInstance) { i.deaf = true }
	inHook := make(chan struct{})
	r.hook("a", lifecycle.Ready, "long", func(ctx context.Context, _ *lifecycle.Container, _ lifecycle.Event) error {
		close(inHook)
		<-ctx.Done()
		return ctx.Err()
	}).Timeout = time.Minute
	p := r.start()
	<-inHook
	p.Signal(syscall.SIGINT)
	time.Sleep(20 * time.Millisecond)
	if got := p.Container("a").Status(); got != lifecycle.Running {
		t.Errorf("after the first signal it is %s; want running", got)
	}
	p.Signal(syscall.SIGTERM)
	if code, err := wait(t, p); code != 128+9 || err != nil {
		t.Errorf("Wait() = %d, %v; want 137, nil", code, err)
	}
}

// TestSignalsWhileItStarts: a signal that calls no start off is the pod's once that
// has started. A workload is heard before its start has ended, so that whoever stops
// it then comes in between.
func TestSignalsWhileItStarts(t *testing.T) {
	signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1) // os/signal's goroutine stays
	t.Cleanup(func() { signal.Reset() })                 // Run takes them all
	run := func(t *testing.T, onStart func(chan<- os.Signal)) (calls []string, err error) {
		r := newRig(t, "a")
		signals := make(chan os.Signal)
		r.rt.onCreate = func(i *fakeInstance) { i.onStart = func(*fakeInstance) { onStart(signals) } }
		r.cfg.Signals = signals
		ended := make(chan error, 1)
		go func() {
			_, err := lifecycle.Run(t.Context(), r.cfg, nil)
			ended <- err
		}()
		select {
		case err = <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the signal is lost")
			r.exit("a", 0)
			err = <-ended
		}
		close(signals)
		return r.list(), err
	}
	t.Run("passed on", func(t *testing.T) {
		calls, err := run(t, func(signals chan<- os.Signal) {
			signals <- unix.SIGUSR1
			signals <- unix.SIGPIPE           // nobody's
			time.Sleep(20 * time.Millisecond) // until they have been taken
		})
		if !slices.Contains(calls, "signal a 10") || slices.Contains(calls, "signal a 13") || err != nil {
			t.Errorf("calls %q, %v", calls, err)
		}
	})
	for i := range 100 {
		if !t.Run("stop", func(t *testing.T) {
			_, err := run(t, func(signals chan<- os.Signal) {
				go func() {
					time.Sleep(time.Duration(i) * 5 * time.Microsecond)
					signals <- unix.SIGINT
				}()
			})
			if off := (*lifecycle.InterruptError)(nil); err != nil && !errors.As(err, &off) {
				t.Error(err)
			}
		}) {
			break
		}
	}
}

func TestExitCode(t *testing.T) {
	tests := []struct {
		name  string
		codes []int // of a, b, c, in the order in which they exit
		stop  bool  // before the last exits
		want  int
	}{
		{"one", []int{7}, false, 7},
		{"all well", []int{0, 0, 0}, false, 0},
		{"first failure counts", []int{0, 3, 4}, false, 3},
		{"the last", []int{0, 0, 9}, false, 9},
		{"stopped", []int{0, 0, 0}, true, 0},
		{"failed before the stop", []int{5, 0, 0}, true, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			names := []string{"a", "b", "c"}[:len(tt.codes)]
			r := newRig(t, names...)
			p := r.start()
			events, cancel := p.Subscribe(64)
			defer cancel()
			for i, n := range names {
				if tt.stop && i == len(names)-1 {
					p.Stop(context.Background(), 0)
					break
				}
				r.exit(n, tt.codes[i])
				next(t, events, lifecycle.EventDestroyed)
			}
			if code, err := wait(t, p); code != tt.want || err != nil {
				t.Errorf("Wait() = %d, %v; want %d, nil", code, err, tt.want)
			}
		})
	}
}

// TestTearDownTriesAll: every step of the end fails, every one is tried, and the
// record stays for a clean-up.
func TestTearDownTriesAll(t *testing.T) {
	r := newRig(t, "a", "b")
	var want []error
	for _, call := range []string{"detach a", "destroy a", "detach b", "close network"} {
		err := errors.New(call + " went wrong")
		r.fail[call] = err
		want = append(want, err)
	}
	p := r.start()
	r.exit("a", 0)
	r.exit("b", 0)
	code, err := wait(t, p)
	if code != 1 {
		t.Errorf("Wait() = %d; want 1", code)
	}
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("Wait() = _, %v; want it to have %v", err, w)
		}
	}
	if len(tree(r.root)) == 0 {
		t.Error("the record of a container that could not be destroyed is gone")
	}
	if err := cleanUp(t, r); err != nil {
		t.Error(err)
	}
	if !slices.Contains(r.list(), `reap "record a"`) || slices.Contains(r.list(), `reap "record b"`) {
		t.Errorf("calls: %q; want a, and only a, reaped", r.list())
	}
}

// TestStopWhileStarting: a hook may stop the pod before all of it runs.
func TestStopWhileStarting(t *testing.T) {
	r := newRig(t, "a", "b")
	r.hook("a", lifecycle.PostStart, "stops", func(_ context.Context, c *lifecycle.Container, _ lifecycle.Event) error {
		go c.Pod().Stop(context.Background(), 0)
		<-time.After(50 * time.Millisecond)
		return nil
	})
	p, err := lifecycle.Start(context.Background(), r.cfg)
	if err == nil { // the fake lets b start although it was killed
		wait(t, p)
	}
}

// TestConcurrentCalls has every method called while the pod ends.
func TestConcurrentCalls(t *testing.T) {
	r := newRig(t, "a", "b")
	p := r.start()
	var calls atomic.Int64
	stop := make(chan struct{})
	done := make(chan struct{})
	for i := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			c := p.Container([]string{"a", "b"}[i%2])
			for {
				select {
				case <-stop:
					return
				default:
				}
				calls.Add(1)
				c.LoadPolicy(context.Background(), []byte{byte(i)}, "")
				c.SetMode(context.Background(), lifecycle.Audit)
				c.NetworkStats(context.Background())
				c.Stats()
				c.Signal(syscall.SIGUSR1 + syscall.Signal(100)) // ends it, in the fake
				c.Pid()
				c.ExitStatus()
				c.Log("hello", nil)
				p.Violation(c.Name(), nil)
				p.Signal(syscall.SIGUSR2)
				_, cancel := p.Subscribe(1)
				cancel()
			}
		}()
	}
	wait(t, p)
	close(stop)
	for range 4 {
		<-done
	}
	if calls.Load() == 0 {
		t.Error("no calls were made")
	}
}
