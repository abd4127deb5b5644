package lifecycle_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"sekimori/lifecycle"
)

func TestReloadPolicies(t *testing.T) {
	r := newRig(t, "a", "b")
	p := r.start()
	c := dial(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	before, err := c.Policies(ctx)
	if err != nil || len(before) != 2 || before[0].Container != "a" || before[0].Mode == "" {
		t.Fatalf("Policies() = %+v, %v", before, err)
	}
	// A program is longer than a message may be: it comes as a file.
	long := strings.Repeat("x", 1<<20)
	next := []lifecycle.Policy{{Container: "a", Mode: lifecycle.Audit, Program: []byte("new")}, {Container: "b", Mode: lifecycle.Enforce, Program: []byte(long)}}
	if err := c.Reload(ctx, next); err != nil {
		t.Fatalf("Reload() = %v", err)
	}
	if a, b := r.net.card("a"), r.net.card("b"); a.program != "new" || a.mode != lifecycle.Audit || b.program != long {
		t.Errorf("after the reload: a %+v, b of %d bytes", a, len(b.program))
	}
	if now, err := c.Policies(ctx); err != nil || string(now[1].Program) != long || now[0].Mode != lifecycle.Audit {
		t.Errorf("Policies() = %v", err)
	}

	// The second is refused: the first goes back.
	r.tape.fail["load b bad enforce"] = errors.New("does not verify")
	err = c.Reload(ctx, []lifecycle.Policy{{Container: "a", Mode: lifecycle.Enforce, Program: []byte("third")}, {Container: "b", Mode: lifecycle.Enforce, Program: []byte("bad")}})
	if err == nil || !strings.Contains(err.Error(), `container "b": does not verify`) {
		t.Errorf("Reload() = %v", err)
	}
	if a, b := r.net.card("a"), r.net.card("b"); a.program != "new" || a.mode != lifecycle.Audit || b.program != long {
		t.Errorf("after a reload that failed: a %+v, b of %d bytes", a, len(b.program))
	}

	for _, bad := range [][]lifecycle.Policy{
		nil,
		{{Container: "x", Mode: lifecycle.Enforce}},
		{{Container: "a", Mode: "lenient"}},
		{{Container: "a", Mode: lifecycle.Enforce}, {Container: "a", Mode: lifecycle.Enforce}},
	} {
		if err := c.Reload(ctx, bad); err == nil {
			t.Errorf("Reload(%v) is fine", bad)
		}
	}
	if a := r.net.card("a"); a.program != "new" {
		t.Errorf("after refused requests: %+v", a)
	}
	if err := c.Kill(ctx); err != nil {
		t.Errorf("Kill() = %v", err)
	}
	wait(t, p)
}

func TestCaptureRefused(t *testing.T) {
	r := newRig(t, "a")
	p := r.start()
	c := dial(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Capture(ctx, os.Stderr, "", false); err == nil || !strings.Contains(err.Error(), "the network of this pod cannot") {
		t.Errorf("Capture() of a network that cannot = %v", err)
	}
	if _, err := c.Try(ctx, []lifecycle.Policy{{Container: "a", Mode: lifecycle.Enforce}}, nil); err == nil || !strings.Contains(err.Error(), "the network of this pod cannot") {
		t.Errorf("Try() of a network that cannot = %v", err)
	}
	if err := c.Kill(ctx); err != nil {
		t.Errorf("Kill() = %v", err)
	}
	wait(t, p)
}
