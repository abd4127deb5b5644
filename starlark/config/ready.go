package config

import (
	"fmt"
	"time"

	"go.starlark.net/starlark"

	"sekimori/starlark/args"
)

// A ReadyKind is a way to find out that a container serves. The zero kind is
// invalid.
type ReadyKind string

// The ways.
const (
	// ReadyTCP: a socket of the container's network namespace listens at Port.
	// Nothing is sent to find out.
	ReadyTCP ReadyKind = "tcp"
	// ReadyExec: the command Args, run inside the container, exits with 0.
	ReadyExec ReadyKind = "exec"
)

// A Ready says when the point "ready" is reached.
type Ready struct {
	Kind ReadyKind `json:"kind"`
	Port uint16    `json:"port,omitempty"`
	Args []string  `json:"args,omitempty"`
	// Timeout is how long the container has; Interval is the pause between two
	// looks.
	Timeout  time.Duration `json:"timeout"`
	Interval time.Duration `json:"interval"`
}

// Defaults of Ready.
const (
	DefaultReadyTimeout  = 30 * time.Second
	DefaultReadyInterval = 100 * time.Millisecond
)

func readyBuiltins() []*args.Builtin {
	common := []args.Param{
		{Name: "timeout", Type: args.Duration, Default: `"30s"`, Doc: "how long the container has to become ready before it counts as failed"},
		{Name: "interval", Type: args.Duration, Default: `"100ms"`, Doc: "pause between two looks"},
	}
	return []*args.Builtin{{
		Name: "tcp_ready",
		Doc:  "Ready as soon as a TCP socket of the container listens at the port. Looks at the kernel's socket table: no frame is sent.",
		Params: append([]args.Param{
			{Name: "port", Type: args.Int(1, 65535), Required: true, Doc: "the port"},
		}, common...),
		Positional: 1,
		Result:     "ready",
		Call: with(func(c call) (starlark.Value, error) {
			return newReady(c, Ready{Kind: ReadyTCP, Port: uint16(args.Get[int64](c.Call, "port"))})
		}),
	}, {
		Name: "exec_ready",
		Doc:  "Ready as soon as a command, run inside the container, exits with 0.",
		Params: append([]args.Param{
			{Name: "args", Type: args.ListOf[string](args.String), Required: true, Doc: "the command and its arguments"},
		}, common...),
		Positional: 1,
		Result:     "ready",
		Call: with(func(c call) (starlark.Value, error) {
			args := args.Get[[]string](c.Call, "args")
			if len(args) == 0 || args[0] == "" {
				return nil, c.Errorf("args", "", "args: no command")
			}
			return newReady(c, Ready{Kind: ReadyExec, Args: args})
		}),
	}}
}

// A readyValue is what tcp_ready() and exec_ready() return.
type readyValue struct{ ready Ready }

func (r *readyValue) String() string        { return string(r.ready.Kind) + "_ready(...)" }
func (r *readyValue) Type() string          { return "ready" }
func (r *readyValue) Freeze()               {}
func (r *readyValue) Truth() starlark.Bool  { return true }
func (r *readyValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: ready") }

func newReady(c call, r Ready) (starlark.Value, error) {
	r.Timeout = args.Or(c.Call, "timeout", DefaultReadyTimeout)
	r.Interval = args.Or(c.Call, "interval", DefaultReadyInterval)
	if r.Interval < time.Millisecond || r.Interval > r.Timeout {
		return nil, c.Errorf("interval", "", "interval: %s is not between 1ms and the timeout of %s", r.Interval, r.Timeout)
	}
	return &readyValue{r}, nil
}
