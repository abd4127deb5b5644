package rule

import (
	"sekimori/nicshadow/frame"
)

// A test is a test instruction as the preparer sees it: a set of values of
// one word, or several words that must all be equal.
type test struct {
	pc, yes, no int
	special     bool // none of the below
	// all must pass. With more than one, only "all pass" can be a spine.
	all []lane
	// in is a set of intervals of word, under mask, in place; used where all
	// is nil.
	in   []interval
	word uint8
	mask uint64
}

// An interval is the numbers from lo to hi, both included.
type interval struct{ lo, hi uint64 }

// lanesFor makes the lanes that continue where the test holds (way true) or
// fails (way false) and leave otherwise; ok is false where that takes more
// than one node.
func (t *test) lanesFor(way bool) (lanes []lane, ok bool) {
	exit := t.no
	if !way {
		exit = t.yes
	}
	if t.all != nil {
		for _, l := range t.all {
			l.pc, l.exit, l.flip = t.pc, exit, !way
			lanes = append(lanes, l)
		}
		return lanes, way || len(lanes) == 1
	}
	in, flip := t.in, true
	if way {
		// One interval: leave outside of it. More: leave in one of the gaps.
		if len(in) == 1 {
			flip = false
		} else {
			in = t.gaps()
		}
	}
	for _, v := range in {
		lanes = append(lanes, lane{
			word: t.word, mask: t.mask, base: v.lo, span: v.hi - v.lo, flip: flip, pc: t.pc, exit: exit,
		})
	}
	return lanes, len(lanes) <= laneCount
}

// gaps are the intervals of the word under mask that in leaves out.
func (t *test) gaps() []interval {
	var out []interval
	next, open := uint64(0), true
	for _, v := range t.in {
		if v.lo > next {
			out = append(out, interval{next, v.lo - 1})
		}
		next, open = v.hi+1, v.hi < t.mask
	}
	if open {
		out = append(out, interval{next, t.mask})
	}
	return out
}

// test describes the instruction at pc.
func (p *preparer) test(pc int) test {
	in := p.u.Insns[pc]
	t := test{pc: pc, yes: pc + 1, no: pc + 1 + int(in.Off)}
	switch in.Op {
	case OpTestNe, OpTestNeC, OpTestNMask, OpTestNotI:
		t.yes, t.no = t.no, t.yes
	}
	f := frame.Field(in.A)
	switch in.Op {
	case OpTestEq, OpTestNe:
		t.match(Match{f, prefixMask(uint8(f.Width()), uint8(f.Width())), Const{Lo: uint64(in.K)}})
	case OpTestEqC, OpTestNeC:
		t.match(Match{f, prefixMask(uint8(f.Width()), uint8(f.Width())), p.u.Consts[in.K]})
	case OpTestMask, OpTestNMask:
		t.match(Match{f, p.u.Consts[in.K+1], p.u.Consts[in.K]})
	case OpTestRow:
		t.match(p.u.Rows[in.K]...)
	case OpTestLt, OpTestLe, OpTestGt, OpTestGe, OpTestRange:
		t.ranges(f, compared(in))
	case OpTestIn, OpTestNotI:
		t.special = !t.fromTable(f, &p.u.Tables[in.K])
	default:
		t.special = true
	}
	return t
}

// match makes t a conjunction of masked comparisons, one lane for each word.
func (t *test) match(row ...Match) {
	t.all = make([]lane, 0, 2*len(row))
	for _, m := range row {
		i := m.Field.Info()
		if i.Width == 128 {
			t.compare(i.Word, m.Mask.Hi, m.Value.Hi)
			t.compare(i.Word+1, m.Mask.Lo, m.Value.Lo)
		} else {
			t.compare(i.Word, m.Mask.Lo<<i.Shift, m.Value.Lo<<i.Shift)
		}
	}
}

// compare adds "word & mask == value" to t.
func (t *test) compare(word uint8, mask, value uint64) {
	if mask == 0 {
		return
	}
	for i := range t.all {
		l := &t.all[i]
		if l.word != word {
			continue
		}
		if both := l.mask & mask; l.mask == 0 || l.base&both != value&both {
			l.mask, l.base = 0, 1 // never passes: it cannot have both values
		} else {
			l.mask |= mask
			l.base |= value
		}
		return
	}
	t.all = append(t.all, lane{word: word, mask: mask, base: value})
}

// compared are the values for which a comparison with a number holds.
func compared(in Insn) []interval {
	k, top := uint64(in.K), uint64(1)<<frame.Field(in.A).Width()-1
	switch {
	case in.Op == OpTestRange:
		return []interval{{k & 0xffff, k >> 16}}
	case in.Op == OpTestLt && k > 0:
		return []interval{{0, k - 1}}
	case in.Op == OpTestLe:
		return []interval{{0, k}}
	case in.Op == OpTestGt && k < top:
		return []interval{{k + 1, top}}
	case in.Op == OpTestGe:
		return []interval{{k, top}}
	}
	return nil
}

// ranges makes t a set of intervals of f, which are sorted and apart. A field
// keeps its place in its word: the bits below it are masked away, and so the
// order of its values is that of the masked words.
func (t *test) ranges(f frame.Field, in []interval) {
	i := f.Info()
	t.word = i.Word
	t.mask = (1<<i.Width - 1) << i.Shift
	for _, v := range in {
		t.in = append(t.in, interval{v.lo << i.Shift, v.hi<<i.Shift | (1<<i.Shift-1)&t.mask})
	}
}

// maxIntervals is the size of a set that becomes lanes: one node can leave
// for as many intervals, or for as many gaps.
const maxIntervals = laneCount

// fromTable makes t the membership of f in a small table; false where the
// table has to be searched.
func (t *test) fromTable(f frame.Field, table *Table) bool {
	if table.Len() > 4*maxIntervals {
		return false
	}
	ranges := table.intervals()
	i := f.Info()
	if i.Width < 128 {
		var in []interval
		top := uint64(1)<<i.Width - 1
		for _, r := range ranges {
			if r.lo.Lo <= top {
				in = append(in, interval{r.lo.Lo, min(r.hi.Lo, top)})
			}
		}
		if len(in) > maxIntervals {
			return false
		}
		t.ranges(f, in)
		return true
	}
	// Prefixes of 64 bits and less are a matter of the upper word alone.
	if len(ranges) > maxIntervals {
		return false
	}
	t.word, t.mask = i.Word, ^uint64(0)
	for _, r := range ranges {
		if r.lo.Lo != 0 || r.hi.Lo != ^uint64(0) {
			t.in = nil
			return false
		}
		t.in = append(t.in, interval{r.lo.Hi, r.hi.Hi})
	}
	return true
}
