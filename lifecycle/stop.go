package lifecycle

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stop stops the containers one after the other, last in the file first: each
// gets its stop signal and, if it has not ended after timeout (0: its own), is
// killed with all its processes. A workload that is the first process of its
// pid namespace and neither handles nor blocks the signal is killed at once: the
// kernel would discard the signal. Stop returns when the pod has ended, or with
// ctx, which does not call the stopping off.
func (p *Pod) Stop(ctx context.Context, timeout time.Duration) error {
	p.beginStop(timeout)
	select {
	case <-p.down:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// beginStop starts stopping the containers, unless that has begun.
func (p *Pod) beginStop(timeout time.Duration) {
	p.mu.Lock()
	began := p.stopping
	p.stopping = true
	p.mu.Unlock()
	if began {
		return
	}
	p.journal.emit(Event{Type: EventPodStopping})
	go func() { // ends when the last workload has exited, before the pod does
		for _, c := range slices.Backward(p.containers) {
			if !c.hasExited() {
				c.journalStopping(nil)
			}
			t := timeout
			if t <= 0 {
				t = c.cfg.StopTimeout
			}
			c.terminate(t)
		}
	}()
}

// Kill kills all containers at once and does not wait.
func (p *Pod) Kill() {
	p.beginStop(0)
	p.kill()
	for _, c := range slices.Backward(p.containers) {
		c.kill()
	}
}

// Signal acts as the supervisor must when it is sent sig. The first SIGINT or
// SIGTERM stops the pod, the second kills it. SIGWINCH resizes the container's
// terminal. Others run the signal hooks of the containers that have some (SIGHUP
// the reload hooks too); a container alone in its pod and without such a hook
// gets the signal itself. A SIGHUP that nobody takes means that the terminal of
// a pod in the foreground has gone away: it stops the pod.
func (p *Pod) Signal(sig os.Signal) {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return
	}
	switch n {
	case unix.SIGINT, unix.SIGTERM:
		p.interrupt()
	case unix.SIGWINCH:
		for _, c := range p.containers {
			c.resize()
		}
	default:
		p.pass(n)
	}
}

// resize makes the container's terminal as large as the caller's.
func (c *Container) resize() {
	c.out.tty.resize()
	inst, err := c.instance(VerbSignal)
	if r, ok := inst.(interface{ Resized() }); ok && err == nil && c.out.tty != nil {
		go r.Resized() // soon done; nobody waits for it
	}
}

func (p *Pod) interrupt() {
	p.mu.Lock()
	p.signals++
	again := p.signals > 1
	p.mu.Unlock()
	if again {
		p.Kill()
	} else {
		p.beginStop(0)
	}
}

func (p *Pod) pass(sig syscall.Signal) {
	hooked := false
	for _, c := range p.containers {
		points := []Point{SignalPoint(sig)}
		if sig == unix.SIGHUP {
			points = append(points, Reload)
		}
		for _, point := range points {
			if c.hooked(point) {
				hooked = true
				e := c.at(point)
				e.Signal = signalName(sig)
				c.post(e)
			}
		}
	}
	switch {
	case hooked:
	case sig == unix.SIGHUP && !p.cfg.Detached && !p.takes(sig):
		p.beginStop(0)
	case len(p.containers) == 1:
		if err := p.containers[0].Signal(sig); err != nil {
			p.log.Debug("signal not passed on", "container", p.containers[0].name, "err", err)
		}
	}
}

// takes reports whether the pod is one workload that sig would reach.
func (p *Pod) takes(sig syscall.Signal) bool {
	if len(p.containers) != 1 {
		return false
	}
	inst, err := p.containers[0].instance(VerbSignal)
	return err == nil && !ignores(inst, sig)
}

// passed are the signals that [Run] hands to [Pod.Signal]. SIGPIPE is among
// them so that a reader of our output who goes away does not kill the
// supervisor; it is dropped.
var passed = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2,
	unix.SIGPIPE, unix.SIGALRM, unix.SIGTERM, unix.SIGWINCH,
}

// Run starts a pod and waits for it, with the signals of this process handed to
// [Pod.Signal]; one that ends the program calls a start in progress off. It
// returns what [Pod.Wait] does. The end of ctx stops the pod. If started is not
// nil it is called once every workload runs.
//
// The signals stay taken when Run returns: it is what a process does last, and
// giving one back would cost two switches of threads.
func Run(ctx context.Context, cfg PodConfig, started func(*Pod)) (code int, err error) {
	signals := make(chan os.Signal, 64)
	for _, sig := range passed {
		switch {
		case sig == unix.SIGHUP && signal.Ignored(sig): // nohup asks for what Notify would undo
		case sig == unix.SIGWINCH && !cfg.hasTerminal(): // nobody would be told, and it ends no process
		default:
			signal.Notify(signals, sig)
		}
	}
	if cfg.Signals != nil {
		go func() { // ends with the process: Run is what it does last
			for sig := range cfg.Signals {
				signals <- sig
			}
		}()
	}
	p, late, err := startInterruptible(ctx, cfg, signals)
	if err != nil {
		return 1, err
	}
	for _, sig := range late {
		p.Signal(sig)
	}
	if started != nil {
		started(p)
	}
	end := ctx.Done()
	for {
		select {
		case <-p.ended:
			return p.Wait()
		case <-end:
			p.beginStop(0)
			end = nil
		case sig := <-signals:
			if sig != unix.SIGPIPE {
				p.Signal(sig)
			}
		}
	}
}

// startInterruptible starts a pod; SIGINT, SIGTERM and SIGHUP meanwhile call it
// off. late are the signals that came in the meantime and did not: a workload runs,
// and can be heard, some milliseconds before its start has ended, and whoever stops
// it then found nothing left to call off.
func startInterruptible(ctx context.Context, cfg PodConfig, signals <-chan os.Signal) (p *Pod, late []os.Signal, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started, watched := make(chan struct{}), make(chan struct{})
	// Start stays on this goroutine, whose stack has grown to what it takes; the
	// other one ends when it returns.
	go func() {
		defer close(watched)
		for {
			select {
			case <-started:
				return
			case sig := <-signals:
				switch sig {
				case unix.SIGPIPE:
					continue
				case unix.SIGINT, unix.SIGTERM, unix.SIGHUP:
					cancel(&InterruptError{Signal: sig.(syscall.Signal)})
				}
				late = append(late, sig)
			}
		}
	}()
	p, err = Start(ctx, cfg)
	close(started)
	<-watched // the next signal is somebody else's
	return p, late, err
}

// An InterruptError says that a signal called off the start of a pod.
type InterruptError struct{ Signal syscall.Signal }

// Error names the signal.
func (e *InterruptError) Error() string { return "interrupted by " + unix.SignalName(e.Signal) }
