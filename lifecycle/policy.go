package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// LoadPolicy replaces the program that judges the container's frames; nil lets
// nothing pass. Before the card is attached it replaces the program that Attach
// will put in force.
func (c *Container) LoadPolicy(ctx context.Context, program []byte) error {
	touch(ctx, c)
	return c.changePolicy(ctx, program, nil)
}

// SetMode sets the mode of the container's policy, [Enforce] or [Audit].
func (c *Container) SetMode(ctx context.Context, mode string) error {
	touch(ctx, c)
	if mode != Enforce && mode != Audit {
		return fmt.Errorf("policy mode %q: want %s or %s", mode, Enforce, Audit)
	}
	return c.changePolicy(ctx, nil, &mode)
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

// changePolicy sets the mode, or if there is none the program, and records it.
func (c *Container) changePolicy(ctx context.Context, program []byte, mode *string) error {
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	if err := c.require(VerbPolicy); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // of a hook given up, which must not undo the lock-down
		return err
	}
	e := Event{Type: EventPolicyLoad, Container: c.name}
	began := time.Now()
	var err error
	if mode != nil {
		e.Type, e.Mode = EventPolicyMode, *mode
		err = c.applyMode(ctx, *mode)
	} else {
		e.Program = programID(program)
		err = c.applyProgram(ctx, program)
	}
	e.DurationNS = int64(time.Since(began))
	if err != nil {
		e.Error = err.Error()
	}
	c.pod.journal.emit(e)
	return err
}

func (c *Container) applyProgram(ctx context.Context, program []byte) error {
	if c.attached {
		if err := c.pod.cfg.Network.LoadPolicy(ctx, c.name, program); err != nil {
			return err
		}
	}
	c.program = program
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
	err := errors.Join(c.applyProgram(ctx, nil), c.applyMode(ctx, Enforce))
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
