package lifecycle

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/store"
)

// A Container is one container of a running pod. Its methods may be called from
// several goroutines, and from hooks.
type Container struct {
	pod    *Pod
	cfg    *Config
	name   string
	idBase uint32
	mail   *mailbox
	out    *output
	missed atomic.Uint64 // violations that have not been recorded

	exited chan struct{} // closed when the workload has exited
	gone   chan struct{} // closed when nothing of it is left

	// Only the goroutine of Start uses these.
	supervised bool

	// mu guards the fields below.
	mu                         sync.Mutex
	status                     Status
	inst                       Instance // nil before create
	record                     []byte   // what Reap would need now
	exit                       *ExitStatus
	created, started, finished time.Time
	removed                    bool
	oomSeen                    uint64

	// execMu is held for reading while a process is made in the container, and
	// for writing while the container is destroyed: the descriptor by which the
	// one joins must not become another's through the other.
	execMu sync.RWMutex

	// policyMu guards the fields below, and orders the changes of the policy.
	// It is taken before mu.
	policyMu sync.Mutex
	attached bool
	program  []byte
	mode     string
}

func newContainer(p *Pod, cfg *Config, idBase uint32) *Container {
	return &Container{
		pod: p, cfg: cfg, name: cfg.Spec.Name, idBase: idBase,
		mail: newMailbox(), out: newOutput(),
		exited: make(chan struct{}), gone: make(chan struct{}),
		status: Creating, program: cfg.Program, mode: cfg.Mode,
	}
}

// Name of the container.
func (c *Container) Name() string { return c.name }

// Pod it belongs to.
func (c *Container) Pod() *Pod { return c.pod }

// Status is where it is in its life.
func (c *Container) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Pid is its first process in the host's pid namespace, 0 if there is none.
func (c *Container) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inst == nil || c.status == Stopped {
		return 0
	}
	return c.inst.Pid()
}

// ExitStatus is its exit code, 128+n if signal n killed it, -1 if it has not
// exited.
func (c *Container) ExitStatus() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exit == nil {
		return -1
	}
	return c.exit.Status()
}

// Stats are its figures now.
func (c *Container) Stats() (Stats, error) {
	inst, err := c.instance(VerbStats)
	if err != nil {
		return Stats{}, err
	}
	return inst.Stats()
}

// Signal sends sig to the workload.
func (c *Container) Signal(sig syscall.Signal) error {
	inst, err := c.instance(VerbSignal)
	if err != nil {
		return err
	}
	if err := inst.Signal(sig); err != nil {
		return fmt.Errorf("container %q: signal %s: %w", c.name, unix.SignalName(sig), err)
	}
	c.pod.journal.emit(Event{Type: EventSignal, Container: c.name, Signal: signalName(sig)})
	return nil
}

// Log records a message of a hook as an event.
func (c *Container) Log(msg string, fields map[string]string) {
	c.pod.journal.emit(Event{Type: EventLog, Container: c.name, Message: msg, Fields: fields})
}

// require returns a [*StatusError] if the status forbids v.
func (c *Container) require(v Verb) error {
	_, err := c.instance(v)
	return err
}

// instance returns the container's Instance if the status allows v.
func (c *Container) instance(v Verb) (Instance, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.status.Allows(v) {
		return nil, &StatusError{Verb: v, ID: c.name, Have: c.status}
	}
	return c.inst, nil
}

// advance moves the container on after v, which its status must allow.
func (c *Container) advance(v Verb, to Status) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.status.Allows(v) {
		return &StatusError{Verb: v, ID: c.name, Have: c.status}
	}
	c.status = to
	return nil
}

// kill ends all its processes, if there are any. The error does not matter: if
// processes remain, Destroy says so.
func (c *Container) kill() {
	c.mu.Lock()
	inst, done := c.inst, c.status == Stopped
	c.mu.Unlock()
	if inst != nil && !done {
		inst.Kill()
	}
}

func (c *Container) hasExited() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// signalName is the name without SIG.
func signalName(sig syscall.Signal) string {
	if sig == 0 {
		return ""
	}
	if n := unix.SignalName(sig); n != "" {
		return n[len("SIG"):]
	}
	return fmt.Sprint(int(sig))
}

// describe writes down what state.json says of the container.
func (c *Container) describe(s *store.Container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Name, s.Status, s.IDBase = c.name, string(c.status), c.idBase
	s.Created, s.Started, s.Finished = c.created, c.started, c.finished
	s.Record, s.Gone, s.Pid = c.record, c.removed, 0
	if c.inst != nil && c.status != Stopped {
		s.Pid = c.inst.Pid()
	}
	if c.exit != nil {
		s.ExitStatus = ptr(c.exit.Status())
	}
}

func (c *Container) isRemoved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.removed
}
