package lifecycle

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// LoadPolicy replaces the program that judges the container's frames, nil lets
// nothing pass, and with it the mode, [Enforce] or [Audit]; the empty mode leaves
// it as it is. Before the card is attached it replaces what Attach will put in
// force.
func (c *Container) LoadPolicy(ctx context.Context, program []byte, mode string) error {
	touch(ctx, c)
	if mode != "" {
		if err := checkMode(mode); err != nil {
			return err
		}
	}
	return c.changePolicy(ctx, Event{Type: EventPolicyLoad, Program: programID(program), Mode: mode}, func() error {
		return c.applyProgram(ctx, program, cmp.Or(mode, c.mode))
	})
}

// SetMode sets the mode of the container's policy, [Enforce] or [Audit].
func (c *Container) SetMode(ctx context.Context, mode string) error {
	touch(ctx, c)
	if err := checkMode(mode); err != nil {
		return err
	}
	return c.changePolicy(ctx, Event{Type: EventPolicyMode, Mode: mode}, func() error { return c.applyMode(ctx, mode) })
}

func checkMode(mode string) error {
	if mode != Enforce && mode != Audit {
		return fmt.Errorf("policy mode %q: want %s or %s", mode, Enforce, Audit)
	}
	return nil
}

// NetworkStats are the counters of the container's network card, as JSON; null
// without one.
func (c *Container) NetworkStats(ctx context.Context) (json.RawMessage, error) {
	if err := c.require(VerbStats); err != nil {
		return nil, err
	}
	c.policyMu.Lock()
	attached := c.attached
	c.policyMu.Unlock()
	if !attached {
		return json.RawMessage("null"), nil
	}
	return c.pod.cfg.Network.Stats(ctx, c.name)
}

// changePolicy applies a change, with policyMu held, and records it as e.
func (c *Container) changePolicy(ctx context.Context, e Event, apply func() error) error {
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	if err := c.require(VerbPolicy); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // of a hook given up, which must not undo the lock-down
		return err
	}
	e.Container = c.name
	began := time.Now()
	err := apply()
	e.DurationNS = int64(time.Since(began))
	if err != nil {
		e.Error = err.Error()
	}
	c.pod.journal.emit(e)
	return err
}

func (c *Container) applyProgram(ctx context.Context, program []byte, mode string) error {
	if c.attached {
		if err := c.pod.cfg.Network.LoadPolicy(ctx, c.name, program, mode); err != nil {
			return err
		}
	}
	c.program, c.mode = program, mode
	return nil
}

func (c *Container) applyMode(ctx context.Context, mode string) error {
	if c.attached {
		if err := c.pod.cfg.Network.SetMode(ctx, c.name, mode); err != nil {
			return err
		}
	}
	c.mode = mode
	return nil
}

// lockDownTimeout bounds the two calls of a lock-down, after which the container
// is killed.
const lockDownTimeout = 5 * time.Second

// lockDown lets nothing of the container pass any more, because of cause.
func (c *Container) lockDown(cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), lockDownTimeout)
	defer cancel()
	c.policyMu.Lock()
	err := c.applyProgram(ctx, nil, Enforce)
	c.policyMu.Unlock()
	c.pod.journal.emit(Event{Type: EventLockdown, Container: c.name, Error: errors.Join(cause, err).Error()})
	c.pod.log.Warn("container locked down", "container", c.name, "err", cause)
	if err != nil {
		c.kill()
	}
}

// programID names a program in events.
func programID(program []byte) string {
	if len(program) == 0 {
		return "none"
	}
	sum := sha256.Sum256(program)
	return hex.EncodeToString(sum[:])
}

// A touchedSet is the containers whose policy one run of a hook meant to change.
type touchedSet struct {
	mu   sync.Mutex // mu guards list
	list []*Container
}

type touchedKey struct{}

func withTouched(ctx context.Context, t *touchedSet) context.Context {
	return context.WithValue(ctx, touchedKey{}, t)
}

func touch(ctx context.Context, c *Container) {
	t, _ := ctx.Value(touchedKey{}).(*touchedSet)
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.list {
		if o == c {
			return
		}
	}
	t.list = append(t.list, c)
}

func (t *touchedSet) all() []*Container {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list
}
