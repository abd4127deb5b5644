package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/store"
)

// A Reservation is a pod that has a machine and no containers yet: these come with
// an [Order], and [Start] makes them if it is given the reservation. Until then the
// pod can be asked whether it is there, to stop, and to run a program in the machine.
type Reservation struct {
	pod     *Pod
	orders  chan *Order   // has room for one
	stopped chan struct{} // closed when somebody asked the pod to stop
	stop    sync.Once
	began   chan struct{} // closed when the containers run

	// mu guards the fields below.
	mu    sync.Mutex
	taken bool // an order is being carried out
	used  bool // Start was given the reservation
}

// Reserve takes the name of a pod whose machine is Runtime's and has not been
// started. cfg has no containers, and the fields that tell of them are not used.
func Reserve(ctx context.Context, cfg PodConfig) (*Reservation, error) {
	if !store.ValidName(cfg.Name) {
		return nil, fmt.Errorf("pod name %q: want %s", cfg.Name, store.NameRule)
	}
	r := &Reservation{orders: make(chan *Order, 1), stopped: make(chan struct{}), began: make(chan struct{})}
	p, err := take(ctx, cfg, r)
	if err != nil {
		return nil, err
	}
	r.pod = p
	p.control.serve()
	return r, nil
}

// Machine is what a [Machine] must know to start before there is a container: as
// of one, but with no specification.
func (r *Reservation) Machine() RuntimeConfig { return r.pod.machineConfig(r.pod.state.Held.IDBase) }

func (p *Pod) machineConfig(idBase uint32) RuntimeConfig {
	return RuntimeConfig{ID: p.cfg.Name + "/" + MachineName, Place: p.place, IDBase: idBase, Log: p.log, Append: p.appendTo}
}

// Orders are what the containers come with, one at a time.
func (r *Reservation) Orders() <-chan *Order { return r.orders }

// Stopped is closed when the pod was asked to stop.
func (r *Reservation) Stopped() <-chan struct{} { return r.stopped }

// SupervisorLog is as of a Pod.
func (r *Reservation) SupervisorLog() (*os.File, error) { return r.pod.SupervisorLog() }

// Refused tells that the last order came to nothing, before Start: another may
// come.
func (r *Reservation) Refused() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken = false
}

// Used reports whether Start was given the reservation, which ends with the pod then.
func (r *Reservation) Used() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

// Close ends the pod, whose machine has ended, unless Start was given the
// reservation. cause is why, if nobody had asked for it: then the pod's records
// stay, as those of [PodConfig].Keep do.
func (r *Reservation) Close(cause error) error {
	if r.Used() {
		return nil
	}
	p := r.pod
	p.kill()
	p.control.stopListening()
	code := 0
	e := Event{Type: EventPodStopped, Status: &code}
	if cause != nil {
		code, e.Error = 1, cause.Error()
		p.cfg.Keep, p.state.Keep = true, true
	}
	p.journal.emit(e)
	p.journal.close()
	p.leave(code)
	close(p.down)
	p.control.close()
	close(p.ended)
	return errors.Join(p.errs...)
}

// fill gives the pod its containers.
func (r *Reservation) fill(cfg PodConfig) (*Pod, error) {
	r.mu.Lock()
	r.used = true
	r.mu.Unlock()
	p := r.pod
	// Whoever asks on the socket waits until the containers run.
	cfg.Name, cfg.Runtime, cfg.Root = p.cfg.Name, p.runtime, p.cfg.Root
	p.cfg = cfg
	s, err := store.Open(rootOr(cfg.Root))
	if err == nil {
		defer s.Close()
		p.state.Source, p.state.Keep, p.state.Network, p.state.Created = cfg.Source, cfg.Keep, cfg.NetworkRecord, time.Now()
		p.name(&p.state)
		err = s.Fill(p.dir, &p.state, p.plan)
	}
	if err != nil {
		p.cfg.Network = nil // its end is the caller's, as of any pod that could not be opened
		p.containers = nil
		p.close()
	}
	return p, err
}

// first serves what may be asked of a pod that waits for its containers, and says
// whether that was all. Of one that gets them it waits until they run.
func (r *Reservation) first(s *server, w *wire, req *request) (done bool) {
	r.mu.Lock()
	taken := r.taken
	if req.Verb == ctlRun && len(w.files) == maxFiles {
		r.taken = true
	}
	r.mu.Unlock()
	name := r.pod.dir.Name()
	switch {
	case req.Verb == ctlRun && taken:
		s.answer(w, nil, fmt.Errorf("pod %q: another run has its machine", name))
	case req.Verb == ctlRun && len(w.files) != maxFiles:
		s.answer(w, nil, fmt.Errorf("run: came with %d files, want %d", len(w.files), maxFiles))
	case req.Verb == ctlRun:
		if s.answer(w, nil, nil) != nil {
			r.Refused()
			return true
		}
		r.orders <- newOrder(w, req.Run, s.pod.log)
	case taken:
		select {
		case <-r.began:
			return false
		case <-r.pod.down:
			s.answer(w, nil, fmt.Errorf("pod %q: has ended", name))
		}
	case req.Verb == ctlPing:
		s.answer(w, nil, nil)
	case req.Verb == ctlStop || req.Verb == ctlKill:
		r.stop.Do(func() { close(r.stopped) })
		<-r.pod.down
		s.answer(w, nil, nil)
	case req.Verb == ctlExec && req.Container == MachineName:
		return false
	default:
		s.answer(w, nil, fmt.Errorf("pod %q: is a machine without containers\n    seki run --warm %[1]s FILE", name))
	}
	return true
}

// An Order is a client's wish that containers run in a machine that waits for them.
type Order struct {
	Args  []string    // the command line, without the program's name
	Dir   string      // the working directory
	Stdio [3]*os.File // the client's standard input, output and error; the receiver closes them
	// Signals are those that the client was sent, for [PodConfig].Signals. If it goes
	// away before Done, SIGTERM is the last.
	Signals <-chan os.Signal

	wire *wire
	once sync.Once
	done chan struct{} // closed by Done
}

// newOrder takes the connection over.
func newOrder(w *wire, req *runRequest, log *slog.Logger) *Order {
	signals := make(chan os.Signal, 64)
	o := &Order{
		Args: req.Args, Dir: req.Dir, Stdio: [3]*os.File(w.files), Signals: signals,
		wire: &wire{conn: w.conn, max: w.max, buf: w.buf}, done: make(chan struct{}),
	}
	w.conn, w.files = nil, nil
	go o.listen(signals, log) // ends with the connection
	return o
}

func (o *Order) listen(signals chan<- os.Signal, log *slog.Logger) {
	defer o.wire.close()
	for {
		line, err := o.wire.read()
		if err != nil {
			break
		}
		req, err := decodeRequest(line)
		if err != nil || req.Verb != ctlSignal || len(o.wire.files) > 0 {
			log.Warn("control socket: unexpected message", "err", err)
			break
		}
		select {
		case signals <- syscall.Signal(req.Signal):
		default: // as a process that does not get round to its signals
		}
	}
	select {
	case <-o.done:
		return
	default:
	}
	select {
	case signals <- unix.SIGTERM:
	default:
	}
}

// Done tells the client how its order ended, the first time.
func (o *Order) Done(code int) error {
	var err error
	o.once.Do(func() {
		close(o.done)
		o.wire.conn.SetWriteDeadline(time.Now().Add(replyTimeout))
		err = o.wire.write(&reply{OK: true, Exit: &exitReply{Code: code}})
		o.wire.conn.Close()
	})
	return err
}

// Reporter tells the client, as one in the foreground, that its pod runs.
func (o *Order) Reporter() *Reporter {
	return &Reporter{func(startReport) error { return o.Done(0) }}
}
