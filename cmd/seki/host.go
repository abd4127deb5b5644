package main

import (
	"context"
	"encoding/json"
	"fmt"

	"sekimori/lifecycle"
	"sekimori/starlark"
	"sekimori/starlark/policy"
)

// A host is what a callback of a .star file sees of a running container: its
// ctx argument.
type host struct {
	c     *lifecycle.Container
	event lifecycle.Event
	// identities of the cards of the pod, by container: a policy is compiled
	// for the card that it is loaded into.
	identities map[string]policy.Identity
	record     *recording // nil for none
}

var _ starlark.Host = host{}

// Name of the container.
func (h host) Name() string { return h.c.Name() }

// Pid is its first process, in the host's pid namespace.
func (h host) Pid() int { return h.c.Pid() }

// ExitStatus is -1 while it runs.
func (h host) ExitStatus() int { return h.c.ExitStatus() }

// Event says what led to the call where the point alone does not.
func (h host) Event() string { return eventText(h.event) }

// Log records a message among the pod's events.
func (h host) Log(msg string, fields map[string]string) { h.c.Log(msg, fields) }

// SetMode changes between enforce and audit.
func (h host) SetMode(ctx context.Context, mode string) error { return h.c.SetMode(ctx, mode) }

// LoadPolicy compiles p for this container's card, and puts program and mode
// in force.
func (h host) LoadPolicy(ctx context.Context, p *policy.Policy) error {
	id, ok := h.identities[h.Name()]
	if !ok {
		return fmt.Errorf("container %q: has no card to judge", h.Name())
	}
	prog, err := p.Compile(id)
	if err != nil {
		return err
	}
	if err := h.c.LoadPolicy(ctx, prog.Bytes(), p.Mode()); err != nil {
		return err
	}
	h.record.policy(h.Name(), prog)
	return nil
}

// PolicyStats are the counters of the card that say most.
func (h host) PolicyStats(ctx context.Context) (map[string]uint64, error) {
	raw, err := h.c.NetworkStats(ctx)
	if err != nil {
		return nil, err
	}
	var st netStats
	if err := json.Unmarshal(raw, &st); err != nil {
		return nil, fmt.Errorf("counters of %q: %w", h.Name(), err)
	}
	return figures(st), nil
}

// Exec runs a program in the container and waits for it.
func (h host) Exec(ctx context.Context, argv []string) (starlark.ExecResult, error) {
	r, err := h.c.Output(ctx, argv)
	res := starlark.ExecResult{Status: r.Status, Stdout: r.Stdout, Stderr: r.Stderr}
	if err == nil {
		h.record.exec(h.Name(), res)
	}
	return res, err
}

// Kill sends a signal to the workload.
func (h host) Kill(signal string) error {
	sig, err := lifecycle.ParseSignal(signal)
	if err != nil {
		return err
	}
	return h.c.Signal(sig)
}

// Containers are the names of the pod's containers.
func (h host) Containers() []string { return h.c.Pod().Containers() }

// Container is the ctx of another container of the pod.
func (h host) Container(name string) (starlark.Host, error) {
	c := h.c.Pod().Container(name)
	if c == nil {
		return nil, fmt.Errorf("container %q: not in pod %q%s", name, h.c.Pod().Name(), meant(name, h.Containers()))
	}
	return host{c, h.event, h.identities, h.record}, nil
}
