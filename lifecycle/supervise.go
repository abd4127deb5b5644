package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// violationEvery is the shortest time between two runs of the violation hooks
// of a container.
const violationEvery = time.Second

// await waits for the workload.
func (c *Container) await(inst Instance) {
	st, err := inst.Wait()
	c.mu.Lock()
	c.status, c.exit, c.finished = Stopped, &st, time.Now()
	c.mu.Unlock()
	if err != nil {
		c.pod.fail(fmt.Errorf("container %q: wait: %w", c.name, err))
	}
	c.pod.noteExit(st.Status())
	if c.hooked(OOM) || c.limited() {
		c.checkOOM(inst)
	}
	c.pod.journal.emit(Event{Type: EventExit, Container: c.name, Status: ptr(st.Status()), Signal: signalName(st.Signal)})
	c.pod.saveUnlessLast()
	close(c.exited)
}

// supervise is the life of a container from poststart to its end.
func (c *Container) supervise() {
	c.live()
	c.tearDown()
}

// live runs the hooks of a running container as their points are reached,
// until the workload has exited.
func (c *Container) live() {
	ctx, cancel := context.WithCancel(c.pod.ctx)
	defer cancel()
	timers := &timers{post: c.post}
	defer timers.stop()
	defer c.watchOOM(ctx)()
	ready, stopProbe := c.probe(ctx)
	defer stopProbe()
	var lastViolation time.Time
	var held uint64 // reports that the violation hooks have not been told of
	for {
		select {
		case <-c.exited:
			return
		case err := <-ready:
			if err != nil {
				c.stopFor(fmt.Errorf("container %q: %w", c.name, err))
				continue
			}
			c.pod.journal.emit(Event{Type: EventReady, Container: c.name})
			c.mail.post(c.at(Ready))
		case <-c.mail.wake:
		}
		for e, ok := c.mail.take(); ok && !c.hasExited(); e, ok = c.mail.take() {
			if e.Point == Violation {
				held, e.Count = held+e.Count, 0
				if wait := violationEvery - time.Since(lastViolation); wait > 0 {
					timers.after(wait, e)
					continue
				}
				held, e.Count = 0, held
				lastViolation = time.Now()
			}
			if err := c.runHooks(c.pod.ctx, e); err != nil {
				c.stopFor(fmt.Errorf("container %q: %w", c.name, err))
			} else if e.Point == Ready {
				c.arm(timers)
			}
		}
	}
}

// at is the event handed to the hooks of p.
func (c *Container) at(p Point) Event {
	return Event{Point: p, Pod: c.pod.cfg.Name, Container: c.name, Pid: c.Pid(), Time: time.Now()}
}

// post has the hooks of e.Point run, if there are any.
func (c *Container) post(e Event) {
	if c.hooked(e.Point) {
		c.mail.post(e)
	}
}

// arm starts the timers of the every: and after: hooks.
func (c *Container) arm(t *timers) {
	seen := make(map[Point]bool)
	for _, h := range c.cfg.Hooks {
		d, again, ok := h.Point.timer()
		if !ok || seen[h.Point] {
			continue
		}
		seen[h.Point] = true
		if again {
			t.every(d, c.at(h.Point))
		} else {
			t.after(d, c.at(h.Point))
		}
	}
}

// stopFor stops the container because of err, which is why the pod fails. If
// the container has exited meanwhile, or the pod is being killed, err is only
// what came of that.
func (c *Container) stopFor(err error) {
	if c.hasExited() || c.pod.ctx.Err() != nil {
		return
	}
	c.pod.fail(err)
	c.journalStopping(err)
	c.terminate(c.cfg.StopTimeout)
}

func (c *Container) journalStopping(err error) {
	e := Event{Type: EventStopping, Container: c.name}
	if err != nil {
		e.Error = err.Error()
	}
	c.pod.journal.emit(e)
}

// terminate asks the workload to end, kills it if it does not within timeout,
// and returns when it has exited. It may be called several times.
func (c *Container) terminate(timeout time.Duration) {
	c.mu.Lock()
	inst := c.inst
	c.mu.Unlock()
	if inst == nil || c.hasExited() {
		return
	}
	if !ignores(inst, c.cfg.StopSignal) && c.Signal(c.cfg.StopSignal) == nil {
		c.awaitFor(timeout)
	}
	if c.hasExited() {
		return
	}
	inst.Kill()
	select {
	case <-c.exited:
	case <-c.gone: // it had never started
	}
}

// ignores reports whether it is known that sig would have no effect.
func ignores(inst Instance, sig syscall.Signal) bool {
	i, ok := inst.(interface{ Ignores(syscall.Signal) bool })
	return ok && i.Ignores(sig)
}

// awaitFor waits for the workload to exit, for d, or for the pod to be killed.
func (c *Container) awaitFor(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.exited:
	case <-t.C:
	case <-c.pod.ctx.Done():
	}
}

// detach removes the network card.
func (c *Container) detach() error {
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	if !c.attached {
		return nil
	}
	c.attached = false
	return c.pod.cfg.Network.Detach(c.name)
}

// tearDown removes all of a container whose workload has exited or never
// started. Every step is tried.
func (c *Container) tearDown() {
	defer close(c.gone)
	c.mu.Lock()
	c.status = Stopped
	inst := c.inst
	c.mu.Unlock()
	var errs []error
	if inst != nil {
		errs = append(errs, c.runHooks(context.Background(), c.at(PostStop)))
	}
	detached := make(chan error)
	go func() { detached <- c.detach() }() // a quarter of the time that an end takes, spent meanwhile
	var left error
	if inst != nil {
		c.execMu.Lock()
		left = inst.Destroy()
		c.execMu.Unlock()
	}
	errs = append(errs, <-detached)
	c.out.close(c.pod.ctx.Done())
	err := errors.Join(append(errs, left)...)
	e := Event{Type: EventDestroyed, Container: c.name}
	if err != nil {
		err = fmt.Errorf("container %q: %w", c.name, err)
		e.Error = err.Error()
		c.pod.fail(err)
	}
	c.mu.Lock()
	c.removed = left == nil
	c.mu.Unlock()
	c.pod.journal.emit(e)
	c.pod.saveUnlessLast()
}
