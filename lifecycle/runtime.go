package lifecycle

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"syscall"

	"sekimori/lifecycle/bundle"
)

// A Runtime makes containers of one kind. [Host] is the one that uses the
// kernel seki itself runs on.
type Runtime interface {
	// Create makes the container's processes in their namespaces, waiting.
	Create(ctx context.Context, c RuntimeConfig) (Instance, error)
	// Reap removes what a dead supervisor left of one container. It is
	// idempotent, and runs nothing of the workload. The record is what
	// [Runtime.Plan] or [Instance.Record] returned.
	Reap(ctx context.Context, record json.RawMessage) error
	// Plan returns the record of a container that is about to be created. It is
	// on disk before Create is called, so that a supervisor killed within
	// Create leaves nothing that Reap cannot find.
	Plan(c RuntimeConfig) (json.RawMessage, error)
}

// A RuntimeConfig is what a [Runtime] needs to know of a container.
type RuntimeConfig struct {
	ID     string       // POD/CONTAINER
	Place  string       // where the pod's name is taken: in another place, another pod may have it
	Spec   *bundle.Spec // never written to
	Stdio  [3]*os.File  // the caller's; nil is /dev/null
	IDBase uint32       // host user and group id of the container's id 0; 65536 of them are its own
	Log    *slog.Logger // not nil
	// Append opens a file of the pod's state directory to write to; what makes
	// it longer than its bound begins it anew.
	Append func(name string) (io.WriteCloser, error)
}

// An Instance is one container of a [Runtime].
type Instance interface {
	// Pid of the container's first process, in the host's pid namespace.
	Pid() int
	// NetNS opens its network namespace; the caller closes it. It is nil where
	// the namespace is a guest's: then the pod's [Network] knows the way.
	NetNS() (*os.File, error)
	// Record says all that Reap needs, as JSON.
	Record() (json.RawMessage, error)
	// Prepare sets up the root file system.
	Prepare(ctx context.Context) error
	// Start executes the workload; it returns when execve has succeeded.
	Start(ctx context.Context) error
	// Wait returns when the workload has exited. It is called once.
	Wait() (ExitStatus, error)
	// Signal sends sig to the workload, Kill ends all its processes.
	Signal(sig syscall.Signal) error
	Kill() error
	// Exec runs one more process in the container.
	Exec(ctx context.Context, c ExecConfig) (Process, error)
	// Stats are the container's figures now.
	Stats() (Stats, error)
	// Listens reports whether something in its network namespace listens on a
	// TCP port; on a loopback address only if loopback says that this counts.
	Listens(port uint16, loopback bool) (bool, error)
	// Destroy removes the container, whatever its state. It is idempotent and
	// tries every step. It is never called while Exec is under way.
	Destroy() error
}

// An ExecConfig describes a process to run in a running container.
type ExecConfig struct {
	Args     []string    // program and arguments; the program is looked up in the container's PATH
	Env      []string    // KEY=value, added to the container's environment
	Cwd      string      // absolute, inside; empty is the container's
	User     string      // "USER[:GROUP]", names or numbers of the container; empty is the container's
	Stdio    [3]*os.File // the caller's; nil is /dev/null
	Terminal bool        // Stdio is a terminal that the process gets to control
}

// A Process is what Exec started.
type Process interface {
	Pid() int // in the host's pid namespace
	Wait() (ExitStatus, error)
	Signal(sig syscall.Signal) error
}

// An ExitStatus says how a process ended.
type ExitStatus struct {
	Code   int            // exit code, if Signal is 0
	Signal syscall.Signal // the signal that killed it, or 0
}

// Status is the code a shell would report: 128+n for signal n.
func (e ExitStatus) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// Stats are a container's figures at one moment.
type Stats struct {
	MemoryBytes uint64 `json:"memory_bytes"`      // charged to its cgroup
	MemoryPeak  uint64 `json:"memory_peak_bytes"` // the most that ever was
	MemoryLimit uint64 `json:"memory_limit_bytes,omitempty"`
	CPUNanos    uint64 `json:"cpu_ns"`
	Pids        uint64 `json:"pids"`
	OOMKills    uint64 `json:"oom_kills"`
}
