package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"time"
)

// A Pod is a running pod, held by this process. Its methods may be called from
// several goroutines.
type Pod struct{ cfg PodConfig }

// Start starts a pod. Cancelling ctx while it starts undoes everything; later
// it has no effect. Start takes over cfg.Network: it is closed when the pod has
// ended, and also if Start fails.
func Start(ctx context.Context, cfg PodConfig) (*Pod, error) { return nil, errors.ErrUnsupported }

// Run starts a pod and waits for it, with the signals of this process handed to
// [Pod.Signal]. It returns what [Pod.Wait] does. The end of ctx stops the pod.
// If started is not nil it is called once every workload runs.
func Run(ctx context.Context, cfg PodConfig, started func(*Pod)) (code int, err error) {
	return 1, errors.ErrUnsupported
}

// Name of the pod.
func (p *Pod) Name() string { return p.cfg.Name }

// Wait returns when the pod has ended and nothing of it is left.
//
// The code is that of its container: its exit code, or 128+n if signal n killed
// it. With several containers it is 0 if each exited with 0 or was stopped by
// [Pod.Stop], and else the code of the first, in time, that did not. If the pod
// came to an end because of a hook or a probe, or something of it could not be
// removed, err says so and code is not 0.
func (p *Pod) Wait() (code int, err error) { return 1, errors.ErrUnsupported }

// Stop stops the containers one after the other, last in the file first: each
// gets its stop signal and, if it has not ended after timeout (0: its own), is
// killed with all its processes. A workload that is the first process of its
// pid namespace and neither handles nor blocks the signal is killed at once: the
// kernel would discard the signal. Stop returns when the pod has ended.
func (p *Pod) Stop(ctx context.Context, timeout time.Duration) error { return errors.ErrUnsupported }

// Kill kills all containers at once and does not wait.
func (p *Pod) Kill() {}

// Signal acts as the supervisor must when it is sent sig. The first SIGINT or
// SIGTERM stops the pod, the second kills it. Others run the signal hooks of the
// containers that have some (SIGHUP the reload hooks too); a container alone in
// its pod and without such a hook gets the signal itself.
func (p *Pod) Signal(sig os.Signal) {}

// Container returns the container of that name, or nil.
func (p *Pod) Container(name string) *Container { return nil }

// Containers are the containers' names in the order of the file.
func (p *Pod) Containers() []string { return nil }

// Subscribe returns a channel of the events from now on, with room for n. A
// receiver that falls behind misses some (Seq shows it); the channel is closed
// at the end of the pod or by cancel, which must be called.
func (p *Pod) Subscribe(n int) (events <-chan Event, cancel func()) { return nil, nil }

// Violation reports frames that were dropped, or would have been, of the named
// container: an event, and its violation hooks. The record is JSON, kept as it
// is. It never blocks: what comes in faster than it can be recorded is counted.
func (p *Pod) Violation(name string, record json.RawMessage) {}

// A Container is one container of a running pod. Its methods may be called from
// several goroutines, and from hooks.
type Container struct{ pod *Pod }

// Name of the container.
func (c *Container) Name() string { return "" }

// Pod it belongs to.
func (c *Container) Pod() *Pod { return c.pod }

// Status is where it is in its life.
func (c *Container) Status() Status { return "" }

// Pid is its first process in the host's pid namespace, 0 if there is none.
func (c *Container) Pid() int { return 0 }

// ExitStatus is its exit code, 128+n if signal n killed it, -1 if it has not
// exited.
func (c *Container) ExitStatus() int { return -1 }

// LoadPolicy replaces the program that judges its frames.
func (c *Container) LoadPolicy(ctx context.Context, program []byte) error {
	return errors.ErrUnsupported
}

// SetMode sets the mode of its policy, [Enforce] or [Audit].
func (c *Container) SetMode(ctx context.Context, mode string) error { return errors.ErrUnsupported }

// NetworkStats are the counters of its network card, as JSON; null without one.
func (c *Container) NetworkStats(ctx context.Context) (json.RawMessage, error) {
	return nil, errors.ErrUnsupported
}

// Stats are its figures now.
func (c *Container) Stats() (Stats, error) { return Stats{}, errors.ErrUnsupported }

// Signal sends sig to the workload.
func (c *Container) Signal(sig syscall.Signal) error { return errors.ErrUnsupported }

// Exec starts one more process in it. If ctx ends, the process is killed.
func (c *Container) Exec(ctx context.Context, e ExecConfig) (Process, error) {
	return nil, errors.ErrUnsupported
}

// An ExecResult is what a command in a container left.
type ExecResult struct {
	Status         int // exit code, 128+n for signal n
	Stdout, Stderr string
}

// Output runs a command in it and waits. At most 1 MiB of each output is kept.
func (c *Container) Output(ctx context.Context, args []string) (ExecResult, error) {
	return ExecResult{}, errors.ErrUnsupported
}

// Log records a message of a hook as an event and in the supervisor's log.
func (c *Container) Log(msg string, fields map[string]string) {}

// A CleanUpConfig says where dead pods may be.
type CleanUpConfig struct {
	Root    string  // empty is DefaultRoot
	Runtime Runtime // nil is Host
	// Network removes what the data path of a dead supervisor left on the
	// host; it gets PodConfig.NetworkRecord. Nil if there is nothing to do.
	Network func(ctx context.Context, pod string, record json.RawMessage) error
	Log     *slog.Logger // nil discards
}

// CleanUp removes what dead supervisors left under a state directory and
// returns the names of the pods it removed. It is idempotent, leaves living pods
// alone, and runs nothing of the user's. A state directory that does not exist
// is clean.
func CleanUp(ctx context.Context, c CleanUpConfig) ([]string, error) { return nil, nil }
