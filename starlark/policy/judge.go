package policy

import (
	"errors"
	"net/netip"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/value"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Judge judges one frame without compiling anything: it asks the guards in
// plain Go and calls the predicates through the Starlark interpreter. It is
// the oracle that the compiler is tested against, some hundred times slower
// than a program. Why has no position. The error is that of a predicate that
// failed; the frame is then dropped.
func (p *Policy) Judge(id Identity, k *frame.Key) (forward bool, why rule.Why, err error) {
	v, why, err := p.JudgeAt(id, k, new(Memory))
	return v.Passes(), why, err
}

// JudgeAt is Judge with what the policy remembers, and either way: a frame
// that reaches the container passes where the policy does not judge those.
func (p *Policy) JudgeAt(id Identity, k *frame.Key, m *Memory) (v rule.Verdict, why rule.Why, err error) {
	c, w := k.Class(), egress
	if c == frame.ClassNone || c >= frame.NumClasses {
		return rule.Drop, rule.Why{}, errors.New("judge: the frame is not parsed")
	}
	if m.Ingress {
		if w = ingress; !p.judgeIn {
			return rule.Forward, rule.Why{}, nil
		}
	}
	own := id.own()
	for _, ch := range classChecks[c] {
		if w == egress && !p.off.has(ch.guard) && !ch.holds(&id, own, k, m) {
			return rule.Drop, rule.Why{Kind: rule.WhyGuard, Name: guardNames[ch.guard]}, nil
		}
	}
	protocol := uint64(0)
	if isFragment(c) {
		protocol = k.Uint(frame.IPProtocol)
	}
	judges, unspoken := p.ways[w].judges(c, protocol)
	if unspoken != "" {
		return rule.Drop, rule.Why{Kind: rule.WhyUnspoken, Name: unspoken}, nil
	}
	v = rule.Forward
	asked := make(map[any]bool)
	for _, q := range judges {
		r := rule.Why{Kind: rule.WhyPredicate, Name: q.String()}
		yes, touched, err := p.ask(w, q, k, m, asked)
		if touched {
			r.Kind = rule.WhyFragment
		}
		switch {
		case err != nil && !touched:
			return rule.Drop, r, err
		case yes && !touched:
			if v == rule.Forward {
				why = r
			}
		case !p.ways[w].preds[q].audit:
			return rule.Drop, r, nil
		case v == rule.Forward:
			v, why = rule.Audit, r
		}
	}
	return v, why, nil
}

// judges lists the predicates that judge the frames of a class, or names what
// no predicate speaks for: the rule of the three layers. protocol matters for
// later fragments only.
func (s *side) judges(c frame.Class, protocol uint64) (judges []pred, unspoken string) {
	if s.has(allowEthernet) {
		judges = append(judges, allowEthernet)
	}
	counted := false
	if q, ok := network(c); ok && s.has(q) {
		judges, counted = append(judges, q), true
	} else if s.present&networkLayer != 0 {
		return nil, spoken[c].network
	}
	if family(c) != noFamily {
		q, ok := transport(c, s.present)
		if isFragment(c) {
			q, ok = fragmentTransport(c, protocol)
		}
		if ok && s.has(q) {
			judges, counted = append(judges, q), true
		} else if s.present&transportLayer != 0 {
			if isFragment(c) && ok {
				return nil, q.String()[len("allow_"):]
			}
			return nil, spoken[c].transport
		}
	}
	if !counted {
		return nil, spoken[c].network
	}
	return judges, ""
}

// fragmentTransport is the predicate that judges a later fragment.
func fragmentTransport(c frame.Class, protocol uint64) (pred, bool) {
	for _, t := range transports {
		if t.protocol == protocol && (t.family == noFamily || t.family == family(c)) {
			return t.pred, true
		}
	}
	return 0, false
}

// ask calls one predicate. touched says that it looked at a field that the
// fragment does not carry.
func (p *Policy) ask(w way, q pred, k *frame.Key, m *Memory, asked map[any]bool) (yes, touched bool, err error) {
	r, c := p.ways[w].preds[q], k.Class()
	if r.fn == nil {
		return r.constant, false, nil
	}
	var missing absent
	var kwargs []starlark.Tuple
	for i := range r.fn.NumParams() {
		name, _ := r.fn.Param(i)
		f, ok := q.paramNamed(name)
		if !ok {
			continue // has a default
		}
		v := starlark.Value(starlark.String(w.String()))
		if f.name != direction {
			v = fieldValue(c, k, f.field[family(c)], &missing)
		}
		kwargs = append(kwargs, starlark.Tuple{starlark.String(name), v})
	}
	thread := &starlark.Thread{Name: q.String(), Print: func(*starlark.Thread, string) {}}
	thread.SetMaxExecutionSteps(judgeSteps)
	thread.SetLocal(judgingKey, &judging{m, k, asked, &missing})
	v, err := starlark.Call(thread, r.fn, nil, kwargs)
	if err == nil {
		yes = bool(v.Truth())
	}
	return yes, missing.touched, err
}

// judgeSteps bounds one call of a predicate in the interpreter.
const judgeSteps = 10_000_000

// fieldValue is the value that a predicate sees as its parameter.
func fieldValue(c frame.Class, k *frame.Key, f frame.Field, missing *absent) starlark.Value {
	if !c.Has(f) {
		return missing
	}
	v := keyField(k, f)
	switch f.Kind() {
	case frame.KindBool:
		return starlark.Bool(v.lo != 0)
	case frame.KindMAC:
		return value.MAC{MAC: macOf(v.lo)}
	case frame.KindIPv4, frame.KindIPv6:
		return value.IP{Addr: addrOf(v, f.Kind() == frame.KindIPv4)}
	}
	return starlark.MakeUint64(v.lo)
}

func macOf(n uint64) frame.MAC {
	return frame.MAC{byte(n >> 40), byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

func addrOf(v u128, is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte{byte(v.lo >> 24), byte(v.lo >> 16), byte(v.lo >> 8), byte(v.lo)})
	}
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(v.hi>>(56-8*i)), byte(v.lo>>(56-8*i))
	}
	return netip.AddrFrom16(b)
}

// An absent is the value of a field that a later fragment does not carry.
// Any operation on it touches it, fails, and the frame drops; handing it on
// does not.
type absent struct{ touched bool }

var (
	_ starlark.HasBinary = (*absent)(nil)
	_ starlark.HasUnary  = (*absent)(nil)
)

var errAbsent = errors.New("a later fragment does not carry this field")

func (a *absent) String() string        { a.touched = true; return "absent" }
func (a *absent) Type() string          { a.touched = true; return "absent" }
func (a *absent) Freeze()               {}
func (a *absent) Truth() starlark.Bool  { a.touched = true; return false }
func (a *absent) Hash() (uint32, error) { a.touched = true; return 0, errAbsent }

func (a *absent) Binary(syntax.Token, starlark.Value, starlark.Side) (starlark.Value, error) {
	a.touched = true
	return nil, errAbsent
}

func (a *absent) Unary(syntax.Token) (starlark.Value, error) {
	a.touched = true
	return nil, errAbsent
}

// absentOf fails, and touches, where an operand is absent or a tuple or list
// with an absent element.
func absentOf(args ...starlark.Value) error {
	for _, v := range args {
		switch v := v.(type) {
		case *absent:
			v.touched = true
			return errAbsent
		case starlark.Tuple:
			for _, e := range v {
				if a, ok := e.(*absent); ok {
					a.touched = true
					return errAbsent
				}
			}
		case *starlark.List:
			for i := range v.Len() {
				if a, ok := v.Index(i).(*absent); ok {
					a.touched = true
					return errAbsent
				}
			}
		}
	}
	return nil
}
