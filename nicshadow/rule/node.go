package rule

// A lane before it is placed in a node.
type lane struct {
	word             uint8
	flip             bool // leaves when it passes
	merged           bool // stands for several tests, of which the first is at pc
	mask, base, span uint64
	pc, exit         int // of its test; where to leave to
}

// maxTests bounds the tests of one node, so that the time to prepare a
// program grows with its length only: a test that always holds has no lane.
const maxTests = 16

// fill packs tests into a node, from its pc along the spine, as many as it
// holds. A plain node keeps each test to itself.
func (p *preparer) fill(to unfilled) {
	n := to.n
	lanes, pc := p.gather(to.pc, to.plain, func(old, more []lane) bool {
		return len(old) == 0 || len(old)+len(more) <= laneCount
	})
	last := p.number(pc)
	for len(lanes) > laneCount { // one test with more lanes than a node has
		rest := p.newNode()
		p.place(n, lanes[:laneCount], rest)
		n, lanes = rest, lanes[laneCount:]
	}
	p.place(n, lanes, last)
}

// gather makes the lanes of the tests from pc on, along the spine, as long as
// more of them fit to those there are, and says where the spine goes on.
func (p *preparer) gather(pc int, plain bool, fit func(old, more []lane) bool) ([]lane, int) {
	lanes := p.lanes[:0]
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
		if !plain && next == t.yes && len(more) == 1 && p.merge(lanes, more[0]) {
			pc = next
			continue
		}
		if !fit(lanes, more) {
			break
		}
		lanes, pc = append(lanes, more...), next
	}
	return lanes, pc
}

// place writes lanes and the way behind them into node n.
func (p *preparer) place(n int32, lanes []lane, through int32) {
	var nd node
	var exits [laneCount]int32
	for i := range lanes {
		l := &lanes[i]
		nd.mask[i], nd.base[i], nd.span[i], nd.word[i] = l.mask, l.base, l.span, l.word
		exits[i] = p.exit(l)
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
	p.nodes[n] = nd
}

// exit says where a lane leaves to.
func (p *preparer) exit(l *lane) int32 {
	if l.merged {
		return p.start(l.exit, true)
	}
	return p.number(l.exit)
}

// merge makes m part of a lane among lanes that looks at the same word: one
// compare instead of two. When it fails, it is not known which of the two
// tests failed, nor whether one between them would have: then the tests run
// once more, one by one, from the first on. That costs one more node, so it
// is done only for what leaves to a drop: the guards, most of all.
func (p *preparer) merge(lanes []lane, m lane) bool {
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
// they leave for the other. The lanes are good until the next call.
func (p *preparer) spine(t *test) (lanes []lane, next int) {
	yes := p.prefersYes(t)
	lanes, ok := t.lanesFor(yes, p.more[:0])
	if !ok {
		yes = !yes
		lanes, _ = t.lanesFor(yes, p.more[:0])
	}
	if yes {
		return lanes, t.yes
	}
	return lanes, t.no
}

// prefersYes reports whether the road of a frame more likely continues where
// t holds. A return is no road. Where both ways go on, they do so where the
// test holds, unless what follows on failure is one more of several
// alternatives: a test that goes the same way when it holds.
func (p *preparer) prefersYes(t *test) bool {
	yes, no := p.thread(t.yes), p.thread(t.no)
	if p.u.Insns[yes].Op == OpRet {
		return p.u.Insns[no].Op == OpRet && p.u.Insns[yes].A != uint8(Drop)
	}
	if in := p.u.Insns[no]; opDefs[in.Op].flow == flowTest {
		return p.thread(no+1) != yes
	}
	return true
}
