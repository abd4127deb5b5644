package policy

import (
	"math"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"go.starlark.net/syntax"
)

// A lowering turns the tree of each class into instructions:
//
//	plan    each node becomes steps, tests that one instruction can do
//	order   steps in an order in which all jumps go forward
//	emit    the instructions
//
// Its compiler keeps it, for the memory of its slices and maps.
type lowering struct {
	*compiler
	steps   []step
	planned []int32 // by node: its first step, counted from 1
	rets    []int32 // by leaf: likewise
	unit    *rule.Unit
	emitted []uint32 // pc by step
	at      []int    // by step: its place, counted from the end
	queue   []int32  // steps in order, last first
	ordered []bool
	code    []rule.Insn // the instructions, backwards
	lines   []rule.Pos
	consts  map[[2]rule.Const]uint32
	tables  map[tableKey]uint32
	err     *Error
}

// A step is one test, or a verdict.
type step struct {
	insn   rule.Insn // without Off
	not    rule.Op   // the opposite test, OpInvalid where there is none
	load   []rule.Insn
	pos    rule.Pos
	hi, lo int32 // steps; of a test
}

type tableKey struct {
	set  sid
	kind rule.TableKind
}

// lower makes the unit of the trees of all classes.
func lower(c *compiler, roots []classRoots, at syntax.Position) (*rule.Unit, error) {
	l := c.lowering
	l.reset(c)
	defer l.forget()
	var entries [numWays][frame.NumClasses]int32
	for w := range roots {
		for class := frame.ClassNone + 1; class < frame.NumClasses; class++ {
			entries[w][class] = l.plan(roots[w][class])
		}
	}
	l.ordered = zeroed(l.ordered, len(l.steps))
	for w := len(roots) - 1; w >= 0; w-- {
		for class := frame.NumClasses - 1; class > frame.ClassNone; class-- {
			l.order(entries[w][class])
		}
	}
	l.emit()
	if len(roots) > 1 {
		l.unit.Ingress = make([]uint32, frame.NumClasses)
	}
	for class := frame.ClassNone + 1; class < frame.NumClasses; class++ {
		l.unit.Entries[class] = l.emitted[entries[egress][class]]
		if len(roots) > 1 {
			l.unit.Ingress[class] = l.emitted[entries[ingress][class]]
		}
	}
	if l.err != nil {
		l.err.Pos = at
		return nil, l.err
	}
	if len(l.unit.Insns) > rule.MaxInsns {
		return nil, &Error{Pos: at, Name: "policy", Msg: "too large: more instructions than a program may have", Hint: "search large collections with `in` instead of a loop over them"}
	}
	l.prune()
	return l.unit, nil
}

// reset readies l for the trees of c.
func (l *lowering) reset(c *compiler) {
	l.compiler, l.err = c, nil
	l.unit = &rule.Unit{Files: c.files, Whys: c.whys, Limits: c.limits}
	l.planned = zeroed(l.planned, len(c.nodes))
	l.rets = zeroed(l.rets, len(c.leaves))
	l.steps, l.queue, l.code, l.lines = l.steps[:0], l.queue[:0], l.code[:0], l.lines[:0]
}

// forget leaves nothing but memory that the next use can do with.
func (l *lowering) forget() {
	if len(l.steps) > 1<<12 {
		*l = *newLowering()
		return
	}
	l.compiler, l.unit = nil, nil
	clear(l.steps)
	clear(l.consts)
	clear(l.tables)
}

func newLowering() *lowering {
	return &lowering{consts: make(map[[2]rule.Const]uint32), tables: make(map[tableKey]uint32)}
}

// zeroed is n zeros, in the memory of s if they fit.
func zeroed[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/2)
	}
	s = s[:n]
	clear(s)
	return s
}

// plan is the first step of a node.
func (l *lowering) plan(n nid) int32 {
	var known *int32
	if n >= 0 {
		known = &l.planned[n]
	} else {
		known = &l.rets[^n]
	}
	if *known > 0 {
		return *known - 1
	}
	var s int32
	if n < 0 {
		v := l.leaf(n)
		w := l.whys[v.why]
		s = l.add(step{insn: rule.Insn{Op: rule.OpRet, A: uint8(v.verdict), K: v.why}, pos: w.Pos, hi: -1, lo: -1})
	} else {
		p := l.nodes[n]
		s = l.planTest(l.tests[p.test], l.plan(p.hi), l.plan(p.lo), p.pos)
	}
	*known = s + 1
	return s
}

func (l *lowering) add(s step) int32 {
	l.steps = append(l.steps, s)
	return int32(len(l.steps) - 1)
}

// planTest is the first of the steps that make a test.
func (l *lowering) planTest(t test, hi, lo int32, pos rule.Pos) int32 {
	switch t.kind {
	case testSet:
		return l.planSet(t, hi, lo, pos)
	case testMask:
		k := l.pair(rule.Const{Lo: t.value}, rule.Const{Lo: t.mask})
		return l.add(step{insn: rule.Insn{Op: rule.OpTestMask, A: uint8(t.a), K: k}, not: rule.OpTestNMask, pos: pos, hi: hi, lo: lo})
	case testEqual:
		return l.add(step{insn: rule.Insn{Op: rule.OpTestEqF, A: uint8(t.a), K: uint32(t.b)}, not: rule.OpTestNeF, pos: pos, hi: hi, lo: lo})
	case testRate:
		return l.add(step{insn: rule.Insn{Op: rule.OpTestRate, K: uint32(t.set)}, pos: pos, hi: hi, lo: lo})
	case testFlow:
		return l.add(step{insn: rule.Insn{Op: rule.OpTestFlow}, pos: pos, hi: hi, lo: lo})
	case testAnswered:
		return l.add(step{insn: rule.Insn{Op: rule.OpTestAnswered}, pos: pos, hi: hi, lo: lo})
	case testLease:
		return l.add(step{insn: rule.Insn{Op: rule.OpTestLease, A: uint8(t.a)}, pos: pos, hi: hi, lo: lo})
	case testExprs:
		s := step{pos: pos, hi: hi, lo: lo}
		s.load = l.load(nil, t.x, 0)
		s.insn = rule.Insn{Op: rule.OpTestRIn, A: 0, K: l.table(t.set, rule.TableExact64)}
		return l.add(s)
	}
	s := step{pos: pos, hi: hi, lo: lo}
	x, y := t.x, t.y
	first, second := uint8(0), uint8(1)
	if l.registers(y) > l.registers(x) {
		s.load = l.load(l.load(nil, y, 0), x, 1)
		first, second = 1, 0
	} else {
		s.load = l.load(l.load(nil, x, 0), y, 1)
	}
	s.insn = rule.Insn{Op: rule.OpTestREq, A: first, K: uint32(second)}
	s.not = rule.OpTestRNe
	if t.less {
		s.insn.Op, s.not = rule.OpTestRLt, rule.OpInvalid
	}
	return l.add(s)
}

// load computes an expression into register r with those from r on.
func (l *lowering) load(code []rule.Insn, e eid, r uint8) []rule.Insn {
	x := l.exprs[e]
	switch x.op {
	case exprConst:
		if x.k == int64(int32(x.k)) {
			return append(code, rule.Insn{Op: rule.OpLoadI, A: r, K: uint32(int32(x.k))})
		}
		return append(code, rule.Insn{Op: rule.OpLoadC, A: r, K: l.constant64(uint64(x.k))})
	case exprField:
		return append(code, rule.Insn{Op: rule.OpLoadF, A: r, K: uint32(x.field)})
	case exprNeg, exprNot:
		code = l.load(code, x.x, r)
		return append(code, rule.Insn{Op: exprInsns[x.op], A: r})
	}
	if r+1 >= rule.NumRegs {
		if l.err == nil {
			l.err = tooDeep()
		}
		return code
	}
	if l.registers(x.y) > l.registers(x.x) && r+2 < rule.NumRegs {
		// The right side first, so that it has more registers.
		code = l.load(code, x.y, r)
		code = l.load(code, x.x, r+1)
		if commutes(x.op) {
			return append(code, rule.Insn{Op: exprInsns[x.op], A: r, K: uint32(r + 1)})
		}
		code = append(code, rule.Insn{Op: exprInsns[x.op], A: r + 1, K: uint32(r)})
		return append(code, rule.Insn{Op: rule.OpMove, A: r, K: uint32(r + 1)})
	}
	code = l.load(code, x.x, r)
	code = l.load(code, x.y, r+1)
	return append(code, rule.Insn{Op: exprInsns[x.op], A: r, K: uint32(r + 1)})
}

func commutes(op exprOp) bool {
	switch op {
	case exprAdd, exprMul, exprAnd, exprOr, exprXor:
		return true
	}
	return false
}

var exprInsns = map[exprOp]rule.Op{
	exprAdd: rule.OpAdd, exprSub: rule.OpSub, exprMul: rule.OpMul, exprDiv: rule.OpDiv, exprMod: rule.OpMod,
	exprAnd: rule.OpAnd, exprOr: rule.OpOr, exprXor: rule.OpXor, exprShl: rule.OpShl, exprShr: rule.OpShr,
	exprNeg: rule.OpNeg, exprNot: rule.OpNot,
}

// registers is how many registers an expression takes.
func (l *lowering) registers(e eid) int {
	switch x := l.exprs[e]; x.op {
	case exprConst, exprField:
		return 1
	case exprNeg, exprNot:
		return l.registers(x.x)
	default:
		a, b := l.registers(x.x), l.registers(x.y)
		if a == b {
			return a + 1
		}
		return max(a, b)
	}
}

// order appends a step to the queue, behind all that it leads to. The queue
// read from its end is then an order in which jumps go forward, and the step
// that follows if a test holds comes next where it can.
func (l *lowering) order(s int32) {
	if l.ordered[s] {
		return
	}
	l.ordered[s] = true
	if p := &l.steps[s]; p.insn.Op != rule.OpRet {
		l.order(p.lo)
		l.order(l.steps[s].hi)
	}
	l.queue = append(l.queue, s)
}

// emit writes the instructions, last first, so that the target of a jump is
// known when the jump is written; then it turns them round.
func (l *lowering) emit() {
	l.emitted, l.at = zeroed(l.emitted, len(l.steps)), zeroed(l.at, len(l.steps))
	put := func(in rule.Insn, pos rule.Pos) {
		l.code = append(l.code, in)
		l.lines = append(l.lines, pos)
	}
	next := int32(-1) // the step that begins right behind
	jump := func(s int32) uint16 {
		off := len(l.code) - l.at[s]
		if off > math.MaxUint16 {
			l.err = tooFar()
		}
		return uint16(off)
	}
	for _, s := range l.queue {
		p := l.steps[s]
		if p.insn.Op == rule.OpRet {
			put(p.insn, p.pos)
		} else {
			in := p.insn
			switch {
			case p.hi == next:
				in.Off = jump(p.lo)
			case p.lo == next && p.not != rule.OpInvalid:
				in.Op, in.Off = p.not, jump(p.hi)
			default:
				// Neither follows: a verdict is repeated, all else jumped to.
				if h := l.steps[p.hi]; h.insn.Op == rule.OpRet {
					put(h.insn, h.pos)
				} else {
					put(rule.Insn{Op: rule.OpJmp, Off: jump(p.hi)}, p.pos)
				}
				in.Off = jump(p.lo)
			}
			put(in, p.pos)
			for i := len(p.load) - 1; i >= 0; i-- {
				put(p.load[i], p.pos)
			}
		}
		l.at[s] = len(l.code)
		next = s
	}
	n := len(l.code)
	l.unit.Insns, l.unit.Lines = make([]rule.Insn, n), make([]rule.Pos, n)
	for i, in := range l.code {
		l.unit.Insns[n-1-i], l.unit.Lines[n-1-i] = in, l.lines[i]
	}
	for s := range l.steps {
		l.emitted[s] = uint32(n - l.at[s])
	}
}

// constant64 is the index of a constant of 64 bits.
func (l *lowering) constant64(v uint64) uint32 { return l.constantAt(u128{0, v}) }

func (l *lowering) constantAt(v u128) uint32 {
	k := [2]rule.Const{{Hi: v.hi, Lo: v.lo}}
	if i, ok := l.consts[k]; ok {
		return i
	}
	i := uint32(len(l.unit.Consts))
	l.unit.Consts = append(l.unit.Consts, k[0])
	l.consts[k] = i
	return i
}

// pair is the index of a value and its mask.
func (l *lowering) pair(value, mask rule.Const) uint32 {
	k := [2]rule.Const{value, mask}
	if i, ok := l.consts[k]; ok && mask != (rule.Const{}) {
		return i
	}
	i := uint32(len(l.unit.Consts))
	l.unit.Consts = append(l.unit.Consts, value, mask)
	l.consts[k] = i
	return i
}

// prune leaves out the whys that no verdict refers to any more.
func (l *lowering) prune() {
	ids := make([]uint32, len(l.whys)) // counted from 1
	whys := make([]rule.Why, 0, len(l.whys))
	for i, in := range l.unit.Insns {
		if in.Op != rule.OpRet {
			continue
		}
		if ids[in.K] == 0 {
			whys = append(whys, l.unit.Whys[in.K])
			ids[in.K] = uint32(len(whys))
		}
		l.unit.Insns[i].K = ids[in.K] - 1
	}
	l.unit.Whys = whys
}

// tooDeep and tooFar are limits of the rule machine.
func tooDeep() *Error {
	return &Error{Name: "policy", Msg: "an arithmetic expression needs more than 8 registers", Hint: "split it, or compare its parts one by one"}
}

func tooFar() *Error {
	return &Error{Name: "policy", Msg: "too large: a jump over more than 65535 instructions", Hint: "search large collections with `in` instead of a loop over them"}
}
