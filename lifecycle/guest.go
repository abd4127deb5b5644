package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"

	"sekimori/lifecycle/agent"
	"sekimori/lifecycle/linux"
)

// Guest is the runtime of containers in a machine. place says what the guest
// has of a container: its agent, and the container as the guest is to see it,
// with paths of its own; everything but the streams. It is asked when the first
// container is to be made, so that the machine may boot while the pod is being
// claimed. Containers end with their machine, so that none is left behind.
func Guest(place func(context.Context, RuntimeConfig) (*agent.Client, agent.CreateConfig, error)) Runtime {
	return guest{place}
}

type guest struct {
	place func(context.Context, RuntimeConfig) (*agent.Client, agent.CreateConfig, error)
}

func (guest) Plan(RuntimeConfig) (json.RawMessage, error) { return json.RawMessage("null"), nil }
func (guest) Reap(context.Context, json.RawMessage) error { return nil }
func (g guest) Create(ctx context.Context, c RuntimeConfig) (Instance, error) {
	_, name, _ := strings.Cut(c.ID, "/")
	a, cfg, err := g.place(ctx, c)
	if err != nil {
		return nil, err
	}
	cfg.Name, cfg.ID, cfg.Stdio = name, c.ID, c.Stdio
	k, err := a.Create(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &guestInstance{k}, nil
}

// A guestInstance is a container of a machine in the words of this package.
type guestInstance struct{ *agent.Container }

func (i *guestInstance) Pid() int { return i.Container.Pid() }

// NetNS is nil: the namespace is the guest's.
func (i *guestInstance) NetNS() (*os.File, error) { return nil, nil }

func (i *guestInstance) Record() (json.RawMessage, error) { return json.RawMessage("null"), nil }

func (i *guestInstance) Wait() (ExitStatus, error) {
	st, err := i.Container.Wait()
	return ExitStatus(st), err
}

func (i *guestInstance) Exec(ctx context.Context, c ExecConfig) (Process, error) {
	p, err := i.Container.Exec(ctx, linux.ExecConfig(c))
	if err != nil {
		return nil, err
	}
	return guestProcess{p}, nil
}

func (i *guestInstance) Stats() (Stats, error) {
	s, err := i.Container.Stats()
	return Stats(s), err
}

// Resized is told that the terminal given to the container has another size: the
// kernel tells only the processes that it knows.
func (i *guestInstance) Resized() { i.Signal(syscall.SIGWINCH) }

type guestProcess struct{ *agent.Process }

func (p guestProcess) Wait() (ExitStatus, error) {
	st, err := p.Process.Wait()
	return ExitStatus(st), err
}

// Touch marks that the hook whose context is ctx changed this container's
// policy, for one that runs elsewhere and changed it there; see [Hook].
func (c *Container) Touch(ctx context.Context) { touch(ctx, c) }

// NotePolicy records that the agent of the container's machine put a program
// and a mode in force, by hypercall.
func (c *Container) NotePolicy(program []byte, mode string) {
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	t := EventPolicyMode
	if program != nil {
		c.program, t = program, EventPolicyLoad
	}
	c.mode = mode
	e := Event{Type: t, Container: c.name, Mode: mode}
	if program != nil {
		e.Program = programID(program)
	}
	c.pod.journal.emit(e)
}

// NoteAgent records an event that the agent of the container's machine sent. It
// may tell of what callbacks log and execute, and of nothing else.
func (c *Container) NoteAgent(raw json.RawMessage) error {
	var e Event
	if err := decodeStrict(raw, &e); err != nil {
		return err
	}
	switch e.Type {
	case EventLog:
		e = Event{Type: e.Type, Message: e.Message, Fields: e.Fields}
	case EventExec, EventExecExit:
		e = Event{Type: e.Type, Pid: e.Pid, Args: e.Args, Status: e.Status, Signal: e.Signal, Error: e.Error}
	default:
		return fmt.Errorf("event %.64q: not the agent's to tell", e.Type)
	}
	e.Container = c.name
	c.pod.journal.emit(e)
	return nil
}
