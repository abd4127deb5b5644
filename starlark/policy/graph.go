package policy

import (
	"math"
	"slices"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// The compiler's values are decision trees over frames, kept as one graph
// without duplicates: an inner node is a test, a leaf is what the expression
// is for the frames that get there.
//
//	syn and dst_port in (80, 443)      [syn]--no--> False
//	                                     |yes
//	                                  [dst_port in {80,443}]--no--> False
//	                                     |yes
//	                                    True
//
// An nid refers to a node (0 and up) or a leaf (below 0).
type nid int32

// noValue marks a local variable that is not assigned yet.
const noValue nid = math.MinInt32

// An inner node: the test, and where it leads if it holds and if not.
type node struct {
	test   tid
	hi, lo nid
	pos    rule.Pos // of the test in the source: equal tests of two lines are two nodes
	raises bool     // some leaf below is an exception, or some test an act
}

func (p *node) hash() uint64 {
	return mix(mix(uint64(p.test), uint64(uint32(p.hi))<<32|uint64(uint32(p.lo))), packed(p.pos))
}

// A leafKind says what a leaf is.
type leafKind uint8

const (
	leafConst   leafKind = iota // a Starlark value
	leafInt                     // an integer expression over fields
	leafAddr                    // an address field: an ip or a mac
	leafFlag                    // a flag field, which is a test where it is used
	leafSeq                     // a list or tuple with parts that depend on the frame
	leafFunc                    // a function defined within the predicate
	leafAbsent                  // a field that later fragments do not carry
	leafError                   // raises: a mistake, unless no frame gets here
	leafTouch                   // raises: an absent field was looked at
	leafNext                    // control goes on to the next statement
	leafBreak                   // ... leaves the loop
	leafAgain                   // ... goes to the loop's next round
	leafReturn                  // ... returns inner
	leafVerdict                 // the frame's verdict
)

type leaf struct {
	kind    leafKind
	verdict rule.Verdict // leafVerdict
	field   frame.Field  // leafAddr, leafFlag
	pos     rule.Pos     // where a truth value was decided; where it raises
	expr    eid          // leafInt
	inner   nid          // leafReturn
	why     uint32       // leafVerdict
	v       starlark.Value
	seq     *sequence
	fn      *closure
	err     *Error
}

// raises reports whether the leaf ends the predicate instead of being a value.
func (l *leaf) raises() bool { return l.kind == leafError || l.kind == leafTouch }

// A leafKey says which leaves are equal. x is what tells constants apart that
// no two numbers can: it has identity or is comparable.
type leafKey struct {
	kind leafKind
	pos  rule.Pos
	n, m int64
	x    any
}

func (k *leafKey) hash() uint64 {
	return mix(mix(uint64(k.n), packed(k.pos)), uint64(k.m)<<8|uint64(k.kind))
}

func packed(p rule.Pos) uint64 {
	return uint64(p.File)<<48 | uint64(p.Line)<<16 | uint64(p.Col)
}

// A graph owns nodes, leaves, tests, sets and integer expressions, each kept
// once.
type graph struct {
	nodes   []node
	nodeIDs index
	leaves  []leaf
	keys    []leafKey // by leaf
	leafIDs index
	objects map[any]nid // leaves whose key has an x
	tests   []test
	testIDs index
	sets    []set
	setIDs  map[uint64][]sid
	exprs   []expr
	exprIDs map[expr]eid
	// compact takes known tests out of a tree that has grown.
	compact func(nid) nid
	work    int // nodes walked over
}

// compactAt is how many nodes one walk may add before its result is looked at.
// Trees over trees multiply; what they ask twice falls out again.
const compactAt = 128

func newGraph() *graph {
	return &graph{
		objects: make(map[any]nid),
		setIDs:  make(map[uint64][]sid),
		exprIDs: make(map[expr]eid),
	}
}

// clear empties the graph and keeps its memory, unless it has grown large.
func (g *graph) clear() {
	if len(g.nodes)+len(g.leaves) > 1<<12 || len(g.sets) > 1<<10 {
		*g = *newGraph()
		return
	}
	clear(g.leaves)
	clear(g.sets)
	g.work = 0
	clear(g.keys)
	g.nodes, g.leaves, g.keys, g.tests, g.sets, g.exprs = g.nodes[:0], g.leaves[:0], g.keys[:0], g.tests[:0], g.sets[:0], g.exprs[:0]
	g.nodeIDs.clear()
	g.leafIDs.clear()
	g.testIDs.clear()
	clear(g.objects)
	clear(g.setIDs)
	clear(g.exprIDs)
}

func (g *graph) leaf(n nid) *leaf { return &g.leaves[^n] }

// addLeaf adds a leaf that is like no other.
func (g *graph) addLeaf(l leaf) nid {
	g.leaves = append(g.leaves, l)
	g.keys = append(g.keys, leafKey{})
	return ^nid(len(g.leaves) - 1)
}

// internLeaf finds or adds a leaf.
func (g *graph) internLeaf(k leafKey, l leaf) nid {
	if k.x != nil {
		n, ok := g.objects[k.x]
		if !ok {
			n = g.addLeaf(l)
			g.objects[k.x] = n
		}
		return n
	}
	i := g.leafIDs.start(k.hash())
	for ; g.leafIDs.slots[i] != 0; i = g.leafIDs.next(i) {
		if id := g.leafIDs.slots[i] - 1; g.keys[id] == k {
			return ^nid(id)
		}
	}
	n := g.addLeaf(l)
	g.keys[^n] = k
	if g.leafIDs.add(i, int32(^n)) {
		g.leafIDs.rebuild(func(id int32) uint64 { return g.keys[id].hash() })
	}
	return n
}

// raises reports whether evaluating n may do more than yield a value: some path
// ends in an exception, or takes a token.
func (g *graph) raises(n nid) bool {
	if n >= 0 {
		return g.nodes[n].raises
	}
	return g.leaf(n).raises()
}

// branch is the node that asks t: hi where it holds, else lo.
func (g *graph) branch(t tid, hi, lo nid, pos rule.Pos) nid {
	act := g.tests[t].kind == testRate
	if hi == lo && !act {
		return hi
	}
	p := node{t, hi, lo, pos, false}
	i := g.nodeIDs.start(p.hash())
	for ; g.nodeIDs.slots[i] != 0; i = g.nodeIDs.next(i) {
		if q := &g.nodes[g.nodeIDs.slots[i]-1]; q.test == t && q.hi == hi && q.lo == lo && q.pos == pos {
			return nid(g.nodeIDs.slots[i] - 1)
		}
	}
	n := nid(len(g.nodes))
	p.raises = act || g.raises(hi) || g.raises(lo)
	g.nodes = append(g.nodes, p)
	if g.nodeIDs.add(i, int32(n)) {
		g.nodeIDs.rebuild(func(id int32) uint64 { return g.nodes[id].hash() })
	}
	return n
}

// spent reports whether the budget of a compilation is.
func (g *graph) spent() bool { return g.work > maxWork || len(g.nodes) > maxNodes }

// A memo remembers the results of one walk over a graph. Most walks are over
// a handful of nodes, for which a list is faster than a map.
type memo struct {
	few  [12][2]nid
	n    int
	many map[nid]nid
}

func (m *memo) get(n nid) (nid, bool) {
	for i := range m.n {
		if m.few[i][0] == n {
			return m.few[i][1], true
		}
	}
	r, ok := m.many[n]
	return r, ok
}

func (m *memo) put(n, r nid) {
	if m.n < len(m.few) {
		m.few[m.n] = [2]nid{n, r}
		m.n++
		return
	}
	if m.many == nil {
		m.many = make(map[nid]nid)
	}
	m.many[n] = r
}

// each replaces each leaf of n by what f makes of it. f is called once a leaf.
// Once the budget is spent it does nothing: the compilation fails.
func (g *graph) each(n nid, f func(nid) nid) nid {
	if n < 0 {
		return f(n)
	}
	if g.spent() {
		return n
	}
	var m memo
	before := len(g.nodes)
	r := g.eachIn(n, f, &m)
	if len(g.nodes)-before > compactAt {
		r = g.compact(r)
	}
	return r
}

func (g *graph) eachIn(n nid, f func(nid) nid, m *memo) nid {
	if r, ok := m.get(n); ok {
		return r
	}
	g.work++
	var r nid
	if n < 0 {
		r = f(n)
	} else {
		p := g.nodes[n]
		hi := g.eachIn(p.hi, f, m)
		lo := g.eachIn(p.lo, f, m)
		r = g.branch(p.test, hi, lo, p.pos)
	}
	m.put(n, r)
	return r
}

// values is each for leaves that are values: exceptions stay what they are.
func (g *graph) values(n nid, f func(nid) nid) nid {
	return g.each(n, func(l nid) nid {
		if g.leaf(l).raises() {
			return l
		}
		return f(l)
	})
}

// pairs is values for each pair of a leaf of a and one of b; a is evaluated first.
func (g *graph) pairs(a, b nid, f func(a, b nid) nid) nid {
	return g.values(a, func(x nid) nid {
		return g.values(b, func(y nid) nid { return f(x, y) })
	})
}

// after is r where evaluating n, whose value r does not use, does not raise.
func (g *graph) after(n, r nid) nid {
	if !g.raises(n) {
		return r
	}
	return g.values(n, func(nid) nid { return r })
}

// A tid is the number of a test.
type tid int32

// A testKind says what a test compares.
type testKind uint8

const (
	testSet      testKind = iota // field a is in the set
	testMask                     // field a & mask == value
	testEqual                    // field a == field b
	testExpr                     // expression x relation expression y
	testExprs                    // expression x is in the set, all of it points
	testRate                     // limit number set has a token. An act: asking takes it
	testFlow                     // the frame is of a flow that the other side has sent in
	testAnswered                 // the frame answers the other side
	testLease                    // field a is the leased address
)

// A test is a question about a frame. Tests are pure: asking one twice, or
// not at all, changes nothing. Only not asking a testRate would.
type test struct {
	kind        testKind
	less        bool // testExpr: x < y, else x == y
	a, b        frame.Field
	set         sid
	x, y        eid
	mask, value uint64
}

func (t *test) hash() uint64 {
	a := uint64(t.kind)<<56 | uint64(b2i(t.less))<<48 | uint64(t.a)<<40 | uint64(t.b)<<32 | uint64(uint32(t.set))
	return mix(mix(a, uint64(uint32(t.x))<<32|uint64(uint32(t.y))), t.mask^t.value<<1)
}

func (g *graph) test(t test) tid {
	i := g.testIDs.start(t.hash())
	for ; g.testIDs.slots[i] != 0; i = g.testIDs.next(i) {
		if id := g.testIDs.slots[i] - 1; g.tests[id] == t {
			return tid(id)
		}
	}
	id := tid(len(g.tests))
	g.tests = append(g.tests, t)
	if g.testIDs.add(i, int32(id)) {
		g.testIDs.rebuild(func(id int32) uint64 { return g.tests[id].hash() })
	}
	return id
}

// A sid is the number of a set.
type sid int32

func (g *graph) set(s set) sid {
	h := s.hash()
	for _, id := range g.setIDs[h] {
		if slices.Equal(g.sets[id], s) {
			return id
		}
	}
	id := sid(len(g.sets))
	g.sets = append(g.sets, s)
	g.setIDs[h] = append(g.setIDs[h], id)
	return id
}

// inSet is hi for frames whose field is in s, and lo for the others.
func (g *graph) inSet(f frame.Field, s set, hi, lo nid, pos rule.Pos) nid {
	max := maxOf(f.Width())
	if len(s) == 0 || max.less(s[0].a) {
		return lo
	}
	if max.less(s[len(s)-1].b) {
		s = s.intersect(set{{b: max}})
	}
	if s[0] == (span{b: max}) {
		return hi
	}
	return g.branch(g.test(test{kind: testSet, a: f, set: g.set(s)}), hi, lo, pos)
}

// constOf is the constant that n is for every frame; ok is false where it is
// not one.
func (g *graph) constOf(n nid) (starlark.Value, bool) {
	if n >= 0 || n == noValue {
		return nil, false
	}
	l := g.leaf(n)
	return l.v, l.kind == leafConst
}

// invert is the operator that holds where op does not.
func invert(op syntax.Token) syntax.Token {
	switch op {
	case syntax.EQL:
		return syntax.NEQ
	case syntax.NEQ:
		return syntax.EQL
	case syntax.LT:
		return syntax.GE
	case syntax.GE:
		return syntax.LT
	case syntax.GT:
		return syntax.LE
	}
	return syntax.GT
}
