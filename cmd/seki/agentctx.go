package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
	"sekimori/lifecycle/agent"
	"sekimori/lifecycle/linux"
	"sekimori/nicshadow"
	"sekimori/starlark"
	"sekimori/starlark/policy"
	"sekimori/vmm/hypercall"
)

// A guestHost is what a callback sees of a container that runs in the same
// guest: its ctx argument. Policies travel by hypercall.
type guestHost struct {
	guest  *guestAgent
	name   string
	event  lifecycle.Event
	states map[string]agent.State
	names  []string
}

var _ starlark.Host = guestHost{}

// contextOf makes the ctx of a call.
func (g *guestAgent) contextOf(h agent.HookCall) (guestHost, error) {
	c := guestHost{guest: g, name: h.Container, states: map[string]agent.State{}}
	if err := json.Unmarshal(h.Event, &c.event); err != nil {
		return guestHost{}, fmt.Errorf("event: %w", err)
	}
	for _, s := range h.States {
		c.states[s.Container] = s
		c.names = append(c.names, s.Container)
	}
	return c, nil
}

// Name of the container.
func (h guestHost) Name() string { return h.name }

// Pid is its first process, as the guest counts.
func (h guestHost) Pid() int { return h.states[h.name].Pid }

// ExitStatus is -1 while it runs.
func (h guestHost) ExitStatus() int { return h.states[h.name].ExitStatus }

// Event says what led to the call.
func (h guestHost) Event() string { return eventText(h.event) }

// Log records a message among the pod's events.
func (h guestHost) Log(msg string, fields map[string]string) {
	h.tell(lifecycle.Event{Type: lifecycle.EventLog, Message: msg, Fields: fields})
}

// tell sends an event to the pod's journal, which the host keeps.
func (h guestHost) tell(e lifecycle.Event) {
	raw, err := json.Marshal(e)
	if err != nil {
		return // not of these fields
	}
	h.guest.agent.Notify(agent.Event{Container: h.name, Event: raw})
}

// card is the container's, or an error.
func (h guestHost) card() (guestCard, error) {
	h.guest.mu.Lock()
	defer h.guest.mu.Unlock()
	c, ok := h.guest.senders[h.name]
	if !ok {
		return guestCard{}, fmt.Errorf("container %q: has no card to judge", h.name)
	}
	return c, nil
}

// LoadPolicy compiles p for the container's card, and puts program and mode in
// force by hypercall.
func (h guestHost) LoadPolicy(ctx context.Context, p *policy.Policy) error {
	c, err := h.card()
	if err != nil {
		return err
	}
	prog, err := p.Compile(c.identity)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // of a callback given up, which must not undo what came of that
		return err
	}
	return h.guest.load(c.sender, prog.Bytes(), callMode(p.Mode()))
}

func callMode(mode string) hypercall.Mode {
	if mode == lifecycle.Audit {
		return hypercall.ModeAudit
	}
	return hypercall.ModeEnforce
}

// SetMode changes between enforce and audit.
func (h guestHost) SetMode(ctx context.Context, mode string) error {
	c, err := h.card()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	calls, err := h.guest.hypercalls()
	if err != nil {
		return err
	}
	return calls.SetMode(c.sender, callMode(mode))
}

// PolicyStats are the counters of the card that say most.
func (h guestHost) PolicyStats(context.Context) (map[string]uint64, error) {
	c, err := h.card()
	if err != nil {
		return nil, err
	}
	calls, err := h.guest.hypercalls()
	if err != nil {
		return nil, err
	}
	st, err := calls.Stats(c.sender)
	if err != nil {
		return nil, err
	}
	return figures(newNetStats(st)), nil
}

// Exec runs a program in the container and waits for it.
func (h guestHost) Exec(ctx context.Context, argv []string) (starlark.ExecResult, error) {
	k, err := h.running()
	if err != nil {
		return starlark.ExecResult{}, err
	}
	r, err := linux.Output(ctx, func(stdio [3]*os.File) (linux.Waiter, error) {
		p, err := k.Exec(ctx, linux.ExecConfig{Args: argv, Stdio: stdio})
		if err != nil {
			h.tell(lifecycle.Event{Type: lifecycle.EventExec, Args: argv, Error: err.Error()})
			return nil, fmt.Errorf("container %q: exec %s: %w", h.name, argv[0], err)
		}
		h.tell(lifecycle.Event{Type: lifecycle.EventExec, Args: argv, Pid: p.Pid()})
		stop := context.AfterFunc(ctx, func() { p.Signal(unix.SIGKILL) })
		return &toldProcess{p, h, stop}, nil
	})
	return starlark.ExecResult{Status: r.Status, Stdout: r.Stdout, Stderr: r.Stderr}, err
}

// A toldProcess tells of its end.
type toldProcess struct {
	*linux.Process
	host guestHost
	stop func() bool
}

func (p *toldProcess) Wait() (linux.ExitStatus, error) {
	st, err := p.Process.Wait()
	p.stop()
	e := lifecycle.Event{Type: lifecycle.EventExecExit, Pid: p.Pid()}
	if err != nil {
		e.Error = err.Error()
	} else {
		code := st.Status()
		e.Status = &code
	}
	p.host.tell(e)
	return st, err
}

func (h guestHost) running() (*linux.Container, error) {
	if k := h.guest.agent.Container(h.name); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("container %q: is not there any more", h.name)
}

// Kill sends a signal to the workload.
func (h guestHost) Kill(signal string) error {
	sig, err := lifecycle.ParseSignal(signal)
	if err != nil {
		return err
	}
	k, err := h.running()
	if err != nil {
		return err
	}
	return k.Signal(sig)
}

// Containers are the names of the pod's containers.
func (h guestHost) Containers() []string { return h.names }

// Container is the ctx of another container of the pod.
func (h guestHost) Container(name string) (starlark.Host, error) {
	if _, ok := h.states[name]; !ok {
		return nil, fmt.Errorf("container %q: not in the pod%s", name, meant(name, h.names))
	}
	h.name = name
	return h, nil
}

// eventText says what led to a callback where the point alone does not: the
// signal, or why a frame dropped.
func eventText(e lifecycle.Event) string {
	var r nicshadow.Record
	if e.Point == lifecycle.Violation && json.Unmarshal(e.Record, &r) == nil {
		return r.Verdict + ": " + why(r)
	}
	return e.Signal
}
