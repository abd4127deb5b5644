package witness

import (
	"crypto/sha256"
	"fmt"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// An exprID numbers what a register can hold, as a text over the fields: 0 for
// a register that nothing has written.
type exprID int32

// An expression is arithmetic on fields. It is not computed: it tells equal
// tests from others, and says which fields and constants are near to them.
type expression struct {
	text  string
	reads []frame.Field
	near  []value
	// eval is its value where the only field it reads is v; ok is false where
	// it faults before that.
	eval func(v uint64) (n int64, ok bool)
	// size is the number of operations that eval takes: x*x, done often,
	// doubles it each time.
	size int
}

type expressions struct {
	all    []expression
	byText map[string]exprID
}

func newExpressions() *expressions {
	return &expressions{all: []expression{{text: "0", eval: constant(0)}}, byText: map[string]exprID{"0": 0}}
}

func (x *expressions) id(e expression) exprID {
	if id, ok := x.byText[e.text]; ok {
		return id
	}
	id := exprID(len(x.all))
	x.all, x.byText[e.text] = append(x.all, e), id
	return id
}

// maxText bounds an expression's text; longer ones are told apart by digest.
const maxText = 1 << 12

func constant(n int64) func(uint64) (int64, bool) {
	return func(uint64) (int64, bool) { return n, true }
}

// of is op on two expressions.
func (x *expressions) of(op rule.Op, a, b exprID) expression {
	ea, eb := x.all[a], x.all[b]
	e := expression{
		eval: func(v uint64) (int64, bool) {
			n, ok := ea.eval(v)
			m, also := eb.eval(v)
			if !ok || !also {
				return 0, false
			}
			return op.Compute(n, m)
		},
		size:  ea.size + eb.size + 1,
		text:  "(" + ea.text + " " + op.String() + " " + eb.text + ")",
		reads: join(ea.reads, eb.reads), near: append(append([]value{}, ea.near...), eb.near...),
	}
	if len(e.text) > maxText {
		e.text = digest(e.text)
	}
	return e
}

func compare(op rule.Op, n, m int64) bool {
	switch op {
	case rule.OpTestREq:
		return n == m
	case rule.OpTestRNe:
		return n != m
	case rule.OpTestRLt:
		return n < m
	}
	return n <= m
}

// maxEnumerated is the widest field, in bits, whose values are all tried.
const maxEnumerated = 16

// maxSize bounds the operations of an expression whose values are all tried.
const maxSize = 64

// computed is the test that holds where a function of fields does. Of one field
// of few bits it is the set of the values for which it does, and as good as
// any; else it is opaque.
func (r *reader) computed(key string, size int, reads []frame.Field, near []value, holds func(v uint64) bool) testID {
	if len(reads) != 1 || reads[0].Width() > maxEnumerated || size > maxSize {
		return r.opaque(key, reads, near, false)
	}
	f := reads[0]
	if id, ok := r.byTest["computed "+key]; ok {
		return id
	}
	var spans []span
	for v := range uint64(1) << f.Width() {
		if holds(v) {
			spans = append(spans, span{number(v), number(v)})
		}
	}
	id := r.onSet(f, makeSet(spans))
	r.byTest["computed "+key] = id
	return id
}

// digest stands for a long text.
func digest(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

func join(a, b []frame.Field) []frame.Field {
	out := append([]frame.Field{}, a...)
	for _, f := range b {
		out = appendNew(out, f)
	}
	return out
}

func appendNew(fs []frame.Field, f frame.Field) []frame.Field {
	for _, g := range fs {
		if g == f {
			return fs
		}
	}
	return append(fs, f)
}

// compute follows an instruction on registers to the next one. A division and
// a shift can fault, which drops.
func (r *reader) compute(s state, in rule.Insn) (nodeID, error) {
	x, a := r.exprs, in.A%rule.NumRegs
	before := s.regs
	switch in.Op {
	case rule.OpLoadF:
		f := frame.Field(in.K)
		s.regs[a] = x.id(expression{text: f.String(), reads: []frame.Field{f}, eval: func(v uint64) (int64, bool) { return int64(v), true }})
	case rule.OpLoadI:
		n := int64(int32(in.K))
		s.regs[a] = x.id(expression{text: fmt.Sprint(n), near: []value{number(uint64(n))}, eval: constant(n)})
	case rule.OpLoadC:
		c := r.u.Consts[in.K]
		s.regs[a] = x.id(expression{text: fmt.Sprint(int64(c.Lo)), near: []value{{Lo: c.Lo}}, eval: constant(int64(c.Lo))})
	case rule.OpMove:
		s.regs[a] = s.regs[in.K%rule.NumRegs]
	default:
		s.regs[a] = x.id(x.of(in.Op, s.regs[a], s.regs[in.K%rule.NumRegs]))
	}
	s.pc++
	n, err := r.read(s)
	if err != nil {
		return 0, err
	}
	switch in.Op {
	case rule.OpDiv, rule.OpMod, rule.OpShl, rule.OpShr:
		d := x.all[before[in.K%rule.NumRegs]]
		fault := r.computed("fault "+in.Op.String()+" "+d.text, d.size, d.reads, append([]value{{}}, d.near...), func(v uint64) bool {
			m, ok := d.eval(v)
			if !ok {
				return true
			}
			_, ok = in.Op.Compute(1, m)
			return !ok
		})
		n = r.node(fault, leafDrop, n)
	}
	return n, nil
}

// onRegisters is a test of registers, or one of an operation that this package
// does not know, such as one that asks for state.
func (r *reader) onRegisters(s state, in rule.Insn) testID {
	x := r.exprs
	switch in.Op {
	case rule.OpTestREq, rule.OpTestRNe, rule.OpTestRLt, rule.OpTestRLe:
		e := x.of(in.Op, s.regs[in.A%rule.NumRegs], s.regs[in.K%rule.NumRegs])
		a, b := x.all[s.regs[in.A%rule.NumRegs]], x.all[s.regs[in.K%rule.NumRegs]]
		return r.computed(e.text, e.size, e.reads, e.near, func(v uint64) bool {
			n, ok := a.eval(v)
			m, also := b.eval(v)
			return ok && also && compare(in.Op, n, m)
		})
	case rule.OpTestRIn:
		a := x.all[s.regs[in.A%rule.NumRegs]]
		var near []value
		for _, v := range r.u.Tables[in.K].Values {
			if near = append(near, v); len(near) == maxTries {
				break
			}
		}
		key := a.text + " rin " + digest(fmt.Sprint(r.u.Tables[in.K].Values))
		table := tableSet(&r.u.Tables[in.K], 64)
		return r.computed(key, a.size, a.reads, append(near, a.near...), func(v uint64) bool {
			n, ok := a.eval(v)
			return ok && table.Contains(value{Lo: uint64(n)})
		})
	}
	// What a program remembers is a question of its own: equal ones get equal
	// answers, in both programs.
	switch in.Op {
	case rule.OpTestRate:
		return r.opaque(fmt.Sprintf("rate %+v", r.u.Limits[in.K]), nil, nil, false)
	case rule.OpTestFlow, rule.OpTestAnswered, rule.OpTestLease:
		return r.opaque(fmt.Sprintf("%s %d", in.Op, in.A), nil, nil, false)
	}
	// What another's operand means is the program's own business.
	return r.opaque(fmt.Sprintf("%p %s %d %d", r.p, in.Op, in.A, in.K), nil, nil, false)
}
