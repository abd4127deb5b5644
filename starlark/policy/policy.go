package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/value"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A Policy says which frames of a container may pass: what policy() returns.
// It is immutable and safe for concurrent use.
type Policy struct {
	sources *Sources
	preds   [numPreds]predicate
	present uint // predicates, one bit each
	mode    string
	off     guardSet
	pos     syntax.Position // where the file, or the callback, came to the policy() call
	callPos syntax.Position // the policy() call itself
}

// A predicate is a function or a constant.
type predicate struct {
	fn       *starlark.Function
	constant bool
}

// An Identity is what the NIC of a container is: its own addresses.
type Identity struct {
	MAC   frame.MAC
	Addrs []netip.Addr
}

var _ starlark.Value = (*Policy)(nil)

// String names the predicates.
func (p *Policy) String() string {
	return "policy(" + strings.Join(p.Predicates(), ", ") + ")"
}

// Type is "policy".
func (*Policy) Type() string { return "policy" }

// Freeze does nothing: a policy is frozen from its beginning.
func (*Policy) Freeze() {}

// Truth is True.
func (*Policy) Truth() starlark.Bool { return true }

// Hash fails: a policy is no key.
func (*Policy) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: policy") }

// Mode is "enforce", or "audit": record the verdict and forward.
func (p *Policy) Mode() string { return p.mode }

// Pos is where the file, or the callback, made the policy.
func (p *Policy) Pos() syntax.Position { return p.pos }

// GuardsOff are the names of the guards switched off, sorted.
func (p *Policy) GuardsOff() []string { return p.off.names() }

// Predicates are the names of the predicates, in the order they judge.
func (p *Policy) Predicates() []string { return p.layer(p.present) }

func (p *Policy) has(q pred) bool { return p.present>>q&1 != 0 }

// makePolicy is policy(*predicates, allow_arp = ..., mode = "enforce", guard = "on").
func (s *Sources) makePolicy(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p := &Policy{sources: s, mode: "enforce"}
	p.place(thread)
	var errs []error
	for _, a := range args {
		errs = append(errs, p.positional(a))
	}
	for _, kv := range kwargs {
		errs = append(errs, atArgument(p.keyword(string(kv[0].(starlark.String)), kv[1]), string(kv[0].(starlark.String))))
	}
	err := errors.Join(errs...)
	if err == nil {
		err = p.judgesSomething()
	}
	if later, ok := thread.Local(laterKey).(*[]error); ok && err != nil {
		*later = append(*later, err)
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

const laterKey = "sekimori/policy.later"

// Later has policy() note its mistakes in errs and go on, so that those behind
// them are found too. Whoever evaluates the thread must look at errs in the
// end: a policy with a mistake must never judge.
func Later(thread *starlark.Thread, errs *[]error) { thread.SetLocal(laterKey, errs) }

// atArgument notes the argument that a mistake of a policy() call is in.
func atArgument(err error, name string) error {
	if e, ok := err.(*Error); ok && e.Name == "policy" {
		e.Arg = name
	}
	return err
}

// judgesSomething refuses transport predicates that no frame gets to, because
// the policy speaks about the network layer but not about the protocol below.
func (p *Policy) judgesSomething() error {
	if p.present&networkLayer == 0 {
		return nil
	}
	for q := allowTCP; q < numPreds; q++ {
		below, missing, hint := uint(1<<allowIPv4|1<<allowIPv6), "neither allow_ipv4 nor allow_ipv6", "add allow_ipv4 = True"
		if q == allowNDP {
			below, missing, hint = 1<<allowIPv6, "no allow_ipv6", "add allow_ipv6 = True"
		}
		if p.has(q) && p.present&below == 0 {
			return p.errorf(hint, "%s judges nothing: the policy speaks about the network layer (%s) but has %s",
				q, strings.Join(p.layer(networkLayer), ", "), missing)
		}
	}
	return nil
}

// layer are the names of the predicates of a layer.
func (p *Policy) layer(of uint) []string {
	var names []string
	for i, name := range predNames {
		if p.present&of>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return names
}

// place notes where the policy is made: frame 0 is policy() itself, frame 1
// its caller, the last one the file or the callback.
func (p *Policy) place(thread *starlark.Thread) {
	n := thread.CallStackDepth()
	for i := 1; i < n; i++ {
		pos := thread.CallFrame(i).Pos
		if pos.Line == 0 {
			continue
		}
		if p.callPos.Line == 0 {
			p.callPos = pos
		}
		p.pos = pos
	}
}

// positional adds a predicate that is known by its function's name.
func (p *Policy) positional(v starlark.Value) error {
	fn, ok := v.(*starlark.Function)
	switch {
	case !ok:
		return p.errorf("give a constant by name: policy(allow_arp = True)", "got %s by position, want a function", v.Type())
	case fn.Name() == "lambda":
		return p.errorf("give it by name: policy(allow_arp = lambda ...)", "a lambda has no name")
	}
	q, ok := predNamed(fn.Name())
	if !ok {
		return &Error{Pos: fn.Position(), Name: "policy", Msg: "no predicate is called " + fn.Name() + suggestion(fn.Name(), predNames), Hint: "known: " + strings.Join(predNames, ", ")}
	}
	return p.add(q, predicate{fn: fn})
}

// keyword adds a predicate, the mode or the guards given by name.
func (p *Policy) keyword(name string, v starlark.Value) error {
	switch name {
	case "mode":
		s, _ := starlark.AsString(v)
		if s != "enforce" && s != "audit" {
			return p.errorf("", "mode %v: want \"enforce\" or \"audit\"", v)
		}
		p.mode = s
		return nil
	case "guard":
		return p.guards(v)
	}
	q, ok := predNamed(name)
	if !ok {
		known := append(slices.Clone(predNames), "mode", "guard")
		return p.errorf("known: "+strings.Join(known, ", "), "unexpected argument %s%s", name, suggestion(name, known))
	}
	switch v := v.(type) {
	case starlark.Bool:
		return p.add(q, predicate{constant: bool(v)})
	case *starlark.Function:
		return p.add(q, predicate{fn: v})
	}
	return p.errorf("", "%s: got %s, want a function, True or False", name, v.Type())
}

// add takes a predicate in, checking what can be checked without compiling.
func (p *Policy) add(q pred, r predicate) error {
	if p.has(q) {
		return p.errorf("", "%s is given twice", q)
	}
	if r.fn != nil {
		if err := q.checkParams(r.fn); err != nil {
			return err
		}
		// What the predicate captured is part of the policy from now on.
		r.fn.Freeze()
	}
	p.preds[q], p.present = r, p.present|1<<q
	return nil
}

// checkParams checks that each parameter is a field, or has a default.
func (q pred) checkParams(fn *starlark.Function) error {
	for i := range fn.NumParams() {
		name, pos := fn.Param(i)
		if fn.HasVarargs() && i == fn.NumParams()-1-b2i(fn.HasKwargs()) || fn.HasKwargs() && i == fn.NumParams()-1 {
			return &Error{Pos: pos, Name: q.String(), Msg: "a predicate takes fields by name, not *" + name, Hint: "known: " + strings.Join(q.paramNames(), ", ")}
		}
		if _, ok := q.paramNamed(name); !ok && fn.ParamDefault(i) == nil {
			return &Error{Pos: pos, Name: q.String(), Msg: "unknown field " + name + suggestion(name, q.paramNames()), Hint: "known: " + strings.Join(q.paramNames(), ", ")}
		}
	}
	return nil
}

// guards reads the guard argument: "on", "off", or a list of those off.
func (p *Policy) guards(v starlark.Value) error {
	if s, ok := starlark.AsString(v); ok {
		switch s {
		case "on":
			p.off = 0
			return nil
		case "off":
			p.off = allGuards
			return nil
		}
		return p.errorf("", "guard %q: want \"on\", \"off\" or a list of guards to switch off", s)
	}
	it, ok := v.(starlark.Iterable)
	if !ok {
		return p.errorf("", "guard: got %s, want \"on\", \"off\" or a list of guards to switch off", v.Type())
	}
	for e := range starlark.Elements(it) {
		name, _ := starlark.AsString(e)
		i := slices.Index(guardNames, name)
		if i < 0 {
			return p.errorf("known: "+strings.Join(guardNames, ", "), "no guard is called %v%s", e, suggestion(name, guardNames))
		}
		p.off |= 1 << i
	}
	return nil
}

func (p *Policy) errorf(hint, format string, args ...any) error {
	return &Error{Pos: p.callPos, Name: "policy", Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func predNamed(name string) (pred, bool) {
	i := slices.Index(predNames, name)
	return pred(i), i >= 0
}

// suggestion ends a message about an unknown name.
func suggestion(name string, known []string) string {
	if s := value.Suggest(name, known); s != "" {
		return " (did you mean " + s + "?)"
	}
	return ""
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
