package lifecycle_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
	"sekimori/lifecycle/store"
)

// reserve makes a reservation for the rig's pod.
func (r *rig) reserve() *lifecycle.Reservation {
	r.t.Helper()
	res, err := lifecycle.Reserve(r.t.Context(), lifecycle.PodConfig{Name: "pod", Machine: "fake", Root: r.root, Runtime: r.rt})
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// order has a client send one, which the reservation gets.
func (r *rig) order(res *lifecycle.Reservation, c *lifecycle.Client) (*lifecycle.RemoteProcess, *lifecycle.Order) {
	r.t.Helper()
	p, err := c.Run(r.t.Context(), [3]*os.File{}, "/dir", []string{"run", "x.star"})
	if err != nil {
		r.t.Fatal(err)
	}
	select {
	case o := <-res.Orders():
		for _, f := range o.Stdio {
			f.Close()
		}
		if !slices.Equal(o.Args, []string{"run", "x.star"}) || o.Dir != "/dir" {
			r.t.Errorf("order %q in %q", o.Args, o.Dir)
		}
		return p, o
	case <-time.After(10 * time.Second):
		r.t.Fatal("no order")
		return nil, nil
	}
}

// exited waits for the client's command.
func (r *rig) exited(p *lifecycle.RemoteProcess, code int) {
	r.t.Helper()
	if st, err := p.Wait(); err != nil || st.Code != code {
		r.t.Errorf("the client's command: %+v, %v; want %d", st, err, code)
	}
}

func TestReserve(t *testing.T) {
	r := newRig(t, "a", "b")
	res := r.reserve()
	defer res.Close(nil)
	c := dial(t, r)
	ctx := t.Context()
	if err := c.Ping(ctx); err != nil {
		t.Error(err)
	}
	var remote *lifecycle.RemoteError
	if _, err := c.Stats(ctx, ""); !errors.As(err, &remote) || !strings.Contains(err.Error(), "is a machine without containers") {
		t.Errorf("Stats() = %v", err)
	}
	var used *store.NameError
	if _, err := lifecycle.Reserve(ctx, lifecycle.PodConfig{Name: "pod", Root: r.root, Runtime: r.rt}); !errors.As(err, &used) {
		t.Errorf("a second Reserve() = %v", err)
	}
	machine := res.Machine()
	if machine.ID != "pod/"+lifecycle.MachineName || machine.IDBase == 0 || machine.Place == "" {
		t.Errorf("Machine() = %+v", machine)
	}

	// An order that comes to nothing leaves the reservation for another, but while it
	// is being carried out there is no room for one.
	p, o := r.order(res, c)
	if _, err := c.Run(ctx, [3]*os.File{}, "/", []string{"run"}); !errors.As(err, &remote) || !strings.Contains(err.Error(), "another run") {
		t.Errorf("a second Run() = %v", err)
	}
	if err := o.Done(2); err != nil {
		t.Error(err)
	}
	res.Refused()
	r.exited(p, 2)

	// What is asked while the containers start waits for them.
	p, o = r.order(res, c)
	stats := make(chan error)
	r.hook("a", lifecycle.CreateRuntime, "slow", nil).Run = func(ctx context.Context, _ *lifecycle.Container, _ lifecycle.Event) error {
		go func() {
			_, err := c.Stats(t.Context(), "b")
			stats <- err
		}()
		time.Sleep(50 * time.Millisecond)
		return nil
	}
	r.cfg.Reserved, r.cfg.Name = res, "other"
	pod := r.start()
	if err := <-stats; err != nil {
		t.Errorf("Stats() while the pod starts = %v", err)
	}
	if pod.Name() != "pod" || !res.Used() {
		t.Errorf("pod %q, used: %v", pod.Name(), res.Used())
	}
	s, err := store.OpenExisting(r.root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].State.Held == nil || len(list[0].State.Containers) != 2 {
		t.Fatalf("List() = %+v, %v", list, err)
	}
	for _, k := range list[0].State.Containers {
		if k.IDBase == machine.IDBase || len(k.Record) == 0 {
			t.Errorf("container %+v; the machine has ids from %d", k, machine.IDBase)
		}
	}
	if _, err := c.Run(ctx, [3]*os.File{}, "/", []string{"run"}); !errors.As(err, &remote) || !strings.Contains(err.Error(), "another run") {
		t.Errorf("Run() of a pod with containers = %v", err)
	}
	// The client's signals come with the order.
	if err := p.Signal(unix.SIGINT); err != nil {
		t.Error(err)
	}
	if sig := <-o.Signals; sig != unix.SIGINT {
		t.Errorf("signal %v", sig)
	}
	r.exit("a", 3)
	r.exit("b", 0)
	code, err := wait(t, pod)
	if code != 3 || err != nil {
		t.Errorf("Wait() = %d, %v", code, err)
	}
	if err := o.Done(code); err != nil {
		t.Error(err)
	}
	r.exited(p, 3)
}

// A client that has been told is no loss, and one that goes away before is as one
// that was interrupted.
func TestOrderSignals(t *testing.T) {
	for range 50 { // the connection breaks in either case
		r := newRig(t, "a")
		r.net.closed = 1 // there is none
		res := r.reserve()
		c := dial(t, r)
		p, o := r.order(res, c)
		if err := o.Done(0); err != nil {
			t.Fatal(err)
		}
		r.exited(p, 0)
		select {
		case sig := <-o.Signals:
			t.Fatalf("signal %v of a client that was told", sig)
		case <-time.After(time.Millisecond):
		}
		if err := res.Close(nil); err != nil {
			t.Error(err)
		}
	}
}

func TestReserveStops(t *testing.T) {
	r := newRig(t, "a")
	r.net.closed = 1
	res := r.reserve()
	c := dial(t, r)
	done := make(chan error)
	go func() { done <- c.Stop(t.Context(), 0) }()
	<-res.Stopped()
	select {
	case err := <-done:
		t.Errorf("Stop() = %v before the end", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := res.Close(nil); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Stop() = %v", err)
	}
}

// What is not the user's wish stays on record.
func TestReserveEnds(t *testing.T) {
	r := newRig(t, "a")
	r.cfg.Keep = true // is checked below
	r.net.closed = 1
	res := r.reserve()
	if err := res.Close(errors.New("the kernel is dead")); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenExisting(r.root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.List()
	if err != nil || len(list) != 1 || !list[0].State.Ended() || list[0].State.ExitStatus == nil || *list[0].State.ExitStatus != 1 {
		t.Fatalf("List() = %+v, %v", list, err)
	}
	again := r.reserve() // the records of one that ended are in nobody's way
	if err := again.Close(nil); err != nil {
		t.Error(err)
	}
}
