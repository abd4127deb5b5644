package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DefaultHookTimeout is how long a hook that names no timeout may run.
const DefaultHookTimeout = 10 * time.Second

// hookGrace is how long a hook may take to return once its time is over.
const hookGrace = time.Second

// A Hook is a function of the user's that runs at a point of a container's
// life. The hooks of one container run one at a time, those of one point in the
// order in which they are listed.
//
// What a failing hook (an error or a timeout) does depends on where it stands:
//
//   - before the workload runs, and at poststart, the start of the pod fails
//     and everything is undone;
//   - afterwards the container is stopped, and the pod's exit code is not 0;
//   - at poststop the others still run, and the pod's exit code is not 0;
//   - with FailOpen it is recorded as a warning and life goes on.
//
// One rule is not for the user to relax: a hook that set, or tried to set, the
// policy or the mode of a container and then fails leaves a policy in force
// that nobody can vouch for. Each container it touched so is locked down: mode
// enforce, no program, nothing passes; and if even that fails it is killed.
type Hook struct {
	Point    Point
	Name     string        // of the function, for events and errors
	Timeout  time.Duration // 0 is DefaultHookTimeout
	FailOpen bool
	// Run does the work. It must return soon after ctx is done; if it does not
	// within a further second the container is killed, FailOpen or not, for the
	// hook may then still be running beside the next one. The policy calls it
	// makes must get this ctx. The event has the point and what is known of it.
	Run func(ctx context.Context, c *Container, e Event) error
}

// A HookError reports a hook that failed.
type HookError struct {
	Point Point
	Hook  string
	Stuck bool // it did not return in time and may still be running
	Err   error
}

// Error names the hook and its point.
func (e *HookError) Error() string {
	return fmt.Sprintf("%s hook %q: %v", e.Point, e.Hook, e.Err)
}

// Unwrap returns what the hook returned.
func (e *HookError) Unwrap() error { return e.Err }

// runHooks runs the hooks of e.Point. The first that fails ends it, except at
// poststop, where the others may have something to clean up.
func (c *Container) runHooks(ctx context.Context, e Event) error {
	var errs []error
	for i := range c.cfg.Hooks {
		h := &c.cfg.Hooks[i]
		if h.Point != e.Point {
			continue
		}
		if err := c.runHook(ctx, h, e); err != nil {
			errs = append(errs, err)
			if e.Point != PostStop {
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (c *Container) runHook(ctx context.Context, h *Hook, e Event) error {
	var touched touchedSet
	began := time.Now()
	err := h.call(withTouched(ctx, &touched), c, e)
	record := Event{Type: EventHook, Container: c.name, Point: h.Point, Hook: h.Name, DurationNS: int64(time.Since(began))}
	if err == nil {
		c.pod.journal.emit(record)
		return nil
	}
	record.Error = err.Err.Error()
	c.pod.journal.emit(record)
	for _, t := range touched.all() {
		t.lockDown(err)
	}
	switch {
	case err.Stuck:
		c.kill()
	case h.FailOpen:
		c.pod.log.Warn("hook failed", "container", c.name, "point", h.Point, "hook", h.Name, "err", err.Err)
		return nil
	}
	return err
}

// call runs the hook with its deadline.
func (h *Hook) call(ctx context.Context, c *Container, e Event) *HookError {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, c, e) }() // ends with Run; a stuck one is the user's and is reported
	fail := &HookError{Point: h.Point, Hook: h.Name}
	select {
	case fail.Err = <-done:
	case <-ctx.Done():
		select {
		case fail.Err = <-done:
		case <-time.After(hookGrace):
			fail.Stuck = true
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			fail.Err = fmt.Errorf("timed out after %v", h.Timeout)
		} else if fail.Err == nil {
			fail.Err = ctx.Err()
		}
	}
	if fail.Err == nil {
		return nil
	}
	return fail
}

// hooked reports whether there is a hook at p.
func (c *Container) hooked(p Point) bool {
	for i := range c.cfg.Hooks {
		if c.cfg.Hooks[i].Point == p {
			return true
		}
	}
	return false
}
