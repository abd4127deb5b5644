package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// do serves all verbs but exec.
func (s *server) do(w *wire, req *request) (*reply, error) {
	p := s.pod
	switch req.Verb {
	case ctlStop:
		p.beginStop(time.Duration(req.TimeoutMS) * time.Millisecond)
		<-p.down
		return nil, nil
	case ctlKill:
		p.Kill()
		<-p.down
		return nil, nil
	case ctlPing:
		return nil, nil
	case ctlRun:
		return nil, fmt.Errorf("pod %q: has its containers: it is no machine that waits for them", p.cfg.Name)
	case ctlPolicies:
		return &reply{Policies: p.policies()}, nil
	case ctlReload:
		ctx, cancel := context.WithTimeout(p.ctx, replyTimeout)
		defer cancel()
		return nil, s.reload(ctx, w, req.Reload)
	}
	list, err := s.containers(req.Container, req.Verb != ctlSignal)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(p.ctx, replyTimeout)
	defer cancel()
	switch req.Verb {
	case ctlStats:
		r := &reply{}
		for _, c := range list {
			r.Stats = append(r.Stats, c.figures(ctx))
		}
		var err error
		if p.cfg.Network != nil && req.Container == "" {
			r.Pod, err = p.cfg.Network.Stats(ctx, "")
		}
		return r, err
	case ctlSignal:
		return nil, list[0].Signal(syscall.Signal(req.Signal))
	case ctlMode:
		var errs []error
		for _, c := range list {
			errs = append(errs, c.SetMode(ctx, req.Mode))
		}
		return nil, errors.Join(errs...)
	}
	return nil, fmt.Errorf("verb %q: unknown", req.Verb)
}

// containers returns the named one; or, with no name and if all may be meant,
// all.
func (s *server) containers(name string, all bool) ([]*Container, error) {
	if name == "" && (all || len(s.pod.containers) == 1) {
		return s.pod.containers, nil
	}
	c := s.pod.Container(name)
	if c == nil {
		return nil, fmt.Errorf("pod %q has no container %q, but %q", s.pod.cfg.Name, name, s.pod.Containers())
	}
	return []*Container{c}, nil
}

// inGuest reports whether the container is in a machine of its own kernel.
func (c *Container) inGuest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.inst.(*guestInstance)
	return ok
}

// figures are the container's part of an answer to stats.
func (c *Container) figures(ctx context.Context) ContainerStats {
	r := ContainerStats{Name: c.name, Status: c.Status(), Pid: c.Pid(), Guest: c.inGuest()}
	var err, nerr error
	r.Stats, err = c.Stats()
	if c.cfg.Spec.NIC != nil {
		r.Network, nerr = c.NetworkStats(ctx)
	}
	if err := errors.Join(err, nerr); err != nil {
		r.Error = err.Error()
	}
	return r
}
