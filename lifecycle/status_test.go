package lifecycle_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"sekimori/lifecycle"
)

// TestStatusTable is the state machine in full.
func TestStatusTable(t *testing.T) {
	statuses := []lifecycle.Status{lifecycle.Creating, lifecycle.Created, lifecycle.Running, lifecycle.Stopped}
	table := map[lifecycle.Verb]string{ // one letter a status: y or n
		lifecycle.VerbPrepare: "ynnn",
		lifecycle.VerbStart:   "nynn",
		lifecycle.VerbSignal:  "nnyn",
		lifecycle.VerbExec:    "nnyn",
		lifecycle.VerbPolicy:  "yyyn",
		lifecycle.VerbStats:   "nyyy",
		lifecycle.VerbStop:    "nyyn",
		lifecycle.VerbDestroy: "yyny",
	}
	for verb, row := range table {
		for i, s := range statuses {
			if got, want := s.Allows(verb), row[i] == 'y'; got != want {
				t.Errorf("%s.Allows(%s) = %t; want %t", s, verb, got, want)
			}
		}
	}
	if lifecycle.Status("").Allows(lifecycle.VerbDestroy) {
		t.Error("the zero Status allows something")
	}
	if lifecycle.Running.Allows("") {
		t.Error("the zero Verb is allowed")
	}
}

func TestStatusError(t *testing.T) {
	tests := []struct {
		err  lifecycle.StatusError
		want string
	}{
		{lifecycle.StatusError{Verb: lifecycle.VerbStart, ID: "web", Have: lifecycle.Stopped}, `cannot start container "web": it is stopped, want created`},
		{lifecycle.StatusError{Verb: lifecycle.VerbPolicy, ID: "web", Have: lifecycle.Stopped}, `cannot set the policy of container "web": it is stopped, want creating or created or running`},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("Error() = %q; want %q", got, tt.want)
		}
	}
}

// TestStatusInHooks calls the verbs that a hook has at every point, and compares
// with the table.
func TestStatusInHooks(t *testing.T) {
	points := map[lifecycle.Point]lifecycle.Status{
		lifecycle.CreateRuntime:   lifecycle.Creating,
		lifecycle.CreateContainer: lifecycle.Creating,
		lifecycle.StartContainer:  lifecycle.Created,
		lifecycle.PostStart:       lifecycle.Running,
		lifecycle.Ready:           lifecycle.Running,
		lifecycle.PostStop:        lifecycle.Stopped,
	}
	r := newRig(t, "a")
	seen := make(chan lifecycle.Point, len(points))
	for p, want := range points {
		r.hook("a", p, string(p), func(ctx context.Context, c *lifecycle.Container, e lifecycle.Event) error {
			if e.Point != p || e.Container != "a" {
				t.Errorf("%s: the hook got event %+v", p, e)
			}
			if c.Status() != want {
				t.Errorf("%s: status %s; want %s", p, c.Status(), want)
			}
			check := func(v lifecycle.Verb, err error) {
				var se *lifecycle.StatusError
				if allowed := want.Allows(v); allowed != (err == nil) || !allowed && (!errors.As(err, &se) || se.Verb != v || se.Have != want) {
					t.Errorf("%s: %s: %v; want allowed: %t", p, v, err, allowed)
				}
			}
			_, err := c.Stats()
			check(lifecycle.VerbStats, err)
			check(lifecycle.VerbPolicy, c.LoadPolicy(ctx, []byte(p), ""))
			_, err = c.Output(ctx, []string{"true"})
			check(lifecycle.VerbExec, err)
			if !want.Allows(lifecycle.VerbSignal) { // it would end the container
				check(lifecycle.VerbSignal, c.Signal(10))
			}
			if exited := c.ExitStatus() >= 0; exited != (want == lifecycle.Stopped) {
				t.Errorf("%s: ExitStatus() = %d", p, c.ExitStatus())
			}
			if hasPid := c.Pid() != 0; hasPid != (want != lifecycle.Stopped) {
				t.Errorf("%s: Pid() = %d", p, c.Pid())
			}
			seen <- p
			return nil
		})
	}
	p := r.start()
	for range len(points) - 1 {
		select {
		case <-seen:
		case <-time.After(10 * time.Second):
			t.Fatal("hooks are missing")
		}
	}
	if got := r.net.card("a"); got.program != string(lifecycle.Ready) {
		t.Errorf("the program in force is %q; want the one of the last hook", got.program)
	}
	r.exit("a", 0)
	if code, err := wait(t, p); code != 0 || err != nil {
		t.Errorf("Wait() = %d, %v; want 0, nil", code, err)
	}
}

// TestEarlyPolicy: what a create_runtime hook loads is what Attach puts in force.
func TestEarlyPolicy(t *testing.T) {
	r := newRig(t, "a")
	r.hook("a", lifecycle.CreateRuntime, "early", func(ctx context.Context, c *lifecycle.Container, _ lifecycle.Event) error {
		return errors.Join(c.LoadPolicy(ctx, []byte("early"), lifecycle.Audit))
	})
	p := r.start()
	if got := r.net.card("a"); got.program != "early" || got.mode != lifecycle.Audit {
		t.Errorf("in force: %+v; want early in audit", got)
	}
	r.exit("a", 0)
	wait(t, p)
}
