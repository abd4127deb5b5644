package witness

import (
	"fmt"
	"strings"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A nodeID numbers a node of a graph. The first are the verdicts.
type nodeID int32

const (
	leafDrop nodeID = iota
	leafForward
	leafAudit
	leaves // how many there are
)

func leaf(v rule.Verdict) nodeID {
	switch v {
	case rule.Forward:
		return leafForward
	case rule.Audit:
		return leafAudit
	}
	return leafDrop
}

// A node is a test and where it leads.
type node struct {
	test    testID
	yes, no nodeID
}

// A testID numbers a test of a graph.
type testID int32

// A test holds for the values of a field that are in a set. One that is not of
// this form, a comparison of two fields, of arithmetic or of state, has no
// field: it is decided once on each way, and its values are tried.
type test struct {
	field   frame.Field // FieldInvalid: opaque
	in, out Set
	// Of an opaque test: the fields that it reads and the constants near which
	// it changes; of a comparison of two fields, same is set.
	reads []frame.Field
	near  []value
	same  bool
}

// A graph holds the decision graphs of programs for one class of frames. Equal
// parts are one, within a program and between two; reasons are not looked at.
type graph struct {
	nodes   []node
	byNode  map[node]nodeID
	tests   []test
	byTest  map[string]testID
	maxNode int
}

func newGraph(limit int) *graph {
	return &graph{nodes: make([]node, leaves), byNode: map[node]nodeID{}, byTest: map[string]testID{}, maxNode: limit}
}

// node is a test with these ways on; where both are one, that.
func (g *graph) node(t testID, yes, no nodeID) nodeID {
	if yes == no {
		return yes
	}
	n := node{t, yes, no}
	id, ok := g.byNode[n]
	if !ok {
		id = nodeID(len(g.nodes))
		g.nodes, g.byNode[n] = append(g.nodes, n), id
	}
	return id
}

// test is the number of a test, by a text that is the same for equal tests.
func (g *graph) test(key string, make func() test) testID {
	id, ok := g.byTest[key]
	if !ok {
		id = testID(len(g.tests))
		g.tests, g.byTest[key] = append(g.tests, make()), id
	}
	return id
}

// onField is the test of a field against a set.
func (g *graph) onField(f frame.Field, s Set, key string) testID {
	return g.test(fmt.Sprintf("%d %s", f, key), func() test {
		return test{field: f, in: s, out: s.not(f.Width())}
	})
}

// onSet is onField for sets small enough to be their own key, so that the same
// set in another form (80 or the range 80 to 80) is the same test.
func (g *graph) onSet(f frame.Field, s Set) testID {
	var b strings.Builder
	for _, a := range s.spans {
		fmt.Fprintf(&b, "%x.%x-%x.%x,", a.lo.Hi, a.lo.Lo, a.hi.Hi, a.hi.Lo)
	}
	return g.onField(f, s, b.String())
}

// opaque is a test whose values are tried.
func (g *graph) opaque(key string, reads []frame.Field, near []value, same bool) testID {
	return g.test(key, func() test { return test{reads: reads, near: near, same: same} })
}

// errTooLarge says that a program has more ways than the graph may have nodes.
var errTooLarge = fmt.Errorf("program is too large to search")

// A reader makes the graph of one program.
type reader struct {
	*graph
	p    *rule.Program
	u    *rule.Unit
	memo map[state]nodeID
	// tables are the sets of the program's tables, made when they are met.
	tables map[uint32]Set
	exprs  *expressions
}

// A state is a place in a program and what its registers hold.
type state struct {
	pc   uint32
	regs [rule.NumRegs]exprID
}

// add reads the program for a class, out of the container or into it, and
// returns where judging begins.
func (g *graph) add(p *rule.Program, c frame.Class, ingress bool) (root nodeID, err error) {
	r := &reader{graph: g, p: p, u: p.Unit(), memo: map[state]nodeID{}, tables: map[uint32]Set{}, exprs: newExpressions()}
	at := p.Entry(c)
	if ingress {
		if r.u.Ingress == nil {
			return leafForward, nil // what such a program is not asked about, it lets in
		}
		at = r.u.Ingress[c]
	}
	return r.read(state{pc: at})
}

// read is the node of a state. Jumps go forward only, so it ends; the depth is
// that of the longest way.
func (r *reader) read(s state) (nodeID, error) {
	if id, ok := r.memo[s]; ok {
		return id, nil
	}
	if len(r.memo) > r.maxNode || len(r.nodes) > r.maxNode {
		return 0, errTooLarge
	}
	id, err := r.decode(s)
	r.memo[s] = id
	return id, err
}

func (r *reader) decode(s state) (nodeID, error) {
	in := r.u.Insns[s.pc]
	switch {
	case in.Op == rule.OpRet:
		return leaf(rule.Verdict(in.A)), nil
	case in.Op == rule.OpJmp:
		s.pc += 1 + uint32(in.Off)
		return r.read(s)
	case !in.Op.IsTest():
		return r.compute(s, in)
	}
	after := s
	after.pc++
	yes, err := r.read(after)
	if err != nil {
		return 0, err
	}
	after.pc += uint32(in.Off)
	no, err := r.read(after)
	if err != nil {
		return 0, err
	}
	return r.branch(s, in, yes, no), nil
}

// branch is the node of a test instruction.
func (r *reader) branch(s state, in rule.Insn, yes, no nodeID) nodeID {
	f := frame.Field(in.A)
	imm := uint64(in.K)
	holds := func(set Set) nodeID { return r.node(r.onSet(f, set), yes, no) }
	fails := func(set Set) nodeID { return r.node(r.onSet(f, set), no, yes) }
	switch in.Op {
	case rule.OpTestEq:
		return holds(points(imm))
	case rule.OpTestNe:
		return fails(points(imm))
	case rule.OpTestGe:
		return holds(Set{[]span{{number(imm), most(f.Width())}}})
	case rule.OpTestLt:
		return fails(Set{[]span{{number(imm), most(f.Width())}}})
	case rule.OpTestLe:
		return holds(between(0, imm))
	case rule.OpTestGt:
		return fails(between(0, imm))
	case rule.OpTestRange:
		return holds(between(imm&0xffff, imm>>16))
	case rule.OpTestEqC:
		return holds(point(r.u.Consts[in.K]))
	case rule.OpTestNeC:
		return fails(point(r.u.Consts[in.K]))
	case rule.OpTestMask:
		return r.masked(f, r.u.Consts[in.K+1], r.u.Consts[in.K], yes, no)
	case rule.OpTestNMask:
		return r.masked(f, r.u.Consts[in.K+1], r.u.Consts[in.K], no, yes)
	case rule.OpTestRow:
		n := yes
		for _, m := range r.u.Rows[in.K] {
			n = r.masked(m.Field, m.Mask, m.Value, n, no)
		}
		return n
	case rule.OpTestIn:
		return r.node(r.inTable(f, in.K), yes, no)
	case rule.OpTestNotI:
		return r.node(r.inTable(f, in.K), no, yes)
	case rule.OpTestEqF:
		return r.node(r.sameFields(f, frame.Field(in.K)), yes, no)
	case rule.OpTestNeF:
		return r.node(r.sameFields(f, frame.Field(in.K)), no, yes)
	}
	return r.node(r.onRegisters(s, in), yes, no)
}

// masked is the node of a comparison under a mask.
func (r *reader) masked(f frame.Field, mask, want value, yes, no nodeID) nodeID {
	if s, ok := masked(mask, want, f.Width()); ok {
		return r.node(r.onSet(f, s), yes, no)
	}
	key := fmt.Sprintf("mask %d %x %x", f, mask, want)
	t := r.computed(key, 1, []frame.Field{f}, []value{want}, func(v uint64) bool { return v&mask.Lo == want.Lo })
	return r.node(t, yes, no)
}

func (r *reader) sameFields(f, g frame.Field) testID {
	f, g = min(f, g), max(f, g)
	return r.opaque(fmt.Sprintf("same %d %d", f, g), []frame.Field{f, g}, nil, true)
}

// inTable is the test of a field against a table. Its text names all values:
// two programs with equal tables share it.
func (r *reader) inTable(f frame.Field, k uint32) testID {
	s, ok := r.tables[k]
	if !ok {
		s = tableSet(&r.u.Tables[k], f.Width())
		r.tables[k] = s
	}
	return r.onSet(f, s)
}

// tableSet is the values that a table holds.
func tableSet(t *rule.Table, width int) Set {
	spans := make([]span, 0, t.Len())
	for _, v := range t.Values {
		spans = append(spans, span{v, v})
	}
	for _, p := range t.Prefixes {
		s, _ := masked(prefixMask(int(p.Bits), width), p.Value, width)
		spans = append(spans, s.spans...)
	}
	return makeSet(spans)
}

// prefixMask is the mask of the first n of width bits.
func prefixMask(n, width int) value {
	top, free := most(width), most(width-n)
	if n >= width {
		free = value{}
	}
	return value{Hi: top.Hi &^ free.Hi, Lo: top.Lo &^ free.Lo}
}
