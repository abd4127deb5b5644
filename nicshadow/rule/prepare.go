package rule

import (
	"slices"
	"sync"

	"sekimori/nicshadow/frame"
)

// The prepared form, which Run walks. Its parts:
//
// A lane is one test of one word of the key:
//
//	pass = (word & mask) - base <= span, unsigned
//
// That is equality of one field or of several that share a word (span 0), of
// their prefixes and flags, and every range and comparison of a field with
// numbers. A lane leaves the node when it fails or, flipped, when it passes.
//
// A node is laneCount lanes made at once, without a branch between them. The
// first lane that leaves says where to go, else the node falls through. So a
// node is a stretch of the program along one path, its spine, from which each
// test leaves one way; most policies need one or two nodes for a frame.
//
// What no lane can test is a special: a table, a comparison of fields, the
// arithmetic on registers.
//
// A head is the first node of a class, with lanes made for IPv4 and ARP.
//
// Where to go is a number: a node below len(nodes), a special from
// specialBase on, or a leaf, negative, that holds the outcome.
//
// The point is that a frame costs no branch that depends on it but the one
// behind each node: the random mix of five frames of BenchmarkJudge takes no
// longer than each of them alone. The walk over the wire instructions that
// this replaced took 30 ns of that mix, this takes 4 (parsing 4 more).
type prepared struct {
	// heads and entry say where a class begins, at a head if it has one.
	way
	ingress  *way // nil where the program does not judge what comes in
	nodes    []node
	specials []special
}

// A way is where judging begins in one direction.
type way struct {
	heads [frame.NumClasses]*head
	entry [frame.NumClasses]int32
}

const laneCount = 4

type node struct {
	mask, base, span [laneCount]uint64
	word             [laneCount]uint8
	// next says where to go for each set of lanes that failed, lane i being
	// bit i: one load, where a search for the first lane that leaves would
	// take three instructions more.
	next [1 << laneCount]int32
}

// specialBase is the number of the first special.
const specialBase = 1 << 30

// leaf is the number of an outcome.
func leaf(v Verdict, pc int) int32 { return ^int32(pc<<2 | int(v&3)) }

// outcome is what a leaf stands for.
func outcome(n int) Outcome {
	return Outcome{Verdict(^n & 3), uint32(^n) >> 2}
}

// A preparer builds the prepared form of a unit.
type preparer struct {
	u   *Unit
	out *prepared
	// started holds, by pc, 1 + the number of the node or special that begins
	// there; plain those of the nodes without merged lanes.
	started, plain []int32
	heads          []*head // by the pc where they begin
	nodes          []node
	todo           []unfilled
	tables         []*searcher // made when first used
	lanes, more    []lane      // scratch of gather
	current        test
}

// preparers keeps the memory of preparers: most of what prepare needs is for the
// time of the work only.
var preparers = sync.Pool{New: func() any {
	return &preparer{lanes: make([]lane, 0, 2*laneCount+2*MaxRow), more: make([]lane, 0, 2*MaxRow)}
}}

// maxKept is how long a program may be whose preparer is kept.
const maxKept = 1 << 12

// reset readies p for u.
func (p *preparer) reset(u *Unit, out *prepared) {
	p.u, p.out = u, out
	p.started, p.plain = zeroed(p.started, len(u.Insns)), zeroed(p.plain, len(u.Insns))
	p.heads, p.tables = zeroed(p.heads, len(u.Insns)), zeroed(p.tables, len(u.Tables))
	p.nodes, p.todo = p.nodes[:0], p.todo[:0]
}

// zeroed is n zeroes, in the memory of s if that is enough.
func zeroed[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// keep gives p's memory to the next, and keeps nothing of the program alive.
func (p *preparer) keep() {
	if len(p.u.Insns) > maxKept || len(p.u.Tables) > maxKept {
		return
	}
	clear(p.heads)
	clear(p.tables)
	p.u, p.out = nil, nil
	p.current = test{}
	preparers.Put(p)
}

// An unfilled is a node or special whose number is known and no more.
type unfilled struct {
	n     int32
	pc    int
	plain bool
}

// prepare makes out the prepared form of u, which verify accepted. There is at
// most one node for each instruction and way to fill it (and one more for
// each two lanes of a row), so time and memory grow with the program only.
func prepare(u *Unit, out *prepared) {
	p := preparers.Get().(*preparer)
	defer p.keep()
	p.reset(u, out)
	p.begin(u.Entries[:], &p.out.way)
	if u.Ingress != nil {
		p.out.ingress = new(way)
		p.begin(u.Ingress, p.out.ingress)
	}
	for len(p.todo) > 0 {
		next := p.todo[len(p.todo)-1]
		p.todo = p.todo[:len(p.todo)-1]
		if next.n >= specialBase {
			p.fillSpecial(int(next.n-specialBase), next.pc)
		} else {
			p.fill(next)
		}
	}
	out.nodes = slices.Clone(p.nodes)
}

// thread follows the jumps at pc.
func (p *preparer) thread(pc int) int {
	for p.u.Insns[pc].Op == OpJmp {
		pc += 1 + int(p.u.Insns[pc].Off)
	}
	return pc
}

// number says where to go to run the program from pc on.
func (p *preparer) number(pc int) int32 {
	pc = p.thread(pc)
	if in := p.u.Insns[pc]; in.Op == OpRet {
		return leaf(Verdict(in.A), pc)
	}
	return p.start(pc, false)
}

// start is the number of the node or special that begins at pc, made now if
// there is none yet.
func (p *preparer) start(pc int, plain bool) int32 {
	made := &p.started[pc]
	if plain {
		made = &p.plain[pc]
	}
	if *made != 0 {
		return *made - 1
	}
	var n int32
	if t := p.test(pc); t.special {
		n = int32(specialBase + len(p.out.specials))
		p.out.specials = append(p.out.specials, special{})
	} else {
		n = p.newNode()
	}
	*made = n + 1
	p.todo = append(p.todo, unfilled{n, pc, plain})
	return n
}

func (p *preparer) newNode() int32 {
	p.nodes = append(p.nodes, node{})
	return int32(len(p.nodes) - 1)
}
