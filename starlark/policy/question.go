package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sekimori/nicshadow/rule"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// questions are what a predicate can ask besides the fields of a frame: what
// the frames before it left behind. audit() is no question, and stands here
// because policy() is the only one who knows it, too.
var questions = starlark.StringDict{
	"rate":        rateBuiltin,
	"established": establishedBuiltin,
	"answered":    answeredBuiltin,
	"audit":       starlark.NewBuiltin("audit", makeAudited),
}

var (
	rateBuiltin        = starlark.NewBuiltin("rate", askRate)
	establishedBuiltin = starlark.NewBuiltin("established", askSeen)
	answeredBuiltin    = starlark.NewBuiltin("answered", askSeen)
)

func isQuestion(b *starlark.Builtin) bool {
	return b == rateBuiltin || b == establishedBuiltin || b == answeredBuiltin
}

// An audited predicate is what audit() returns: its no is recorded, and counts
// as a yes.
type audited struct{ starlark.Value }

func (a *audited) String() string { return "audit(" + a.Value.String() + ")" }
func (a *audited) Type() string   { return "audit" }

func makeAudited(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var v starlark.Value
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &v); err != nil {
		return nil, err
	}
	switch v.(type) {
	case starlark.Bool, *starlark.Function:
		return &audited{v}, nil
	}
	return nil, fmt.Errorf("audit: got %s, want a predicate: a function, True or False", v.Type())
}

// A limitKey is a rate() of a program: where it is called, and with what.
type limitKey struct {
	pos  position
	rate rule.Limit // without a name
}

// rateUnits are the units of rate(), in nanoseconds.
var rateUnits = map[string]uint64{"s": 1e9, "m": 60e9, "h": 3600e9}

// parseRate is rate(spec, burst = None): a limit without a name. Without burst
// as many as the spec's number may come at once.
func parseRate(args starlark.Tuple, kwargs []starlark.Tuple) (l rule.Limit, text string, err error) {
	var burst starlark.Value = starlark.None
	if err := starlark.UnpackArgs("rate", args, kwargs, "spec", &text, "burst?", &burst); err != nil {
		return l, "", err
	}
	number, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(number, 10, 32)
	per := rateUnits[unit]
	if err != nil || n < 1 || per == 0 || n > per {
		return l, "", fmt.Errorf("rate: %q is no rate such as \"100/s\", \"30/m\" or \"5/h\"", text)
	}
	l.Period, l.Burst = per/n, uint32(min(n, rule.MaxBurst))
	if burst != starlark.None {
		b, err := starlark.AsInt32(burst)
		if err != nil || b < 1 || b > rule.MaxBurst {
			return l, "", fmt.Errorf("rate: burst %v: want a number from 1 to %d", burst, rule.MaxBurst)
		}
		l.Burst = uint32(b)
	}
	return l, text, nil
}

// question compiles a question.
func (c *compiler) question(b *starlark.Builtin, args []argument, p syntax.Position) nid {
	pos, kwargs, ok := c.constArgs(args)
	if !ok {
		return c.errorAt(p, "", "%s of something that depends on the frame", b.Name())
	}
	t := test{kind: testRate}
	if b == rateBuiltin {
		l, text, err := parseRate(pos, kwargs)
		if err != nil {
			return c.errorAt(p, "", "%s", err)
		}
		id, ok := c.limit(l, text, p)
		if !ok {
			return c.errorAt(p, "", "more than %d rate() in a policy", rule.MaxLimits)
		}
		t.set = sid(id)
	} else {
		if len(args) > 0 {
			return c.errorAt(p, "", "%s takes no arguments", b.Name())
		}
		if hint, never := c.pred.neverHolds(b); never {
			return c.errorAt(p, hint, "%s() never holds in %s", b.Name(), c.pred)
		}
		if t.kind = testAnswered; b == establishedBuiltin {
			if t.kind, c.flows = testFlow, true; c.fragment {
				return c.touch(p) // it is about ports
			}
		}
	}
	return c.booleans(c.branch(c.test(t), c.yes, c.no, c.pos(p)), p)
}

// neverHolds says which questions are about frames that q does not judge.
func (q pred) neverHolds(b *starlark.Builtin) (hint string, never bool) {
	switch q {
	case allowARP, allowNDP:
		return "ask answered()", b == establishedBuiltin
	case allowTCP, allowUDP, allowDHCP:
		return "ask established()", b == answeredBuiltin
	}
	return "", false
}

// limit is the number of the limit of a call. Its name stays what it is when
// lines move: the function that asks, the rate, and a number where those are
// there twice.
func (c *compiler) limit(l rule.Limit, text string, p syntax.Position) (id int, ok bool) {
	k := limitKey{positionOf(p), l}
	if id, ok := c.limitIDs[k]; ok {
		return id, true
	}
	if len(c.limits) == rule.MaxLimits {
		return 0, false
	}
	l.Name = c.calls[len(c.calls)-1].Name + " " + text
	for n, name := 2, l.Name; ; n++ {
		taken := false
		for _, m := range c.limits {
			taken = taken || m == l
		}
		if !taken {
			break
		}
		l.Name = name + " #" + strconv.Itoa(n)
	}
	id = len(c.limits)
	c.limits = append(c.limits, l)
	c.limitIDs[k] = id
	return id, true
}

// Keys of thread locals: what a frame is judged with, and the note that a
// function asks.
const (
	judgingKey = "sekimori/policy.judging"
	askedKey   = "sekimori/policy.asked"
)

// A judging is one frame in the interpreter.
type judging struct {
	*Memory
	k       key
	asked   map[any]bool // answers, once a frame
	missing *absent
}

var errNoFrame = errors.New("only a predicate can ask this, of a frame")

// judged is the frame that a thread judges.
func judged(thread *starlark.Thread, b *starlark.Builtin) (*judging, error) {
	if j, ok := thread.Local(judgingKey).(*judging); ok {
		return j, nil
	}
	if asked, ok := thread.Local(askedKey).(*bool); ok {
		*asked = true
	}
	return nil, fmt.Errorf("%s: %w", b.Name(), errNoFrame)
}

// once answers a question once a frame.
func (j *judging) once(k any, answer func() bool) starlark.Value {
	a, ok := j.asked[k]
	if !ok {
		a = answer()
		j.asked[k] = a
	}
	return starlark.Bool(a)
}

func askRate(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	j, err := judged(thread, b)
	if err != nil {
		return nil, err
	}
	l, _, err := parseRate(args, kwargs)
	if err != nil {
		return nil, err
	}
	k := limitKey{positionOf(thread.CallFrame(1).Pos), l}
	return j.once(k, func() bool { return j.take(k) }), nil
}

// askSeen is established() and answered().
func askSeen(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 0); err != nil {
		return nil, err
	}
	j, err := judged(thread, b)
	if err != nil {
		return nil, err
	}
	if b.Name() == "answered" {
		return j.once(b, func() bool { return j.answered(j.k) }), nil
	}
	if isFragment(j.k.Class()) {
		j.missing.touched = true
		return nil, errAbsent
	}
	return j.once(b, func() bool { return j.established(j.k) }), nil
}
