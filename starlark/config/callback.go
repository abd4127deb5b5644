package config

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/starlark/args"
)

// Bounds of one run of a callback. Ten million steps are about a second.
const (
	DefaultCallbackTimeout = 5 * time.Second
	callbackSteps          = 10_000_000
)

// What becomes of a container when its callback fails.
const (
	OnErrorFail = "fail" // the point fails, and what it guards with it
	OnErrorWarn = "warn" // it is logged
)

// A Callback is a Starlark function to run at a point of a container's life.
type Callback struct {
	// Point is the canonical name: "ready", "signal:USR1", "after:3s".
	Point string
	// Name is the name of the function, "lambda" for one without.
	Name string
	// Pos is where the function is defined.
	Pos syntax.Position
	// Timeout is how long one run may take.
	Timeout time.Duration
	// OnError is OnErrorFail or OnErrorWarn.
	OnError string
	// OnlyFailed: at poststop, run only if the container did not exit with 0.
	OnlyFailed bool

	fn starlark.Callable
	// thread prepares a thread as the loader's were; explain gives an
	// evaluation error its position and backtrace.
	thread  func(*starlark.Thread)
	explain func(error) error
}

// Call runs the callback for the container behind h and waits for it, at most
// Timeout. The function sees only frozen values, so callbacks of several
// containers may run at once.
func (cb Callback) Call(ctx context.Context, h Host) error {
	if cb.OnlyFailed && h.ExitStatus() == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cb.Timeout)
	defer cancel()
	th := &starlark.Thread{
		Name:  cb.Point,
		Print: func(_ *starlark.Thread, msg string) { h.Log(msg, nil) },
		Load:  nil,
	}
	if cb.thread != nil {
		cb.thread(th)
	}
	th.SetMaxExecutionSteps(callbackSteps)
	stop := context.AfterFunc(ctx, func() { th.Cancel(context.Cause(ctx).Error()) })
	defer stop()
	_, err := starlark.Call(th, cb.fn, starlark.Tuple{&ctxValue{ctx: ctx, host: h}}, nil)
	if err != nil && cb.explain != nil {
		err = cb.explain(err)
	}
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("callback %s at %s: took longer than %s: %w", cb.Name, cb.Point, cb.Timeout, err)
	}
	if err != nil {
		return fmt.Errorf("callback %s at %s: %w", cb.Name, cb.Point, err)
	}
	return nil
}

func callbackBuiltins() []*args.Builtin {
	return []*args.Builtin{{
		Name: "callback",
		Doc:  "A function for on= with a time limit of its own and a say in what its failure means.",
		Params: []args.Param{
			{Name: "fn", Type: args.Function, Required: true, Doc: "the function; it gets one argument, ctx"},
			{Name: "timeout", Type: args.Duration, Default: `"5s"`, Doc: "how long one run may take"},
			{Name: "on_error", Type: args.OneOf(OnErrorFail, OnErrorWarn), Default: `"fail"`, Doc: `"fail": its failure is the container's; "warn": it is logged`},
		},
		Positional: 1,
		Result:     "callback",
		Call: with(func(c call) (starlark.Value, error) {
			v := newCallback(args.Get[starlark.Callable](c.Call, "fn"))
			v.timeout = args.Or(c.Call, "timeout", v.timeout)
			v.onError = args.Or(c.Call, "on_error", v.onError)
			return v, nil
		}),
	}}
}

// A callbackValue is what callback() returns.
type callbackValue struct {
	fn      starlark.Callable
	timeout time.Duration
	onError string
}

func newCallback(fn starlark.Callable) *callbackValue {
	return &callbackValue{fn: fn, timeout: DefaultCallbackTimeout, onError: OnErrorFail}
}

func (v *callbackValue) String() string        { return fmt.Sprintf("callback(%s)", v.fn.Name()) }
func (v *callbackValue) Type() string          { return "callback" }
func (v *callbackValue) Freeze()               { v.fn.Freeze() }
func (v *callbackValue) Truth() starlark.Bool  { return true }
func (v *callbackValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: callback") }

// typeCallbacks is the value of one entry of on=: a function, a callback(),
// or a list of those; converted to []*callbackValue.
var typeCallbacks = args.Type{Name: "a function, callback(), or a list of those", Convert: func(v starlark.Value) (any, error) {
	seq, ok := args.Sequence(v)
	if !ok {
		seq = []starlark.Value{v}
	}
	var out []*callbackValue
	for _, e := range seq {
		switch e := e.(type) {
		case *callbackValue:
			out = append(out, e)
		case starlark.Callable:
			out = append(out, newCallback(e))
		default:
			return nil, args.Want("a function, callback(), or a list of those", e)
		}
	}
	for _, cb := range out {
		if err := checkSignature(cb.fn); err != nil {
			return nil, err
		}
	}
	return out, nil
}}

// checkSignature finds out at load what would otherwise fail at run time, in
// the middle of a container's start.
func checkSignature(fn starlark.Callable) error {
	f, ok := fn.(*starlark.Function)
	if !ok {
		return nil
	}
	required := 0
	for i := range f.NumParams() {
		if f.ParamDefault(i) == nil {
			required++
		}
	}
	if f.HasVarargs() {
		required--
	}
	if f.HasKwargs() {
		required--
	}
	takesOne := required <= 1 && f.NumKwonlyParams() == 0 && (f.NumParams() > 0)
	if !takesOne {
		return args.Hinted("write def "+f.Name()+"(ctx):", "%s (%s) must take one argument, ctx", f.Name(), f.Position())
	}
	return nil
}

// callbacks turns the entries of on= into callbacks, in the order written.
func (c call) callbacks(on []args.Pair[[]*callbackValue]) ([]Callback, error) {
	var out []Callback
	for _, entry := range on {
		at, err := parsePoint(entry.Key)
		if err != nil {
			return nil, c.Errorf("on", args.HintOf(err), "on: %v", err)
		}
		for _, v := range entry.Val {
			// The loader freezes globals only; a closure made by a function is
			// reached from here alone.
			v.Freeze()
			cb := Callback{Point: at.point, OnlyFailed: at.onlyFailed, Name: v.fn.Name(), Timeout: v.timeout, OnError: v.onError, fn: v.fn}
			if f, ok := v.fn.(*starlark.Function); ok {
				cb.Pos = f.Position()
			}
			if col, ok := c.Thread.Local(localKey).(*Collector); ok {
				cb.thread, cb.explain = col.Thread, col.Explain
			}
			out = append(out, cb)
		}
	}
	return out, nil
}

// mergeOn overlays the callbacks of a base with those of a container: a point
// named by both is the container's.
func mergeOn[T any](base, own []args.Pair[T]) []args.Pair[T] {
	var out []args.Pair[T]
	for _, b := range base {
		taken := false
		for _, o := range own {
			taken = taken || strings.EqualFold(o.Key, b.Key)
		}
		if !taken {
			out = append(out, b)
		}
	}
	return append(out, own...)
}
