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
	ways    [numWays]side
	judgeIn bool // frames on their way to the container are judged
	mode    string
	off     guardSet
	budget  int             // steps a frame may take; 0 for any number
	pos     syntax.Position // where the file, or the callback, came to the policy() call
	callPos syntax.Position // the policy() call itself
}

// A predicate is a function or a constant.
type predicate struct {
	fn       *starlark.Function
	constant bool
	audit    bool // its no is recorded, and counts as a yes
}

// A way is a direction.
type way uint8

const (
	egress  way = iota // what the container sends
	ingress            // what it is sent
	numWays
)

func (w way) String() string { return [...]string{"egress", "ingress"}[w] }

// A side is the predicates for one way.
type side struct {
	preds   [numPreds]predicate
	present uint // one bit each
}

func (s *side) has(q pred) bool { return s.present>>q&1 != 0 }

// An Identity is what the NIC of a container is: its own addresses. With DHCP4
// or DHCP6, what a DHCP server leases to it is its own too.
type Identity struct {
	MAC          frame.MAC
	Addrs        []netip.Addr
	DHCP4, DHCP6 bool
}

var _ starlark.Value = (*Policy)(nil)

// String names the predicates.
func (p *Policy) String() string {
	in := ""
	if p.judgeIn {
		in = "ingress = [" + strings.Join(p.IngressPredicates(), ", ") + "]"
		if p.ways[egress].present != 0 {
			in = ", " + in
		}
	}
	return "policy(" + strings.Join(p.Predicates(), ", ") + in + ")"
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

// Predicates are the names of the predicates of what the container sends, in
// the order they judge.
func (p *Policy) Predicates() []string { return namesOf(p.ways[egress].present) }

// IngressPredicates are those of what it is sent; nil where all of that passes.
func (p *Policy) IngressPredicates() []string { return namesOf(p.ways[ingress].present) }

// JudgesIngress reports whether what the container is sent is judged.
func (p *Policy) JudgesIngress() bool { return p.judgeIn }

// Budget is how many steps a frame may take; 0 where the policy does not say.
func (p *Policy) Budget() int { return p.budget }

// makePolicy is policy(*predicates, allow_arp = ..., egress = [...],
// ingress = [...], mode = "enforce", guard = "on", budget = 100).
func (s *Sources) makePolicy(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p := &Policy{sources: s, mode: "enforce"}
	p.place(thread)
	var errs []error
	for _, a := range args {
		errs = append(errs, p.positional(egress, a))
	}
	for _, kv := range kwargs {
		errs = append(errs, atArgument(p.keyword(string(kv[0].(starlark.String)), kv[1]), string(kv[0].(starlark.String))))
	}
	err := errors.Join(errs...)
	if err == nil {
		err = errors.Join(p.judgesSomething(egress), p.judgesSomething(ingress))
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
func (p *Policy) judgesSomething(w way) error {
	s := &p.ways[w]
	if s.present&networkLayer == 0 {
		return nil
	}
	for q := allowTCP; q < numPreds; q++ {
		below, missing, hint := uint(1<<allowIPv4|1<<allowIPv6), "neither allow_ipv4 nor allow_ipv6", "add allow_ipv4 = True"
		if q == allowNDP {
			below, missing, hint = 1<<allowIPv6, "no allow_ipv6", "add allow_ipv6 = True"
		}
		if s.has(q) && s.present&below == 0 {
			return p.errorf(hint, "%s judges nothing: the policy speaks about the network layer (%s) but has %s",
				q, strings.Join(namesOf(s.present&networkLayer), ", "), missing)
		}
	}
	return nil
}

// namesOf are the names of predicates.
func namesOf(preds uint) []string {
	var names []string
	for i, name := range predNames {
		if preds>>i&1 != 0 {
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
func (p *Policy) positional(w way, v starlark.Value) error {
	a, audit := v.(*audited)
	if audit {
		v = a.Value
	}
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
	return p.add(w, q, predicate{fn: fn, audit: audit})
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
	case "budget":
		n, err := starlark.AsInt32(v)
		if err != nil || n < 1 {
			return p.errorf("", "budget %v: want a number of steps, 1 or more", v)
		}
		p.budget = n
		return nil
	case "egress":
		return p.side(egress, v)
	case "ingress":
		p.judgeIn = true
		return p.side(ingress, v)
	}
	return p.named(egress, name, v)
}

// named adds a predicate given by its name.
func (p *Policy) named(w way, name string, v starlark.Value) error {
	q, ok := predNamed(name)
	if !ok {
		known := append(slices.Clone(predNames), "egress", "ingress", "mode", "guard", "budget")
		return p.errorf("known: "+strings.Join(known, ", "), "unexpected argument %s%s", name, suggestion(name, known))
	}
	a, audit := v.(*audited)
	if audit {
		v = a.Value
	}
	switch v := v.(type) {
	case starlark.Bool:
		return p.add(w, q, predicate{constant: bool(v), audit: audit})
	case *starlark.Function:
		return p.add(w, q, predicate{fn: v, audit: audit})
	}
	return p.errorf("", "%s: got %s, want a function, True or False", name, v.Type())
}

// side adds the predicates of one way: functions that are known by their
// names, or a dict of predicates by name.
func (p *Policy) side(w way, v starlark.Value) error {
	var errs []error
	switch v := v.(type) {
	case *starlark.Dict:
		for _, kv := range v.Items() {
			name, _ := starlark.AsString(kv[0])
			errs = append(errs, p.named(w, name, kv[1]))
		}
	case *starlark.List, starlark.Tuple:
		for e := range starlark.Elements(v.(starlark.Iterable)) {
			errs = append(errs, p.positional(w, e))
		}
	default:
		return p.errorf(`write a list of functions, or {"allow_arp": True}`, "%s: got %s, want a list or a dict of predicates", w, v.Type())
	}
	return errors.Join(errs...)
}

// add takes a predicate in, checking what can be checked without compiling.
func (p *Policy) add(w way, q pred, r predicate) error {
	s := &p.ways[w]
	if s.has(q) {
		return p.errorf("", "%s is given twice", q)
	}
	if r.fn != nil {
		if err := q.checkParams(r.fn); err != nil {
			return err
		}
		// What the predicate captured is part of the policy from now on.
		r.fn.Freeze()
	}
	s.preds[q], s.present = r, s.present|1<<q
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
