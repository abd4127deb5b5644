package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A StepError reports the step at which a pod did not start.
type StepError struct {
	Container string
	Step      string // "create", "attach network", "poststart hooks", ...
	Err       error
}

// Error names the container and the step.
func (e *StepError) Error() string {
	return fmt.Sprintf("container %q: %s: %s", e.Container, e.Step, saidOnce(e.Err, e.Step+" container "))
}

// saidOnce is err without the beginning "VERB container ID: " of a runtime's
// error, where the container has been named already.
func saidOnce(err error, verb string) string {
	text := err.Error()
	if rest, ok := strings.CutPrefix(text, verb); ok {
		if _, why, ok := strings.Cut(rest, ": "); ok {
			return why
		}
	}
	return text
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// A step is one step of a container's start.
type step struct {
	name string
	do   func(context.Context) error
}

// create takes the container to created: all but the workload.
func (c *Container) create(ctx context.Context) error {
	attach, prepare := step{"attach network", c.stepAttach}, step{"prepare", c.stepPrepare}
	steps := []step{{"create", c.stepCreate}, c.hookStep(CreateRuntime)}
	if c.hooked(CreateContainer) || setsNetwork(c.cfg.Spec.OCI.Linux) {
		steps = append(steps, attach, c.hookStep(CreateContainer), prepare)
	} else {
		steps = append(steps, c.together(attach, prepare))
	}
	if err := c.take(ctx, steps...); err != nil {
		return err
	}
	// Here, and not as a step of the two ends: events keep one order.
	c.pod.journal.emit(Event{Type: EventPrepared, Container: c.name})
	return nil
}

// setsNetwork reports whether a sysctl may be about the card, which must then
// be there before the mounts are made and sysctls are set.
func setsNetwork(l *specs.Linux) bool {
	if l == nil {
		return false
	}
	for name := range l.Sysctl {
		if strings.HasPrefix(name, "net.") && name != "net.ipv4.ping_group_range" {
			return true
		}
	}
	return false
}

// together is two steps that need nothing of each other, taken at once: about
// a millisecond of a start. It ends when both have ended.
func (c *Container) together(a, b step) step {
	return step{a.name, func(ctx context.Context) error {
		done := make(chan error, 1)
		go func() { done <- c.take(ctx, b) }()
		runtime.Gosched() // b first, if there is one processor: it lets the container's process go on, and waits
		return errors.Join(c.take(ctx, a), <-done)
	}}
}

// start takes it from created to running.
func (c *Container) start(ctx context.Context) error {
	return c.take(ctx,
		c.hookStep(StartContainer),
		step{"start", c.stepStart},
		c.hookStep(PostStart),
		step{"supervise", c.stepSupervise},
	)
}

// take takes the steps in turn until one fails or ctx ends.
func (c *Container) take(ctx context.Context, steps ...step) error {
	for _, s := range steps {
		err := context.Cause(ctx)
		if err == nil {
			err = s.do(ctx)
		}
		if failed := (*StepError)(nil); errors.As(err, &failed) {
			return err // of one of two steps taken together
		}
		if err != nil {
			return &StepError{Container: c.name, Step: s.name, Err: err}
		}
	}
	return nil
}

func (c *Container) hookStep(p Point) step {
	return step{string(p) + " hooks", func(ctx context.Context) error {
		return c.runHooks(ctx, Event{Point: p, Container: c.name, Pod: c.pod.cfg.Name, Pid: c.Pid()})
	}}
}

// stepCreate makes the processes.
func (c *Container) stepCreate(ctx context.Context) error {
	stdio, err := c.out.open(c)
	if err != nil {
		return err
	}
	defer c.out.started()
	rc := c.runtimeConfig()
	rc.Stdio = stdio
	inst, err := c.pod.runtime.Create(ctx, rc)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.inst, c.created = inst, time.Now()
	c.mu.Unlock()
	record, err := inst.Record()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.record = record // written with the next state; until then the plan must do
	c.mu.Unlock()
	c.pod.journal.emit(Event{Type: EventCreated, Container: c.name, Pid: inst.Pid()})
	return nil
}

func (c *Container) runtimeConfig() RuntimeConfig {
	return RuntimeConfig{ID: c.pod.cfg.Name + "/" + c.name, Place: c.pod.place, Spec: c.cfg.Spec, IDBase: c.idBase, Log: c.pod.log, Append: c.pod.appendTo}
}

// appendTo opens a file of the pod's directory.
func (p *Pod) appendTo(name string) (io.WriteCloser, error) { return p.dir.Append(name, maxLog) }

// stepAttach gives it its network card, with the policy in force.
func (c *Container) stepAttach(ctx context.Context) error {
	nic := c.cfg.Spec.NIC
	if nic == nil {
		return nil
	}
	ns, err := c.inst.NetNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	if err := c.pod.cfg.Network.Attach(ctx, c.name, nic, ns, c.program, c.mode); err != nil {
		return err
	}
	c.attached = true
	c.pod.journal.emit(Event{Type: EventAttached, Container: c.name, Mode: c.mode, Program: programID(c.program)})
	return nil
}

func (c *Container) stepPrepare(ctx context.Context) error {
	inst, err := c.instance(VerbPrepare)
	if err != nil {
		return err
	}
	if err := inst.Prepare(ctx); err != nil {
		return err
	}
	return c.advance(VerbPrepare, Created)
}

func (c *Container) stepStart(ctx context.Context) error {
	inst, err := c.instance(VerbStart)
	if err != nil {
		return err
	}
	if err := inst.Start(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.status, c.started = Running, time.Now()
	c.mu.Unlock()
	c.pod.journal.emit(Event{Type: EventStarted, Container: c.name, Pid: inst.Pid()})
	go c.await(inst) // ends with the workload; exited is closed then
	return nil
}

// stepSupervise leaves the container to itself.
func (c *Container) stepSupervise(context.Context) error {
	c.supervised = true
	go c.supervise() // ends with the container; gone is closed then
	return nil
}
