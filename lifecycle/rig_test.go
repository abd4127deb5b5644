package lifecycle_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
)

// A rig is a pod's configuration on top of fakes.
type rig struct {
	*tape
	t    *testing.T
	rt   *fakeRuntime
	net  *fakeNetwork
	cfg  lifecycle.PodConfig
	root string
}

// newRig returns a rig with the named containers. At the end of the test nothing
// may be left of its pods.
func newRig(t *testing.T, names ...string) *rig {
	t.Helper()
	tp := &tape{fail: make(map[string]error)}
	r := &rig{tape: tp, t: t, root: filepath.Join(t.TempDir(), "seki")}
	r.rt = &fakeRuntime{tape: tp, t: t, live: make(map[string]*fakeInstance), all: make(map[string]*fakeInstance)}
	r.net = &fakeNetwork{tape: tp, cards: make(map[string]*fakeCard)}
	r.cfg = lifecycle.PodConfig{Name: "pod", Source: "pod.star", Root: r.root, Network: r.net, Runtime: r.rt, Detached: true}
	for _, n := range names {
		r.cfg.Containers = append(r.cfg.Containers, lifecycle.Config{
			Spec: &bundle.Spec{Name: n, NIC: &bundle.NIC{Name: "eth0"}}, Program: []byte("P-" + n),
		})
	}
	before := runtime.NumGoroutine()
	t.Cleanup(func() { r.checkNothingLeft(before) })
	return r
}

func (r *rig) checkNothingLeft(goroutines int) {
	r.t.Helper()
	if n := len(r.rt.live); n != 0 {
		r.t.Errorf("%d containers are left: %v", n, r.rt.live)
	}
	if n := len(r.net.cards); n != 0 {
		r.t.Errorf("%d network cards are left", n)
	}
	if r.net.closed != 1 {
		r.t.Errorf("the network was closed %d times; want once", r.net.closed)
	}
	if !r.cfg.Keep {
		if left := tree(r.root); len(left) != 0 {
			r.t.Errorf("left in the state directory: %q", left)
		}
	}
	checkGoroutines(r.t, goroutines)
}

// checkGoroutines fails if there are more goroutines than want, after a moment
// for those that are about to end.
func checkGoroutines(t *testing.T, want int) {
	t.Helper()
	for range 200 {
		if runtime.NumGoroutine() <= want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines; want at most %d\n%s", runtime.NumGoroutine(), want, buf[:runtime.Stack(buf, true)])
}

// tree lists what is below root/pods.
func tree(root string) []string {
	var list []string
	pods := filepath.Join(root, "pods")
	filepath.WalkDir(pods, func(path string, _ os.DirEntry, _ error) error {
		if path != pods && path != root {
			list = append(list, path)
		}
		return nil
	})
	if _, err := os.Stat(pods); err != nil {
		return nil
	}
	return list
}

// container returns the configuration of the named container, to be changed.
func (r *rig) container(name string) *lifecycle.Config {
	for i := range r.cfg.Containers {
		if r.cfg.Containers[i].Spec.Name == name {
			return &r.cfg.Containers[i]
		}
	}
	r.t.Fatalf("no container %q", name)
	return nil
}

// hook adds a hook that is recorded as "hook NAME".
func (r *rig) hook(container string, p lifecycle.Point, name string, f func(context.Context, *lifecycle.Container, lifecycle.Event) error) *lifecycle.Hook {
	c := r.container(container)
	c.Hooks = append(c.Hooks, lifecycle.Hook{Point: p, Name: name, Timeout: 5 * time.Second,
		Run: func(ctx context.Context, c *lifecycle.Container, e lifecycle.Event) error {
			err := r.note("hook %s", name)
			if f != nil {
				err = errors.Join(err, f(ctx, c, e))
			}
			return err
		}})
	return &c.Hooks[len(c.Hooks)-1]
}

// start starts the pod or ends the test.
func (r *rig) start() *lifecycle.Pod {
	r.t.Helper()
	p, err := lifecycle.Start(context.Background(), r.cfg)
	if err != nil {
		r.t.Fatalf("Start() = %v", err)
	}
	return p
}

// exit has a container exit by itself.
func (r *rig) exit(name string, code int) {
	r.rt.instance(name).exit(lifecycle.ExitStatus{Code: code})
}

// wait waits for the pod's end, at most some seconds.
func wait(t *testing.T, p *lifecycle.Pod) (int, error) {
	t.Helper()
	type result struct {
		code int
		err  error
	}
	ch := make(chan result, 1)
	go func() {
		code, err := p.Wait()
		ch <- result{code, err}
	}()
	select {
	case r := <-ch:
		return r.code, r.err
	case <-time.After(20 * time.Second):
		t.Fatal("the pod does not end")
		return 0, nil
	}
}

// next waits for an event of type typ.
func next(t *testing.T, events <-chan lifecycle.Event, typ lifecycle.EventType) lifecycle.Event {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the events end before %q", typ)
			}
			if e.Type == typ {
				return e
			}
		case <-timeout:
			t.Fatalf("no event %q", typ)
		}
	}
}
