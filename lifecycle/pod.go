package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"sekimori/lifecycle/store"
)

// maxEvents is how long events.jsonl may grow; the generation before is kept.
const maxEvents = 10 << 20

// A Pod is a running pod, held by this process. Its methods may be called from
// several goroutines.
type Pod struct {
	cfg        PodConfig
	log        *slog.Logger
	runtime    Runtime
	dir        *store.Pod
	place      string // of the state directory: see store.Place
	journal    *journal
	control    *server
	reserved   *Reservation // nil if the containers came with the pod
	containers []*Container // in the order of the file
	outMu      sync.Mutex   // outMu is held while a line goes to the caller's output

	// ctx ends when the pod is killed: hooks of running containers are called
	// off then. It is not in any call's way otherwise.
	ctx  context.Context
	kill context.CancelFunc

	reports chan report   // what Violation was told
	missed  atomic.Uint64 // reports of no container of ours that found no room
	drain   sync.Once     // starts the goroutine that reads reports
	drained chan struct{} // closed when it has ended, or will never start

	down  chan struct{} // closed when nothing of the pod is left
	ended chan struct{} // closed when this process is done with it as well

	// saveMu guards the writing of the state, so that an older one never
	// replaces a newer.
	saveMu sync.Mutex
	state  store.State

	// mu guards the fields below.
	mu       sync.Mutex
	stopping bool
	signals  int // how many SIGINT and SIGTERM came
	code     int // exit code of the first container that failed
	errs     []error
}

// Start starts a pod. Cancelling ctx while it starts undoes everything; later
// it has no effect. Start takes over cfg.Network: it is closed when the pod has
// ended, and also if Start fails.
func Start(ctx context.Context, cfg PodConfig) (*Pod, error) {
	p, err := open(ctx, cfg)
	if err != nil {
		if cfg.Network != nil {
			err = errors.Join(err, cfg.Network.Close())
		}
		return nil, err
	}
	p.journal.emit(Event{Type: EventPodStarting})
	if err := p.bringUp(ctx); err != nil {
		return nil, errors.Join(err, p.undo())
	}
	if p.reserved != nil {
		close(p.reserved.began)
	} else {
		p.control.serve()
	}
	p.journal.emit(Event{Type: EventPodStarted})
	go p.end() // ends with the pod; ended is closed then
	return p, nil
}

// open checks the configuration and takes the name.
func open(ctx context.Context, cfg PodConfig) (*Pod, error) {
	cfg.Containers = slices.Clone(cfg.Containers)
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Reserved != nil {
		return cfg.Reserved.fill(cfg)
	}
	return take(ctx, cfg, nil)
}

// take takes the name, for a pod with containers or for a reservation.
func take(ctx context.Context, cfg PodConfig, r *Reservation) (*Pod, error) {
	p := &Pod{
		cfg: cfg, log: cfg.Log, runtime: cfg.Runtime, reserved: r,
		reports: make(chan report, maxReports), drained: make(chan struct{}),
		down: make(chan struct{}), ended: make(chan struct{}),
	}
	if p.runtime == nil {
		p.runtime = Host()
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if err := p.claim(); err != nil {
		return nil, err
	}
	events, err := p.dir.Append("events.jsonl", maxEvents)
	if err != nil {
		return nil, errors.Join(err, p.dir.Remove())
	}
	p.journal = newJournal(cfg.Name, events, p.log)
	if p.control, err = listen(p); err != nil {
		return nil, errors.Join(err, p.journal.close(), p.dir.Remove())
	}
	p.ctx, p.kill = context.WithCancel(context.WithoutCancel(ctx))
	return p, nil
}

// bringUp creates all containers, then starts all.
func (p *Pod) bringUp(ctx context.Context) error {
	for _, c := range p.containers {
		if err := c.create(ctx); err != nil {
			return err
		}
	}
	for _, c := range p.containers {
		if err := c.start(ctx); err != nil {
			return err
		}
	}
	return p.save()
}

// undo removes what bringUp made, last container first. What is left, and what
// else went wrong, is the error.
func (p *Pod) undo() error {
	p.mu.Lock()
	p.stopping = true
	p.mu.Unlock()
	p.kill()
	for _, c := range slices.Backward(p.containers) {
		switch {
		case c.supervised:
			c.kill()
			<-c.gone
		case c.Status() == Running || c.ExitStatus() >= 0:
			c.kill()
			<-c.exited
			c.tearDown()
		default:
			c.tearDown()
		}
	}
	p.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.errs...)
}

// end waits for all containers and then closes the pod.
func (p *Pod) end() {
	for _, c := range p.containers {
		<-c.gone
	}
	p.kill() // nothing is left to call off; this frees the context
	p.close()
}

// close ends what is left when all containers are gone.
func (p *Pod) close() {
	p.control.stopListening()
	if p.cfg.Network != nil {
		if err := p.cfg.Network.Close(); err != nil {
			p.fail(fmt.Errorf("close network: %w", err))
		}
	}
	p.stopReports()
	code := p.exitCode()
	p.journal.emit(Event{Type: EventPodStopped, Status: &code})
	p.journal.close()
	p.leave(code)
	close(p.down)
	p.control.close()
	close(p.ended)
}

// fail notes why the pod will not have ended well.
func (p *Pod) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, err)
}

// noteExit takes the exit status of a container into the pod's.
func (p *Pod) noteExit(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.code == 0 && (len(p.containers) == 1 || !p.stopping) {
		p.code = status
	}
}

func (p *Pod) exitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.code == 0 && len(p.errs) > 0 {
		return 1
	}
	return p.code
}

// SupervisorLog makes the file that a supervisor in the background writes its
// own diagnostics to, for [Reporter.Started]; the caller closes it.
func (p *Pod) SupervisorLog() (*os.File, error) { return p.dir.Create("supervisor.log") }

// Name of the pod.
func (p *Pod) Name() string { return p.cfg.Name }

// Container returns the container of that name, or nil.
func (p *Pod) Container(name string) *Container {
	for _, c := range p.containers {
		if c.name == name {
			return c
		}
	}
	return nil
}

// Containers are the containers' names in the order of the file.
func (p *Pod) Containers() []string {
	var names []string
	for _, c := range p.containers {
		names = append(names, c.name)
	}
	return names
}

// Subscribe returns a channel of the events from now on, with room for n. A
// receiver that falls behind misses some (Seq shows it); the channel is closed
// at the end of the pod or by cancel, which must be called.
func (p *Pod) Subscribe(n int) (events <-chan Event, cancel func()) { return p.journal.subscribe(n) }

// Wait returns when the pod has ended and nothing of it is left.
//
// The code is that of its container: its exit code, or 128+n if signal n killed
// it. With several containers it is 0 if each exited with 0 or was stopped by
// [Pod.Stop], and else the code of the first, in time, that did not. If the pod
// came to an end because of a hook or a probe, or something of it could not be
// removed, err says so and code is not 0.
func (p *Pod) Wait() (code int, err error) {
	<-p.ended
	code = p.exitCode()
	p.mu.Lock()
	defer p.mu.Unlock()
	return code, errors.Join(p.errs...)
}
