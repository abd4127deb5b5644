package policytest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	gostarlark "go.starlark.net/starlark"

	"sekimori/starlark"
	"sekimori/starlark/args"
	"sekimori/starlark/config"
	"sekimori/starlark/policy"
)

// A life is what a container has been through in a test: the policy in force,
// its clock, and what its callbacks did. It is the [config.Host] of their ctx.
type life struct {
	t      *test
	c      *config.Container
	policy *policy.Policy // in force; nil: nothing passes
	mode   string
	status int    // -1 while it runs
	event  string // what led to the callbacks under way
	born   time.Duration
	timers []timer
	// touched is set when the callback under way asked for a policy or a mode.
	touched bool
	// execs are what the next commands return; behind them, what the test says.
	execs []starlark.ExecResult
}

// A timer is an after: or every: callback that waits.
type timer struct {
	at    time.Duration // of the test's clock
	every time.Duration // 0: once
	cb    config.Callback
}

// started are the points that a container passes on its way to being ready.
var started = []string{"create_runtime", "create_container", "start_container", "poststart", "ready"}

// maxFired bounds the timers that one t.advance() sets off.
const maxFired = 10_000

// life is that of c in this test, begun where the test first mentions it.
func (t *test) life(c *config.Container) *life {
	l := t.lives[c]
	if l == nil {
		l = &life{t: t, c: c, policy: c.Policy, status: -1}
		if c.Policy != nil {
			l.mode = c.Policy.Mode()
		}
		t.lives[c], t.order = l, append(t.order, l)
		l.arm()
	}
	return l
}

// arm sets the timers, counted from now on.
func (l *life) arm() {
	l.born, l.timers = l.t.now, nil
	for _, cb := range l.c.Callbacks {
		kind, rest, _ := strings.Cut(cb.Point, ":")
		d, err := time.ParseDuration(rest)
		if err != nil || kind != "after" && kind != "every" {
			continue
		}
		next := timer{at: l.born + d, cb: cb}
		if kind == "every" {
			next.every = d
		}
		l.timers = append(l.timers, next)
	}
}

// subject is the container an assertion about a life means: the one given, or
// the only one that the test could mean.
func (t *test) subject(c *args.Call) (*life, error) {
	if ctr, ok := c.Vals["container"].(*config.Container); ok {
		return t.life(ctr), nil
	}
	if len(t.order) == 1 {
		return t.order[0], nil
	}
	known := t.suite.containers()
	if len(t.order) == 0 && len(known) == 1 {
		return t.life(known[0]), nil
	}
	var names []string
	for _, k := range known {
		names = append(names, k.Spec.Name)
	}
	if len(names) == 0 {
		return nil, c.Errorf("container", "make or load one: container(...), or pod(\"web.star\")", "there is no container")
	}
	return nil, c.Errorf("container", "say which: "+c.Builtin.Name+"(..., container = WEB)", "there are several containers: %s", strings.Join(names, ", "))
}

// emit is t.emit(): the callbacks of a point run, and with them what the
// container is told.
func (t *test) emit(c *args.Call) (gostarlark.Value, error) {
	l, err := t.subject(c)
	if err != nil {
		return nil, err
	}
	point, err := config.CanonicalPoint(args.Get[string](c, "point"))
	if err != nil {
		return nil, c.Errorf("point", args.HintOf(err), "%v", err)
	}
	if strings.HasPrefix(point, "after:") || strings.HasPrefix(point, "every:") {
		return nil, c.Errorf("point", `write t.advance("10s")`, "%s: time passes by t.advance", point)
	}
	l.event = args.Get[string](c, "event")
	if name, ok := strings.CutPrefix(point, "signal:"); ok && l.event == "" {
		l.event = name
	}
	switch point {
	case "poststart":
		l.arm()
	case "poststop":
		l.status, l.timers = int(args.Get[int64](c, "exit_status")), nil
	}
	want := args.Get[string](c, "fails")
	t.outcome(c, l, point, l.at(c.Thread, point), want)
	return gostarlark.None, nil
}

// start is t.start(): every point up to ready.
func (t *test) start(c *args.Call) (gostarlark.Value, error) {
	l, err := t.subject(c)
	if err != nil {
		return nil, err
	}
	for _, point := range started {
		if point == "poststart" {
			l.arm()
		}
		if err := l.at(c.Thread, point); err != nil {
			t.outcome(c, l, point, err, "")
			break
		}
	}
	return gostarlark.None, nil
}

// outcome records a failure unless the callbacks ended as the test wants: with
// an error that has want in it, or without one where want is "".
func (t *test) outcome(c *args.Call, l *life, point string, err error, want string) {
	switch {
	case err == nil && want != "":
		t.failed(c, fmt.Sprintf("%s of %q: no callback failed, want an error with %q", point, l.Name(), want), "")
	case err != nil && want == "":
		t.failed(c, fmt.Sprintf("%s of %q: %v", point, l.Name(), err), "")
	case err != nil && !strings.Contains(err.Error(), want):
		t.failed(c, fmt.Sprintf("%s of %q: %v\nwant an error with %q", point, l.Name(), err, want), "")
	}
}

// advance is t.advance(): the clock of the test goes on, and sets off what
// after: and every: wait for, in the order of time.
func (t *test) advance(c *args.Call) (gostarlark.Value, error) {
	if len(t.order) == 0 {
		if _, err := t.subject(c); err != nil && len(t.suite.containers()) > 0 {
			return nil, err
		}
	}
	until := t.now + args.Get[time.Duration](c, "duration")
	for range maxFired {
		l, i := t.due(until)
		if l == nil {
			t.now = until
			return gostarlark.None, nil
		}
		next := l.timers[i]
		t.now, l.event = next.at, ""
		if next.every > 0 {
			l.timers[i].at += next.every
		} else {
			l.timers = slices.Delete(l.timers, i, i+1)
		}
		t.outcome(c, l, next.cb.Point, l.call(c.Thread, next.cb), "")
	}
	return nil, c.Errorf("duration", "advance in smaller steps", "more than %d timers go off until then", maxFired)
}

// due is the timer that goes off first, until then; nil if there is none.
func (t *test) due(until time.Duration) (of *life, at int) {
	first := until
	for _, l := range t.order {
		for i := range l.timers {
			if l.timers[i].at <= first && (of == nil || l.timers[i].at < first) {
				of, at, first = l, i, l.timers[i].at
			}
		}
	}
	return of, at
}

// at runs the callbacks of a point as package lifecycle does: the first that
// fails ends it, except at poststop, where the others may have to clean up.
func (l *life) at(th *gostarlark.Thread, point string) error {
	var errs []string
	for _, cb := range l.c.Callbacks {
		if cb.Point != point {
			continue
		}
		if err := l.call(th, cb); err != nil {
			errs = append(errs, err.Error())
			if point != "poststop" {
				break
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(errs, "\n"))
}

// call runs one callback. One that touched a policy and failed leaves nothing
// in force that anybody can vouch for: each container it touched is locked
// down, as package lifecycle does it, whatever on_error says.
func (l *life) call(th *gostarlark.Thread, cb config.Callback) error {
	for _, o := range l.t.order {
		o.touched = false
	}
	err := cb.Call(l.t.ctx, l)
	if err == nil {
		return nil
	}
	for _, o := range l.t.order {
		if o.touched {
			o.policy, o.mode = nil, "enforce"
		}
	}
	if cb.OnError == config.OnErrorWarn {
		l.t.report.Output = append(l.t.report.Output, fmt.Sprintf("%s: %v", l.Name(), err))
		return nil
	}
	return err
}

// What a callback sees of its container.

func (l *life) Name() string    { return l.c.Spec.Name }
func (l *life) Pid() int        { return 1000 }
func (l *life) ExitStatus() int { return l.status }
func (l *life) Event() string   { return l.event }

func (l *life) LoadPolicy(_ context.Context, p *policy.Policy) error {
	l.touched = true
	id := l.c.Identity()
	if prog := l.t.suite.judge.compile(p, sender(id)); prog.err != nil {
		return prog.err
	}
	l.policy, l.mode = p, p.Mode()
	l.t.did(l, "policy.load", p.String())
	return nil
}

func (l *life) SetMode(_ context.Context, mode string) error {
	l.touched = true
	l.mode = mode
	l.t.did(l, "policy.mode", mode)
	return nil
}

func (l *life) PolicyStats(context.Context) (map[string]uint64, error) {
	n := l.t.counted[l.c]
	out := map[string]uint64{
		"frames": n.frames, "bytes": n.bytes, "forwarded": n.forwarded,
		"dropped": n.frames - n.forwarded, "would_drop": 0, "delivered": n.delivered, "refused": n.refused,
	}
	maps.Copy(out, n.noes)
	return out, nil
}

func (l *life) Exec(_ context.Context, argv []string) (starlark.ExecResult, error) {
	l.t.did(l, "exec", argv...)
	if len(l.execs) > 0 {
		r := l.execs[0]
		l.execs = l.execs[1:]
		return r, nil
	}
	return l.t.execResult, nil
}

func (l *life) Kill(signal string) error {
	l.t.did(l, "kill", signal)
	return nil
}

func (l *life) Log(msg string, fields map[string]string) {
	words := []string{msg}
	for k, v := range fields {
		words = append(words, k+"="+v)
	}
	slices.Sort(words[1:])
	l.t.did(l, "log", words...)
}

func (l *life) Containers() []string {
	var names []string
	for _, c := range l.t.suite.siblings(l.c) {
		names = append(names, c.Spec.Name)
	}
	return names
}

func (l *life) Container(name string) (starlark.Host, error) {
	for _, c := range l.t.suite.siblings(l.c) {
		if c.Spec.Name == name {
			return l.t.life(c), nil
		}
	}
	return nil, fmt.Errorf("container %q: not in the pod", name)
}

var _ starlark.Host = (*life)(nil)
