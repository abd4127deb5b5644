package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"sekimori/lifecycle/linux"
)

// create makes a container's first process.
func (a *Agent) create(ctx context.Context, c *create) (any, error) {
	if a.find(c.Container) != nil {
		return nil, fmt.Errorf("container %q: is in this machine", c.Container)
	}
	r, err := a.relay(ctx, c.Stdio, 0)
	if err != nil {
		return nil, err
	}
	k, err := linux.Create(ctx, linux.Config{ID: c.ID, Spec: c.Spec, Stdio: r.child, IDBase: c.IDBase, Shifted: c.Shifted, Log: a.log})
	if err != nil {
		r.close()
		return nil, err
	}
	g := &guest{Container: k, execs: map[uint64]*task{}}
	g.workload = task{wait: k.Wait, relays: r, signal: func(s signal) error { return done(k.Signal(s.Signal)) }}
	a.mu.Lock()
	a.containers[c.Container] = g
	a.mu.Unlock()
	return started{Pid: k.Pid()}, nil
}

// done forgets that a process which was to be signalled had ended: the host
// hears of the end itself.
func done(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// exec runs one more process in a container.
func (a *Agent) exec(ctx context.Context, e *exec) (any, error) {
	if e.Container == "" {
		return a.execHere(ctx, e)
	}
	g, err := a.container(e.Container)
	if err != nil {
		return nil, err
	}
	r, err := a.relay(ctx, e.Stdio, g.Pid())
	if err != nil {
		return nil, err
	}
	cfg := e.config()
	cfg.Stdio = r.child
	p, err := g.Exec(ctx, cfg)
	r.release()
	if err != nil {
		r.close()
		return nil, err
	}
	t := &task{wait: p.Wait, relays: r, signal: func(s signal) error { return done(p.Signal(s.Signal)) }}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.execs[e.Exec] = t
	return started{Pid: p.Pid()}, nil
}

// task finds a process by the host's number.
func (a *Agent) task(p process) (*task, error) {
	if p.Container == "" {
		a.mu.Lock()
		defer a.mu.Unlock()
		if t := a.here[p.Exec]; t != nil {
			return t, nil
		}
		return nil, fmt.Errorf("process %d: has ended", p.Exec)
	}
	g, err := a.container(p.Container)
	if err != nil {
		return nil, err
	}
	if p.Exec == 0 {
		return &g.workload, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.execs[p.Exec]
	if t == nil {
		return nil, fmt.Errorf("container %q: process %d: has ended", p.Container, p.Exec)
	}
	return t, nil
}

// wait waits for a process, and for its last output to be on its way.
func (a *Agent) wait(ctx context.Context, p process) (any, error) {
	t, err := a.task(p)
	if err != nil {
		return nil, err
	}
	var st linux.ExitStatus
	done := make(chan struct{})
	go func() { // ends with the process, which the end of the host is the end of
		st, err = t.wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	t.relays.ended()
	if p.Container == "" {
		a.mu.Lock()
		delete(a.here, p.Exec)
		a.mu.Unlock()
	}
	if g := a.find(p.Container); g != nil && p.Exec != 0 {
		g.mu.Lock()
		delete(g.execs, p.Exec)
		g.mu.Unlock()
	}
	return st, err
}

// destroy removes a container; one that is not there is removed already.
func (a *Agent) destroy(name string) error {
	a.mu.Lock()
	g := a.containers[name]
	a.mu.Unlock()
	if g == nil {
		return nil
	}
	if err := g.destroy(); err != nil {
		return err
	}
	a.mu.Lock()
	delete(a.containers, name)
	a.mu.Unlock()
	return nil
}

func (g *guest) destroy() error {
	err := g.Destroy()
	g.workload.relays.close()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.execs {
		t.relays.close()
	}
	return err
}
