package config

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"sekimori/starlark/args"
	"sekimori/starlark/policy"
)

// A Host is a container as its callbacks may see and touch it. Whoever runs
// the containers implements it.
type Host interface {
	Name() string
	// Pid is the workload's process id as the host counts, 0 if there is none.
	Pid() int
	// ExitStatus is the workload's exit status, 128 + n after signal n, and -1
	// while it runs or has not begun.
	ExitStatus() int
	// Event says what led to the call, in the words of the point: the signal's
	// name, the reason of a violation; empty where the point says it all.
	Event() string
	// LoadPolicy puts p in force for this container; when it returns, every
	// further frame is judged by p. On error the old policy stays.
	LoadPolicy(ctx context.Context, p *policy.Policy) error
	// SetMode is "enforce" or "audit".
	SetMode(ctx context.Context, mode string) error
	// PolicyStats counts frames by what became of them.
	PolicyStats(ctx context.Context) (map[string]uint64, error)
	// Exec runs a command inside the container and waits for it.
	Exec(ctx context.Context, argv []string) (ExecResult, error)
	// Kill sends a signal, named without "SIG", to the workload.
	Kill(signal string) error
	Log(msg string, fields map[string]string)
	// Containers are the names of the pod's containers, this one included.
	Containers() []string
	// Container is another container of the pod.
	Container(name string) (Host, error)
}

// An ExecResult is how a command inside a container ended.
type ExecResult struct {
	Status         int
	Stdout, Stderr string
}

// A ctxValue is the argument of a callback.
type ctxValue struct {
	ctx  context.Context
	host Host
}

func (c *ctxValue) String() string        { return fmt.Sprintf("ctx(%q)", c.host.Name()) }
func (c *ctxValue) Type() string          { return "ctx" }
func (c *ctxValue) Freeze()               {}
func (c *ctxValue) Truth() starlark.Bool  { return true }
func (c *ctxValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: ctx") }

var ctxAttrs = []string{"event", "exec", "exit_status", "kill", "log", "name", "pid", "pod", "policy"}

// ContextAttributes are the attributes of the ctx that callbacks get, sorted.
func ContextAttributes() []string { return slices.Clone(ctxAttrs) }

// AttrNames are what dir(ctx) lists, and where "did you mean" looks.
func (c *ctxValue) AttrNames() []string { return ctxAttrs }

// Attr is one attribute of ctx.
func (c *ctxValue) Attr(name string) (starlark.Value, error) {
	switch name {
	case "name":
		return starlark.String(c.host.Name()), nil
	case "pid":
		return starlark.MakeInt(c.host.Pid()), nil
	case "exit_status":
		if s := c.host.ExitStatus(); s >= 0 {
			return starlark.MakeInt(s), nil
		}
		return starlark.None, nil
	case "event":
		return starlark.String(c.host.Event()), nil
	case "policy":
		return c.policy(), nil
	case "pod":
		return c.pod()
	case "exec":
		return starlark.NewBuiltin("ctx.exec", c.exec), nil
	case "kill":
		return starlark.NewBuiltin("ctx.kill", c.kill), nil
	case "log":
		return starlark.NewBuiltin("ctx.log", c.log), nil
	}
	return nil, nil
}

// policy is ctx.policy: what concerns the frames of the container.
func (c *ctxValue) policy() starlark.Value {
	return &starlarkstruct.Module{Name: "ctx.policy", Members: starlark.StringDict{
		"load":  starlark.NewBuiltin("ctx.policy.load", c.policyLoad),
		"mode":  starlark.NewBuiltin("ctx.policy.mode", c.policyMode),
		"stats": starlark.NewBuiltin("ctx.policy.stats", c.policyStats),
	}}
}

func (c *ctxValue) policyLoad(_ *starlark.Thread, b *starlark.Builtin, tuple starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var p *policy.Policy
	if err := starlark.UnpackArgs(b.Name(), tuple, kwargs, "policy", &p); err != nil {
		return nil, err
	}
	return starlark.None, c.host.LoadPolicy(c.ctx, p)
}

func (c *ctxValue) policyMode(_ *starlark.Thread, b *starlark.Builtin, tuple starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var mode string
	if err := starlark.UnpackArgs(b.Name(), tuple, kwargs, "mode", &mode); err != nil {
		return nil, err
	}
	if known := []string{"enforce", "audit"}; !slices.Contains(known, mode) {
		return nil, args.Hinted(`write "enforce" or "audit"`, "%s: unknown mode %q%s", b.Name(), mode, args.DidYouMean(mode, known))
	}
	return starlark.None, c.host.SetMode(c.ctx, mode)
}

func (c *ctxValue) policyStats(_ *starlark.Thread, b *starlark.Builtin, tuple starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if err := starlark.UnpackArgs(b.Name(), tuple, kwargs); err != nil {
		return nil, err
	}
	stats, err := c.host.PolicyStats(c.ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(stats))
	for name := range stats {
		names = append(names, name)
	}
	sort.Strings(names)
	d := starlark.NewDict(len(names))
	for _, name := range names {
		if err := d.SetKey(starlark.String(name), starlark.MakeUint64(stats[name])); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// pod is ctx.pod: the other containers, each as its own ctx, so that one
// callback may lock all of them down.
func (c *ctxValue) pod() (starlark.Value, error) {
	names := c.host.Containers()
	d := starlark.NewDict(len(names))
	for _, name := range names {
		h, err := c.host.Container(name)
		if err != nil {
			return nil, err
		}
		if err := d.SetKey(starlark.String(name), &ctxValue{ctx: c.ctx, host: h}); err != nil {
			return nil, err
		}
	}
	d.Freeze()
	return &starlarkstruct.Module{Name: "ctx.pod", Members: starlark.StringDict{"containers": d}}, nil
}

func (c *ctxValue) exec(_ *starlark.Thread, b *starlark.Builtin, tuple starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var list starlark.Value
	if err := starlark.UnpackArgs(b.Name(), tuple, kwargs, "args", &list); err != nil {
		return nil, err
	}
	conv, err := args.ListOf[string](args.String).Convert(list)
	if err != nil {
		return nil, args.Hinted(`write ctx.exec(["ls", "-l"])`, "%s: args: %v", b.Name(), err)
	}
	argv := conv.([]string)
	if len(argv) == 0 || argv[0] == "" {
		return nil, fmt.Errorf("%s: no command", b.Name())
	}
	res, err := c.host.Exec(c.ctx, argv)
	if err != nil {
		return nil, err
	}
	return starlarkstruct.FromStringDict(starlark.String("result"), starlark.StringDict{
		"status": starlark.MakeInt(res.Status),
		"stdout": starlark.String(res.Stdout),
		"stderr": starlark.String(res.Stderr),
	}), nil
}

func (c *ctxValue) kill(_ *starlark.Thread, b *starlark.Builtin, tuple starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	signal := "TERM"
	if err := starlark.UnpackArgs(b.Name(), tuple, kwargs, "signal?", &signal); err != nil {
		return nil, err
	}
	name, err := parseSignal(signal)
	if err != nil {
		return nil, err
	}
	return starlark.None, c.host.Kill(name)
}

func (c *ctxValue) log(_ *starlark.Thread, b *starlark.Builtin, tuple starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var msg string
	if err := starlark.UnpackArgs(b.Name(), tuple, nil, "msg", &msg); err != nil {
		return nil, err
	}
	fields := make(map[string]string, len(kwargs))
	for _, kv := range kwargs {
		s, ok := starlark.AsString(kv[1])
		if !ok {
			s = kv[1].String()
		}
		fields[string(kv[0].(starlark.String))] = s
	}
	c.host.Log(msg, fields)
	return starlark.None, nil
}
