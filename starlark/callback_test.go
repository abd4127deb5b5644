package starlark_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sekimori/starlark"
	"sekimori/starlark/policy"
)

// A fakeHost records what a callback does to its container.
type fakeHost struct {
	name   string
	status int
	event  string
	fail   error // of each call that can fail
	pod    map[string]*fakeHost

	mu    sync.Mutex
	calls []string
}

func (h *fakeHost) record(format string, args ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
	return h.fail
}

func (h *fakeHost) Name() string    { return h.name }
func (h *fakeHost) Pid() int        { return 42 }
func (h *fakeHost) ExitStatus() int { return h.status }
func (h *fakeHost) Event() string   { return h.event }
func (h *fakeHost) LoadPolicy(_ context.Context, p *policy.Policy) error {
	return h.record("load %s %s", p.Mode(), strings.Join(p.Predicates(), ","))
}
func (h *fakeHost) SetMode(_ context.Context, mode string) error { return h.record("mode %s", mode) }
func (h *fakeHost) PolicyStats(context.Context) (map[string]uint64, error) {
	return map[string]uint64{"forwarded": 7, "dropped": 2}, h.record("stats")
}
func (h *fakeHost) Exec(ctx context.Context, argv []string) (starlark.ExecResult, error) {
	if argv[0] == "sleep" {
		<-ctx.Done()
		return starlark.ExecResult{}, ctx.Err()
	}
	return starlark.ExecResult{Status: 3, Stdout: "out", Stderr: "err"}, h.record("exec %q", argv)
}
func (h *fakeHost) Kill(signal string) error { return h.record("kill %s", signal) }
func (h *fakeHost) Log(msg string, fields map[string]string) {
	line := "log " + msg
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		line += fmt.Sprintf(" %s=%s", k, fields[k])
	}
	_ = h.record("%s", line) // logging cannot fail
}
func (h *fakeHost) Containers() []string { return slices.Sorted(maps.Keys(h.pod)) }
func (h *fakeHost) Container(name string) (starlark.Host, error) {
	return h.pod[name], nil
}

func callbacks(t *testing.T, body string) []starlark.Callback {
	t.Helper()
	path := filepath.Join(write(t, "-- c.star --\n"+body), "c.star")
	return load(t, path, starlark.Options{}).Containers[0].Callbacks
}

func TestCallback(t *testing.T) {
	cbs := callbacks(t, `
PEERS = net("10.0.0.0/24")

def locked(extra):
    return policy(allow_arp = lambda dst_ip: dst_ip in PEERS or dst_ip == extra, mode = "audit")

def all_of_it(ctx):
    ctx.policy.load(locked(ip("10.0.1.1")))
    ctx.policy.load(policy(allow_ipv4 = True))
    ctx.policy.mode("enforce")
    s = ctx.policy.stats()
    ctx.log("counted", forwarded = s["forwarded"], dropped = s["dropped"], name = ctx.name, pid = ctx.pid, status = ctx.exit_status, event = ctx.event)
    r = ctx.exec(["ip", "neigh"])
    ctx.log(r.stdout + r.stderr, status = r.status)
    ctx.kill("SIGHUP")
    ctx.kill()
    for name, other in ctx.pod.containers.items():
        other.policy.mode("audit")
    print("printed")

container(name = "a", nic = nic("10.0.0.2/24"), on = {"violation": all_of_it})
`)
	b := &fakeHost{name: "b"}
	h := &fakeHost{name: "a", status: -1, event: "arp"}
	h.pod = map[string]*fakeHost{"a": h, "b": b}
	if len(cbs) != 1 || cbs[0].Point != "violation" || cbs[0].Name != "all_of_it" || cbs[0].Timeout != 5*time.Second || cbs[0].OnError != "fail" {
		t.Fatalf("callbacks = %+v", cbs)
	}
	if err := cbs[0].Call(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"load audit allow_arp", "load enforce allow_ipv4", "mode enforce", "stats",
		"log counted dropped=2 event=arp forwarded=7 name=a pid=42 status=None",
		`exec ["ip" "neigh"]`, "log outerr status=3", "kill HUP", "kill TERM", "mode audit", "log printed",
	}
	if got := strings.Join(h.calls, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("calls:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	if got := strings.Join(b.calls, "\n"); got != "mode audit" {
		t.Errorf("calls of the other container: %s", got)
	}
}

func TestCallbackErrors(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name, body, want string
		fail             error
	}{
		{"host error", `ctx.policy.mode("audit")`, "boom", boom},
		{"load error", `ctx.policy.load(policy())`, "boom", boom},
		{"mode", `ctx.policy.mode("audti")`, `unknown mode "audti" (did you mean "audit"?)`, nil},
		{"load", `ctx.policy.load(1)`, "for parameter policy: got int, want policy", nil},
		{"exec string", `ctx.exec("ls")`, "args: want a list", nil},
		{"exec nothing", `ctx.exec([])`, "no command", nil},
		{"signal", `ctx.kill("HUPP")`, `unknown signal "HUPP" (did you mean "HUP"?)`, nil},
		{"attribute", `(ctx).polcy.mode("audit")`, "ctx has no .polcy field or method (did you mean .policy?)", nil},
		{"container", `container(name = "b")`, "container: may only be called while a file is loaded", nil},
		{"uplink", `uplink("10.0.0.1/24")`, "uplink: may only be called while a file is loaded", nil},
		{"param", `param("a", 1)`, "param: may only be called while a file is loaded", nil},
		{"fail", `fail("as asked")`, "as asked", nil},
		{"frozen", `LIST.append(1)`, "frozen list", nil},
		{"steps", "[x for x in range(1000000) for y in range(1000000)]", "steps", nil},
		{"memory", `"x" * (1 << 30)`, "larger than", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cbs := callbacks(t, "LIST = []\n\ndef f(ctx):\n    "+c.body+"\n\ncontainer(name = \"a\", on = {\"ready\": callback(f, timeout = \"60s\")})\n")
			err := cbs[0].Call(t.Context(), &fakeHost{name: "a", fail: c.fail})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "callback f at ready: ") {
				t.Fatalf("error = %v; want %q", err, c.want)
			}
			if c.fail != nil && !errors.Is(err, c.fail) {
				t.Errorf("errors.Is(%v, %v) = false", err, c.fail)
			}
			if es := starlark.Errors(err); len(es) != 1 || es[0].Pos.Line != 4 {
				t.Errorf("positions of %v: %+v; want line 4", err, es)
			}
		})
	}
}

func TestCallbackTimeout(t *testing.T) {
	for name, body := range map[string]string{
		"in the host":  `ctx.exec(["sleep", "9"])`,
		"in the steps": "[x for x in range(1000000) for y in range(1000000)]",
	} {
		cbs := callbacks(t, "def f(ctx):\n    "+body+"\n\ncontainer(name = \"a\", on = {\"ready\": callback(f, timeout = \"20ms\", on_error = \"warn\")})\n")
		if cbs[0].OnError != "warn" || cbs[0].Timeout != 20*time.Millisecond {
			t.Errorf("%s: %+v", name, cbs[0])
		}
		began := time.Now()
		err := cbs[0].Call(t.Context(), &fakeHost{name: "a"})
		if err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("%s: after %s: %v; want an error within 20ms", name, time.Since(began), err)
		}
		if name == "in the host" && !strings.Contains(err.Error(), "took longer than 20ms") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Callbacks of several containers run at the same time.
func TestCallbacksInParallel(t *testing.T) {
	cbs := callbacks(t, `
def f(ctx):
    ctx.policy.load(policy(allow_arp = lambda dst_ip: dst_ip == ip("10.0.0.1")))

container(name = "a", on = {"ready": f})
`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := cbs[0].Call(t.Context(), &fakeHost{name: "a"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestPoints(t *testing.T) {
	cbs := callbacks(t, `
f = lambda ctx: ctx.log("called")
container(name = "a", on = {
    "create_runtime": f, "ready": [f, callback(f)], "signal:SIGUSR1": f, "signal:hup": f, "after:60s": f, "every:1500ms": f,
    "before_chroot": f, "after_chroot": f, "teardown_container": f, "after_failure": f, "poststop": f,
})
`)
	var got []string
	for _, cb := range cbs {
		got = append(got, cb.Point)
	}
	want := "create_runtime ready ready signal:USR1 signal:HUP after:1m0s every:1.5s create_container start_container poststop poststop poststop"
	if strings.Join(got, " ") != want {
		t.Errorf("points = %s; want %s", strings.Join(got, " "), want)
	}
	for _, c := range []struct{ status, calls int }{{0, 0}, {1, 1}, {137, 1}} {
		h := &fakeHost{name: "a", status: c.status}
		if err := cbs[10-0].Call(t.Context(), h); err != nil || len(h.calls) != c.calls {
			t.Errorf("after_failure with exit status %d: %d calls, %v; want %d", c.status, len(h.calls), err, c.calls)
		}
	}
}
