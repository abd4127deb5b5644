package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
)

// A tape records calls in their order, and makes the named ones fail.
type tape struct {
	mu    sync.Mutex
	calls []string
	fail  map[string]error
}

// note records a call and returns the error it is to fail with.
func (t *tape) note(format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = append(t.calls, call)
	return t.fail[call]
}

func (t *tape) list() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.calls)
}

// A fakeRuntime makes containers of nothing.
type fakeRuntime struct {
	*tape
	t    *testing.T
	mu   sync.Mutex
	live map[string]*fakeInstance
	all  map[string]*fakeInstance
	// onCreate prepares an instance before anybody uses it.
	onCreate func(*fakeInstance)
}

func (r *fakeRuntime) Plan(c lifecycle.RuntimeConfig) (json.RawMessage, error) {
	name := filepath.Base(c.ID)
	return json.Marshal("plan " + name)
}

func (r *fakeRuntime) Create(_ context.Context, c lifecycle.RuntimeConfig) (lifecycle.Instance, error) {
	name := filepath.Base(c.ID)
	if err := r.note("create %s", name); err != nil {
		return nil, err
	}
	i := &fakeInstance{r: r, name: name, c: c, pid: 1 << 22, done: make(chan struct{})}
	for n := range i.stdio {
		if f := c.Stdio[n]; f != nil {
			fd, err := syscall.Dup(int(f.Fd()))
			if err != nil {
				return nil, err
			}
			i.stdio[n] = os.NewFile(uintptr(fd), f.Name())
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i.pid += len(r.all)
	r.live[name], r.all[name] = i, i
	if r.onCreate != nil {
		r.onCreate(i)
	}
	return i, nil
}

func (r *fakeRuntime) Reap(_ context.Context, record json.RawMessage) error {
	return r.note("reap %s", record)
}

func (r *fakeRuntime) instance(name string) *fakeInstance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[name]
}

// A fakeInstance is a container of a fakeRuntime. It exits when it is told to.
type fakeInstance struct {
	r       *fakeRuntime
	name    string
	c       lifecycle.RuntimeConfig
	pid     int
	stdio   [3]*os.File
	deaf    bool                    // signals change nothing
	ignores bool                    // and it is known
	onStart func(i *fakeInstance)   // called by Start
	onExec  func(args []string) int // its exit status; -1: runs until killed

	once   sync.Once
	done   chan struct{}
	status lifecycle.ExitStatus

	mu       sync.Mutex
	oomKills uint64
}

func (i *fakeInstance) exit(st lifecycle.ExitStatus) {
	i.once.Do(func() {
		i.status = st
		for _, f := range i.stdio {
			if f != nil {
				f.Close()
			}
		}
		close(i.done)
	})
}

func (i *fakeInstance) Pid() int                           { return i.pid }
func (i *fakeInstance) NetNS() (*os.File, error)           { return os.Open(os.DevNull) }
func (i *fakeInstance) Listens(uint16, bool) (bool, error) { return false, nil }
func (i *fakeInstance) Record() (json.RawMessage, error) {
	return json.Marshal("record " + i.name)
}
func (i *fakeInstance) Prepare(context.Context) error { return i.r.note("prepare %s", i.name) }
func (i *fakeInstance) Start(context.Context) error {
	err := i.r.note("start %s", i.name)
	if err == nil && i.onStart != nil {
		i.onStart(i)
	}
	return err
}
func (i *fakeInstance) Wait() (lifecycle.ExitStatus, error) {
	<-i.done
	return i.status, i.r.fail["wait "+i.name]
}
func (i *fakeInstance) Signal(sig syscall.Signal) error {
	err := i.r.note("signal %s %d", i.name, sig)
	if err == nil && !i.deaf && !i.ignores {
		i.exit(lifecycle.ExitStatus{Signal: sig})
	}
	return err
}
func (i *fakeInstance) Ignores(syscall.Signal) bool { return i.ignores }
func (i *fakeInstance) Kill() error {
	err := i.r.note("kill %s", i.name)
	i.exit(lifecycle.ExitStatus{Signal: syscall.SIGKILL})
	return err
}
func (i *fakeInstance) Exec(_ context.Context, c lifecycle.ExecConfig) (lifecycle.Process, error) {
	if err := i.r.note("exec %s %s", i.name, strings.Join(c.Args, " ")); err != nil {
		return nil, err
	}
	p := &fakeProcess{done: make(chan struct{})}
	st := 0
	if i.onExec != nil {
		st = i.onExec(c.Args)
	}
	if c.Stdio[1] != nil {
		fmt.Fprintf(c.Stdio[1], "%s says %s\n", i.name, c.Args[0])
	}
	if st >= 0 {
		p.exit(lifecycle.ExitStatus{Code: st})
	}
	return p, nil
}
func (i *fakeInstance) Stats() (lifecycle.Stats, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return lifecycle.Stats{Pids: 1, OOMKills: i.oomKills}, nil
}
func (i *fakeInstance) Destroy() error {
	err := i.r.note("destroy %s", i.name)
	i.exit(lifecycle.ExitStatus{Signal: syscall.SIGKILL})
	i.r.mu.Lock()
	defer i.r.mu.Unlock()
	delete(i.r.live, i.name)
	return err
}

type fakeProcess struct {
	once   sync.Once
	done   chan struct{}
	status lifecycle.ExitStatus
}

func (p *fakeProcess) exit(st lifecycle.ExitStatus) {
	p.once.Do(func() { p.status = st; close(p.done) })
}
func (p *fakeProcess) Pid() int                            { return 1 << 22 }
func (p *fakeProcess) Wait() (lifecycle.ExitStatus, error) { <-p.done; return p.status, nil }
func (p *fakeProcess) Signal(sig syscall.Signal) error {
	p.exit(lifecycle.ExitStatus{Signal: sig})
	return nil
}

// A fakeNetwork knows what it was told.
type fakeNetwork struct {
	*tape
	mu     sync.Mutex
	cards  map[string]*fakeCard
	closed int
}

type fakeCard struct {
	program string
	mode    string
}

func (n *fakeNetwork) Attach(_ context.Context, name string, _ *bundle.NIC, ns *os.File, program []byte, mode string) error {
	if ns == nil {
		return errors.New("no network namespace")
	}
	if err := n.note("attach %s", name); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cards[name] = &fakeCard{string(program), mode}
	return nil
}

func (n *fakeNetwork) change(name, call string, f func(*fakeCard)) error {
	if err := n.note("%s", call); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cards[name] == nil {
		return fmt.Errorf("%s: no such card", name)
	}
	f(n.cards[name])
	return nil
}

func (n *fakeNetwork) LoadPolicy(_ context.Context, name string, program []byte, mode string) error {
	return n.change(name, fmt.Sprintf("load %s %s %s", name, program, mode), func(c *fakeCard) { c.program, c.mode = string(program), mode })
}
func (n *fakeNetwork) SetMode(_ context.Context, name, mode string) error {
	return n.change(name, fmt.Sprintf("mode %s %s", name, mode), func(c *fakeCard) { c.mode = mode })
}
func (n *fakeNetwork) Stats(_ context.Context, name string) (json.RawMessage, error) {
	return json.RawMessage(`{"forwarded":7}`), n.tape.fail["stats "+name]
}
func (n *fakeNetwork) Detach(name string) error {
	err := n.note("detach %s", name)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cards, name)
	return err
}
func (n *fakeNetwork) Close() error {
	err := n.note("close network")
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed++
	return err
}

func (n *fakeNetwork) card(name string) fakeCard {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.cards[name]; c != nil {
		return *c
	}
	return fakeCard{}
}
