package lifecycle_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekimori/lifecycle"
	"sekimori/lifecycle/store"
)

var startPoints = []lifecycle.Point{
	lifecycle.CreateRuntime, lifecycle.CreateContainer, lifecycle.StartContainer, lifecycle.PostStart,
}

// TestOrder is the life of a pod, call by call.
func TestOrder(t *testing.T) {
	r := newRig(t, "a", "b")
	for _, c := range []string{"a", "b"} {
		for _, p := range append(startPoints, lifecycle.Ready, lifecycle.PostStop) {
			r.hook(c, p, string(p)+" "+c, nil)
		}
	}
	r.hook("a", lifecycle.PostStart, "poststart a 2", nil)
	p := r.start()
	events, cancel := p.Subscribe(64)
	defer cancel()
	for !slices.Contains(r.list(), "hook ready a") || !slices.Contains(r.list(), "hook ready b") {
		time.Sleep(time.Millisecond)
	}
	r.exit("a", 0)
	next(t, events, lifecycle.EventDestroyed)
	r.exit("b", 0)
	if code, err := wait(t, p); code != 0 || err != nil {
		t.Errorf("Wait() = %d, %v; want 0, nil", code, err)
	}
	want := []string{
		"create a", "hook create_runtime a", "attach a", "hook create_container a", "prepare a",
		"create b", "hook create_runtime b", "attach b", "hook create_container b", "prepare b",
		"hook start_container a", "start a", "hook poststart a", "hook poststart a 2",
		"hook start_container b", "start b", "hook poststart b",
		"hook poststop a", "detach a", "destroy a",
		"hook poststop b", "detach b", "destroy b",
		"close network",
	}
	got := slices.DeleteFunc(r.list(), func(s string) bool { return strings.HasPrefix(s, "hook ready") })
	for i, s := range got[:len(got)-1] { // the card and the container go at once
		if c, ok := strings.CutPrefix(s, "destroy "); ok && got[i+1] == "detach "+c {
			got[i], got[i+1] = got[i+1], s
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// TestStartFails makes each step fail in turn: the error names the step and the
// container, and nothing is left (see newRig).
func TestStartFails(t *testing.T) {
	steps := []struct{ call, step string }{
		{"create %", "create"},
		{"hook create_runtime %", "create_runtime hooks"},
		{"attach %", "attach network"},
		{"hook create_container %", "create_container hooks"},
		{"prepare %", "prepare"},
		{"hook start_container %", "start_container hooks"},
		{"start %", "start"},
		{"hook poststart %", "poststart hooks"},
	}
	for _, name := range []string{"a", "b"} {
		for _, s := range steps {
			t.Run(name+" "+s.step, func(t *testing.T) {
				r := newRig(t, "a", "b")
				for _, c := range []string{"a", "b"} {
					for _, p := range append(startPoints, lifecycle.PostStop) {
						r.hook(c, p, string(p)+" "+c, nil)
					}
				}
				cause := errors.New("no luck")
				r.fail[strings.Replace(s.call, "%", name, 1)] = cause
				// What fails while it is undone must not stop the undoing.
				spoilt := errors.New("destroy trouble")
				r.fail["destroy a"] = spoilt
				_, err := lifecycle.Start(context.Background(), r.cfg)
				var step *lifecycle.StepError
				if !errors.As(err, &step) || step.Container != name || step.Step != s.step || !errors.Is(err, cause) {
					t.Fatalf("Start() = %v; want step %q of container %q", err, s.step, name)
				}
				created := slices.Contains(r.list(), "destroy a")
				if errors.Is(err, spoilt) != created {
					t.Errorf("Start() = %v; want it to mention %q: %t", err, spoilt, created)
				}
				for _, c := range []string{"a", "b"} {
					if i := r.rt.instance(c); i != nil && !slices.Contains(r.list(), "hook poststop "+c) {
						t.Errorf("container %q was created, and its poststop hook has not run", c)
					}
				}
				if created { // its record stays for a clean-up
					if err := cleanUp(t, r); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

func cleanUp(t *testing.T, r *rig) error {
	t.Helper()
	_, err := lifecycle.CleanUp(context.Background(), lifecycle.CleanUpConfig{Root: r.root, Runtime: r.rt})
	return err
}

func TestStartErrorText(t *testing.T) {
	r := newRig(t, "web")
	r.fail["attach web"] = errors.New("open /dev/net/tun: no such file or directory")
	_, err := lifecycle.Start(context.Background(), r.cfg)
	const want = `container "web": attach network: open /dev/net/tun: no such file or directory`
	if err == nil || err.Error() != want {
		t.Errorf("Start() = %v; want %s", err, want)
	}
}

// TestStartCancelled calls a start off in the middle.
func TestStartCancelled(t *testing.T) {
	r := newRig(t, "a", "b")
	ctx, cancel := context.WithCancel(context.Background())
	r.hook("a", lifecycle.CreateContainer, "cancels", func(context.Context, *lifecycle.Container, lifecycle.Event) error {
		cancel()
		return nil
	})
	_, err := lifecycle.Start(ctx, r.cfg)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Start() = %v; want %v", err, context.Canceled)
	}
	if slices.Contains(r.list(), "create b") {
		t.Error("container b was created after the start had been called off")
	}
}

func TestNameInUse(t *testing.T) {
	r := newRig(t, "a")
	p := r.start()
	second := newRigAt(t, r.root, "a")
	_, err := lifecycle.Start(context.Background(), second.cfg)
	var used *store.NameError
	if !errors.As(err, &used) || used.Pid != os.Getpid() || time.Since(used.Since) > time.Minute {
		t.Errorf("Start() of a second pod = %v; want a NameError of pid %d", err, os.Getpid())
	}
	if err != nil && !strings.Contains(err.Error(), `pod "pod": name in use by process`) {
		t.Errorf("Start() = %v", err)
	}
	if len(second.list()) != 1 || second.list()[0] != "close network" {
		t.Errorf("the second pod made calls: %q", second.list())
	}
	r.exit("a", 0)
	wait(t, p)
}

// newRigAt is newRig in a state directory that another rig looks after.
func newRigAt(t *testing.T, root string, names ...string) *rig {
	r := newRig(t, names...)
	r.root = filepath.Join(root, "not", "mine")
	r.cfg.Root = root
	return r
}

func TestConfigRefused(t *testing.T) {
	tests := []struct {
		name   string
		change func(*rig)
		want   string
	}{
		{"no containers", func(r *rig) { r.cfg.Containers = nil }, "has no containers"},
		{"pod name", func(r *rig) { r.cfg.Name = "../x" }, `pod name "../x": want [a-zA-Z0-9]`},
		{"name twice", func(r *rig) { r.container("b").Spec.Name = "a" }, `container "a": name used twice`},
		{"container name", func(r *rig) { r.container("b").Spec.Name = "b/c" }, "container 1: no valid name"},
		{"mode", func(r *rig) { r.container("a").Mode = "lenient" }, `container "a": policy mode "lenient": want enforce or audit`},
		{"point", func(r *rig) { r.hook("a", "befor_start", "h", nil) }, `hook point "befor_start": unknown`},
		{"timer", func(r *rig) { r.hook("a", "every:1ns", "h", nil) }, `hook point "every:1ns": want a duration of at least 10ms`},
		{"signal", func(r *rig) { r.hook("a", "signal:NOPE", "h", nil) }, `hook point "signal:NOPE": signal "NOPE": unknown`},
		{"probe", func(r *rig) { r.container("a").Ready = &lifecycle.Probe{} }, "ready probe: want either a port or a command"},
		{"empty hook", func(r *rig) { r.container("a").Hooks = []lifecycle.Hook{{Point: lifecycle.Ready, Name: "h"}} }, `hook "h" at ready: does nothing`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, "a", "b")
			tt.change(r)
			_, err := lifecycle.Start(context.Background(), r.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start() = %v; want %q", err, tt.want)
			}
			if _, err := os.Stat(r.root); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the state directory was made for a refused pod: %v", err)
			}
		})
	}
	t.Run("no network", func(t *testing.T) {
		r := newRig(t, "a")
		cfg := r.cfg
		cfg.Network = nil
		_, err := lifecycle.Start(context.Background(), cfg)
		if err == nil || !strings.Contains(err.Error(), `container "a": has a network card, but the pod no network`) {
			t.Errorf("Start() = %v", err)
		}
		r.net.Close() // was never handed over
	})
}
