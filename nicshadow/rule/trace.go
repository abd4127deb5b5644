package rule

import (
	"sort"

	"sekimori/nicshadow/frame"
)

// Trace runs the program on k in its encoded form and calls step for each
// instruction on the way, in order: holds says whether a test held and is
// true for what is no test. It gives the verdict of [Program.Run] in more
// time; explanations and coverage are made from it.
func (p *Program) Trace(k *frame.Key, step func(pc int, holds bool)) Outcome {
	return p.TraceAt(k, nil, step)
}

// TraceAt is Trace at the moment of a [Program.RunAt]: what that asked has the
// same answer here, and no more is taken. Without one no test of what the
// program remembers holds.
func (p *Program) TraceAt(k *frame.Key, m *Moment, step func(pc int, holds bool)) Outcome {
	c := k.Class()
	u := &p.unit
	entries := u.Entries[:]
	if m != nil && m.Ingress {
		if entries = u.Ingress; entries == nil {
			return Outcome{Verdict: Forward}
		}
	}
	if c == frame.ClassNone || c >= frame.NumClasses {
		return Outcome{}
	}
	var regs [NumRegs]int64
	for pc := int(entries[c]); pc < len(u.Insns); {
		in := u.Insns[pc]
		switch opDefs[in.Op].flow {
		case flowEnd:
			step(pc, true)
			return Outcome{Verdict(in.A), uint32(pc)}
		case flowJump:
			step(pc, true)
			pc += 1 + int(in.Off)
		case flowNext:
			ok := u.compute(in, k, &regs)
			step(pc, ok)
			if !ok {
				return Outcome{Drop, uint32(pc)}
			}
			pc++
		default:
			holds := u.test(in, k, &regs, m)
			step(pc, holds)
			pc++
			if !holds {
				pc += int(in.Off)
			}
		}
	}
	return Outcome{} // not reached: every path of a verified program returns
}

// test reports whether the test in holds.
func (u *Unit) test(in Insn, k *frame.Key, regs *[NumRegs]int64, m *Moment) bool {
	f, imm := frame.Field(in.A), uint64(in.K)
	switch in.Op {
	case OpTestEq:
		return k.Uint(f) == imm
	case OpTestNe:
		return k.Uint(f) != imm
	case OpTestLt:
		return k.Uint(f) < imm
	case OpTestLe:
		return k.Uint(f) <= imm
	case OpTestGt:
		return k.Uint(f) > imm
	case OpTestGe:
		return k.Uint(f) >= imm
	case OpTestRange:
		return k.Uint(f) >= imm&0xffff && k.Uint(f) <= imm>>16
	case OpTestEqC:
		return read(k, f) == u.Consts[in.K]
	case OpTestNeC:
		return read(k, f) != u.Consts[in.K]
	case OpTestMask:
		return read(k, f).and(u.Consts[in.K+1]) == u.Consts[in.K]
	case OpTestNMask:
		return read(k, f).and(u.Consts[in.K+1]) != u.Consts[in.K]
	case OpTestEqF:
		return read(k, f) == read(k, frame.Field(in.K))
	case OpTestNeF:
		return read(k, f) != read(k, frame.Field(in.K))
	case OpTestRow:
		for _, m := range u.Rows[in.K] {
			if read(k, m.Field).and(m.Mask) != m.Value {
				return false
			}
		}
		return true
	case OpTestIn:
		return u.Tables[in.K].contains(read(k, f))
	case OpTestNotI:
		return !u.Tables[in.K].contains(read(k, f))
	case OpTestRate, OpTestFlow, OpTestAnswered, OpTestLease:
		return m.ask(in.Op, stateBit(in), read(k, f), k)
	}
	a := regs[in.A%NumRegs]
	if in.Op == OpTestRIn {
		return u.Tables[in.K].contains(Const{Lo: uint64(a)})
	}
	b := regs[in.K%NumRegs]
	switch in.Op {
	case OpTestREq:
		return a == b
	case OpTestRNe:
		return a != b
	case OpTestRLt:
		return a < b
	case OpTestRLe:
		return a <= b
	}
	return false
}

// compute runs an instruction on registers; false where it faults.
func (u *Unit) compute(in Insn, k *frame.Key, regs *[NumRegs]int64) bool {
	a := &regs[in.A%NumRegs]
	switch in.Op {
	case OpLoadF:
		*a = int64(k.Uint(frame.Field(in.K)))
		return true
	case OpLoadI:
		*a = int64(int32(in.K))
		return true
	case OpLoadC:
		*a = int64(u.Consts[in.K].Lo)
		return true
	}
	v, ok := arith(in.Op, *a, regs[in.K%NumRegs])
	*a = v
	return ok
}

// arith computes a op b; ok is false where the operation faults.
func arith(op Op, a, b int64) (v int64, ok bool) {
	switch op {
	case OpMove:
		return b, true
	case OpAdd:
		return a + b, true
	case OpSub:
		return a - b, true
	case OpMul:
		return a * b, true
	case OpDiv:
		if b == 0 {
			return a, false
		}
		return floorDiv(a, b), true
	case OpMod:
		if b == 0 {
			return a, false
		}
		return a - b*floorDiv(a, b), true
	case OpAnd:
		return a & b, true
	case OpOr:
		return a | b, true
	case OpXor:
		return a ^ b, true
	case OpShl:
		if b < 0 || b > 63 {
			return a, false
		}
		return a << b, true
	case OpShr:
		if b < 0 || b > 63 {
			return a, false
		}
		return a >> b, true
	case OpNeg:
		return -a, true
	case OpNot:
		return ^a, true
	}
	return a, false
}

// floorDiv divides as Starlark and Python do, towards minus infinity. The one
// quotient that does not fit, -2^63 / -1, wraps as Go's does.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

// read is field f of k as a constant.
func read(k *frame.Key, f frame.Field) Const {
	hi, lo := k.Wide(f)
	return Const{hi, lo}
}

// contains is the plain search: by halves in an exact table, one after the
// other in a prefix table. Run has faster ones.
func (t *Table) contains(c Const) bool {
	switch t.Kind {
	case TableExact64, TableExact128:
		i := sort.Search(len(t.Values), func(i int) bool { return t.Values[i].compare(c) >= 0 })
		return i < len(t.Values) && t.Values[i] == c
	}
	for _, p := range t.Prefixes {
		if c.and(prefixMask(p.Bits, t.Kind.width())) == p.Value {
			return true
		}
	}
	return false
}
