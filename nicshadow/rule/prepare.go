package rule

import "sekimori/nicshadow/frame"

// The prepared form, which Run walks. Its parts:
//
// A lane is one test of one word of the key:
//
//	pass = (word & mask) - base <= span, unsigned
//
// That is equality of one field or of several that share a word (span 0), of
// their prefixes and flags, and every range and comparison of a field with
// numbers. A lane leaves the node when it passes, or when it fails.
//
// A node is laneCount lanes made at once, without a branch between them. The
// first lane that leaves says where to go, else the node falls through. So a
// node is a stretch of the program along one path, its spine, from which each
// test leaves one way; most policies need one or two nodes for a frame.
//
// What no lane can test is a special: a table, a comparison of fields, the
// arithmetic on registers.
//
// Where to go is a number: a node below len(nodes), a special from there on,
// or a leaf, negative, that holds the outcome.
//
// Measured on the mix of five frames of BenchmarkJudge (see there): a switch
// over the wire instructions takes 4 times as long, a step a test with a
// branch after each 2 times, mostly in branches predicted wrongly.
type prepared struct {
	entry    [256]int32 // by class, as the key has it: 8 bits need no check
	nodes    []node
	specials []special
}

const laneCount = 4

type node struct {
	mask, base, span [laneCount]uint64
	word             [laneCount]uint8
	// next says where to go for each set of lanes that failed, lane i being
	// bit i. One load takes the place of a search for the first lane that
	// leaves (3 ns with BSF, which is all that GOAMD64=v1 has).
	next [1 << laneCount]int32
}

// leaf is the number of an outcome.
func leaf(v Verdict, pc int) int32 { return ^int32(pc<<1 | int(v&1)) }

func outcome(n int32) Outcome {
	n = ^n
	return Outcome{Verdict(n & 1), uint32(n) >> 1}
}

// A lane before it is placed in a node.
type lane struct {
	word             uint8
	mask, base, span uint64
	flip             bool // leaves when it passes
	merged           bool // stands for several tests, of which the first is at pc
	pc, exit         int  // of its test; where to leave to
}

// A preparer builds the prepared form of a unit.
type preparer struct {
	u   *Unit
	out prepared
	// started maps the pc where a node or special begins to its number;
	// plain holds those of the nodes without merged lanes.
	started, plain map[int]int32
	todo           []func()    // fills what started and is empty
	tables         []*searcher // made when first used
}

// maxTests bounds the tests of one node, so that the time to prepare a
// program grows with its length only: a test that always holds has no lane.
const maxTests = 16

// specialBase is the number of the first special.
const specialBase = 1 << 30

// prepare makes the prepared form of u, which verify accepted.
func prepare(u *Unit) prepared {
	p := preparer{u: u, started: make(map[int]int32), plain: make(map[int]int32)}
	p.tables = make([]*searcher, len(u.Tables))
	for i := range p.out.entry {
		p.out.entry[i] = leaf(Drop, 0)
	}
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		p.out.entry[c] = p.number(int(u.Entries[c]))
	}
	for len(p.todo) > 0 {
		next := p.todo[len(p.todo)-1]
		p.todo = p.todo[:len(p.todo)-1]
		next()
	}
	return p.out
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
	return p.start(p.started, pc, false)
}

// start is the number of the node or special that begins at pc, made now if
// there is none yet.
func (p *preparer) start(made map[int]int32, pc int, plain bool) int32 {
	if n, ok := made[pc]; ok {
		return n
	}
	t := p.test(pc)
	if t.special {
		n := int32(specialBase + len(p.out.specials))
		made[pc] = n
		p.out.specials = append(p.out.specials, special{})
		p.todo = append(p.todo, func() { p.fillSpecial(int(n)-specialBase, pc) })
		return n
	}
	n := p.newNode()
	made[pc] = n
	p.todo = append(p.todo, func() { p.fill(n, pc, plain) })
	return n
}

func (p *preparer) newNode() int32 {
	p.out.nodes = append(p.out.nodes, node{})
	return int32(len(p.out.nodes) - 1)
}

// fill packs tests into node n, from pc along the spine, as many as it holds.
// A plain node keeps each test to itself.
func (p *preparer) fill(n int32, pc int, plain bool) {
	var lanes []lane
	for range maxTests {
		pc = p.thread(pc)
		if p.u.Insns[pc].Op == OpRet {
			break
		}
		t := p.test(pc)
		if t.special {
			break
		}
		more, next := p.spine(t)
		if !plain && next == t.yes && p.merge(lanes, more, t) {
			pc = next
			continue
		}
		if len(lanes) > 0 && len(lanes)+len(more) > laneCount {
			break
		}
		lanes, pc = append(lanes, more...), next
	}
	last := p.number(pc)
	for len(lanes) > laneCount { // one test with more lanes than a node has
		rest := p.newNode()
		p.place(n, lanes[:laneCount], rest)
		n, lanes = rest, lanes[laneCount:]
	}
	p.place(n, lanes, last)
}

// place writes lanes and the way behind them into node n.
func (p *preparer) place(n int32, lanes []lane, through int32) {
	var nd node
	var exits [laneCount]int32
	for i := range lanes {
		l := &lanes[i]
		nd.mask[i], nd.base[i], nd.span[i], nd.word[i] = l.mask, l.base, l.span, l.word
		if l.merged {
			exits[i] = p.start(p.plain, l.exit, true)
		} else {
			exits[i] = p.number(l.exit)
		}
	}
	for failed := range nd.next {
		nd.next[failed] = through
		for i := range lanes {
			if fails := failed>>i&1 != 0; fails != lanes[i].flip {
				nd.next[failed] = exits[i]
				break
			}
		}
	}
	p.out.nodes[n] = nd
}

// merge makes the one lane in more part of a lane among lanes that looks at
// the same word, where both leave to a drop: one compare instead of two. When
// it fails, it is not known which of the two tests failed, nor whether one
// between them would have: then the tests run once more, one by one, from the
// first on. It costs a node for frames that drop, and only for those.
func (p *preparer) merge(lanes, more []lane, t test) bool {
	if len(more) != 1 {
		return false
	}
	m := more[0]
	for i := range lanes {
		l := &lanes[i]
		if l.word != m.word || !l.equality() || !m.equality() || !p.drops(l) || !p.drops(&m) {
			continue
		}
		if both := l.mask & m.mask; l.base&both != m.base&both {
			continue
		}
		l.mask |= m.mask
		l.base |= m.base
		l.merged, l.exit = true, l.pc
		return true
	}
	return false
}

func (l *lane) equality() bool { return l.span == 0 && !l.flip && l.mask != 0 }

// drops reports whether l leaves to a drop at once.
func (p *preparer) drops(l *lane) bool {
	in := p.u.Insns[p.thread(l.exit)]
	return l.merged || in.Op == OpRet && in.A == uint8(Drop)
}

// spine chooses which way a test continues, and makes its lanes for that way:
// they leave for the other.
func (p *preparer) spine(t test) (lanes []lane, next int) {
	yes, yesOK := t.lanesFor(true)
	no, noOK := t.lanesFor(false)
	if !noOK || yesOK && p.prefersYes(t) {
		return yes, t.yes
	}
	return no, t.no
}

// prefersYes reports whether the road of a frame more likely continues where
// t holds. A return is no road. Where both ways go on, they do so where the
// test holds, unless what follows on failure is one more of several
// alternatives: a test that goes the same way when it holds.
func (p *preparer) prefersYes(t test) bool {
	yes, no := p.thread(t.yes), p.thread(t.no)
	if p.u.Insns[yes].Op == OpRet {
		return p.u.Insns[no].Op == OpRet && p.u.Insns[yes].A == uint8(Forward)
	}
	if in := p.u.Insns[no]; opDefs[in.Op].flow == flowTest {
		alternative := p.thread(no + 1)
		return alternative != yes
	}
	return true
}
