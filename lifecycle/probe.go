package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Probe finds out whether a container is ready: exactly one of TCP and Exec.
type Probe struct {
	// TCP is a port on which something in the container must listen. Nothing is
	// sent: the kernel's table of sockets is read. A listener on a loopback
	// address counts only in a container without a network card.
	TCP uint16
	// Exec is a command that must succeed in the container.
	Exec []string
	// Interval between two tries; 0 is 100 ms.
	Interval time.Duration
	// Timeout after which the container is not going to be ready; it is then
	// stopped. 0 is 30 s.
	Timeout time.Duration
}

// ErrNotReady is in the error of a pod that was stopped because a container's
// probe did not succeed in time.
var ErrNotReady = errors.New("not ready in time")

func (p *Probe) validate() error {
	if p == nil {
		return nil
	}
	if (p.TCP != 0) == (len(p.Exec) != 0) {
		return fmt.Errorf("ready probe: want either a port or a command")
	}
	if p.Interval <= 0 {
		p.Interval = 100 * time.Millisecond
	}
	if p.Timeout <= 0 {
		p.Timeout = 30 * time.Second
	}
	return nil
}

// probe tries the container's probe until it succeeds. The channel gets one
// value: nil when the container is ready. stop ends the goroutine and waits.
func (c *Container) probe(ctx context.Context) (ready <-chan error, stop func()) {
	ch := make(chan error, 1)
	if c.cfg.Ready == nil {
		ch <- nil
		return ch, func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Ready.Timeout)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ch <- c.untilReady(ctx, c.cfg.Ready)
	}()
	return ch, func() { cancel(); <-done }
}

func (c *Container) untilReady(ctx context.Context, p *Probe) error {
	tick := time.NewTicker(p.Interval)
	defer tick.Stop()
	var err error // of the last try that had its time
	for {
		switch e := c.tryReady(ctx, p); {
		case e == nil:
			return nil
		case err == nil || ctx.Err() == nil:
			err = e
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (%v): %w", ErrNotReady, p.Timeout, err)
		}
	}
}

func (c *Container) tryReady(ctx context.Context, p *Probe) error {
	if p.TCP != 0 {
		return c.listens(p.TCP)
	}
	// Ten tries a second are no events: only what comes of them is.
	res, err := c.output(ctx, p.Exec, func(Event) {})
	if err == nil && res.Status != 0 {
		err = fmt.Errorf("%s: exit status %d: %s", p.Exec[0], res.Status, strings.TrimSpace(cut(res.Stderr, 256)))
	}
	return err
}

// listens looks for a listener in the container's network namespace.
func (c *Container) listens(port uint16) error {
	inst, err := c.instance(VerbStats)
	if err != nil {
		return err
	}
	found, err := inst.Listens(port, c.cfg.Spec.NIC == nil)
	if err == nil && !found {
		err = fmt.Errorf("nothing listens on tcp port %d", port)
	}
	return err
}

// cut shortens s to at most n bytes.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
