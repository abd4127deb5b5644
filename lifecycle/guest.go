package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"sekimori/lifecycle/agent"
	"sekimori/lifecycle/linux"
)

// A Machine is where the containers of [Guest] are.
type Machine interface {
	// Place says what the guest has of a container: its agent, and the container
	// as the guest is to see it, with paths of its own; everything but the
	// streams. It is asked when the first container is to be made, so the
	// machine may boot then.
	Place(context.Context, RuntimeConfig) (*agent.Client, agent.CreateConfig, error)
	// Agent is the machine's, if it runs.
	Agent() (*agent.Client, error)
	// Kill ends the machine, whatever it does; why is for people.
	Kill(why string)
	// Cgroups are the host's cgroups that the machine is going to be in, which
	// is all that a killed supervisor may leave of it.
	Cgroups(RuntimeConfig) []string
}

// Guest is the runtime of containers in a machine. They end with it.
func Guest(m Machine) Runtime { return guest{m} }

type guest struct{ Machine }

func (g guest) Plan(c RuntimeConfig) (json.RawMessage, error) {
	return json.Marshal(linux.RecordOf(c.ID, g.Cgroups(c)))
}

func (guest) Reap(ctx context.Context, record json.RawMessage) error {
	return Host().Reap(ctx, record)
}

func (g guest) Create(ctx context.Context, c RuntimeConfig) (Instance, error) {
	_, name, _ := strings.Cut(c.ID, "/")
	a, cfg, err := g.Place(ctx, c)
	if err != nil {
		return nil, err
	}
	cfg.Name, cfg.ID, cfg.Stdio = name, c.ID, c.Stdio
	k, err := a.Create(ctx, cfg)
	if err != nil {
		return nil, err
	}
	record, err := g.Plan(c)
	if err != nil {
		k.Destroy()
		return nil, err
	}
	return &guestInstance{Container: k, machine: g.Machine, record: record, ended: make(chan struct{})}, nil
}

// A guestInstance is a container of a machine in the words of this package.
type guestInstance struct {
	*agent.Container
	machine Machine
	record  json.RawMessage
	ended   chan struct{} // closed when Wait has returned, or Destroy
	end     sync.Once     // closes it
	kill    sync.Once
}

func (i *guestInstance) Pid() int { return i.Container.Pid() }

// NetNS is nil: the namespace is the guest's.
func (i *guestInstance) NetNS() (*os.File, error) { return nil, nil }

func (i *guestInstance) Record() (json.RawMessage, error) { return i.record, nil }

func (i *guestInstance) Wait() (ExitStatus, error) {
	defer i.end.Do(func() { close(i.ended) })
	st, err := i.Container.Wait()
	return ExitStatus(st), err
}

// killTimeout is how long a guest may take to end a container that it was told to kill,
// from when it was told.
const killTimeout = 15 * time.Second

// Kill has the agent end all processes of the container. A guest that does not, for
// it stands still or somebody owns it, is ended itself: its word is not needed.
func (i *guestInstance) Kill() error {
	i.kill.Do(func() {
		over := time.AfterFunc(killTimeout, func() { i.machine.Kill("its guest was told to kill a container, and has not") })
		go func() { // ends with the container, which that sees to
			if errors.Is(i.Container.Kill(), agent.ErrNoAnswer) {
				over.Reset(0)
			}
			<-i.ended
			over.Stop()
		}()
	})
	return nil
}

func (i *guestInstance) Destroy() error {
	defer i.end.Do(func() { close(i.ended) }) // nobody waits for what was never started
	return i.Container.Destroy()
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

// MachineName stands for the machine itself where a container is named.
const MachineName = "(machine)"

// execInMachine runs a process in the pod's machine, outside its containers.
func (p *Pod) execInMachine(ctx context.Context, e ExecConfig) (Process, error) {
	g, ok := p.runtime.(guest)
	if !ok {
		return nil, fmt.Errorf("pod %q: runs on the host's own kernel", p.cfg.Name)
	}
	a, err := g.Agent()
	if err != nil {
		return nil, err
	}
	k, err := a.Exec(ctx, linux.ExecConfig(e))
	if err != nil {
		return nil, err
	}
	x := guestProcess{k}
	p.journal.emit(Event{Type: EventExec, Args: e.Args, Pid: x.Pid()})
	context.AfterFunc(ctx, func() { x.Signal(syscall.SIGKILL) })
	return x, nil
}

// Touch marks that the hook whose context is ctx changed this container's
// policy, for one that runs elsewhere and changed it there; see [Hook].
func (c *Container) Touch(ctx context.Context) { touch(ctx, c) }

// NotePolicy records that the agent of the container's machine put a program
// and a mode in force, by hypercalls that took so long. A nil program is the
// one in force before.
func (c *Container) NotePolicy(program []byte, mode string, took time.Duration) {
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	t := EventPolicyMode
	if program != nil {
		c.program, t = program, EventPolicyLoad
	}
	c.mode = mode
	e := Event{Type: t, Container: c.name, Mode: mode, DurationNS: int64(took)}
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
