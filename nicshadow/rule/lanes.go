package rule

import (
	"sekimori/nicshadow/frame"
)

// A test is a test instruction as the preparer sees it: a set of values of
// one word, or several words that must all be equal.
type test struct {
	pc, yes, no int
	special     bool // none of the below
	// row says that the lanes in all must pass. With more than one, only that
	// can be a spine.
	row  bool
	lane [2 * MaxRow]lane
	all  int // how many of lane
	// Else in holds intervals of word, under mask, in place, that are sorted
	// and apart.
	in        [maxIntervals]interval
	intervals int
	word      uint8
	mask      uint64
}

// maxIntervals is the size of a set that becomes lanes: one node can leave
// for as many intervals, or for as many gaps.
const maxIntervals = laneCount

// An interval is the numbers from lo to hi, both included.
type interval struct{ lo, hi uint64 }

// lanesFor appends the lanes that continue where the test holds (way true) or
// fails (way false) and leave otherwise; ok is false where that takes more
// than one node. One of the two ways always is ok.
func (t *test) lanesFor(way bool, lanes []lane) (_ []lane, ok bool) {
	exit := t.no
	if !way {
		exit = t.yes
	}
	if t.row {
		for _, l := range t.lane[:t.all] {
			l.pc, l.exit, l.flip = t.pc, exit, !way
			lanes = append(lanes, l)
		}
		return lanes, way || t.all == 1
	}
	add := func(v interval, flip bool) {
		lanes = append(lanes, lane{
			word: t.word, mask: t.mask, base: v.lo, span: v.hi - v.lo, flip: flip, pc: t.pc, exit: exit,
		})
	}
	in := t.in[:t.intervals]
	switch {
	case !way: // leave inside
		for _, v := range in {
			add(v, true)
		}
	case len(in) == 1: // leave outside
		add(in[0], false)
	default: // leave in a gap
		next, open := uint64(0), true
		for _, v := range in {
			if v.lo > next {
				add(interval{next, v.lo - 1}, true)
			}
			next, open = v.hi+1, v.hi < t.mask
		}
		if open {
			add(interval{next, t.mask}, true)
		}
	}
	return lanes, len(lanes) <= laneCount
}

// test describes the instruction at pc. It is good until the next call: a test
// is a kilobyte, most of which a new one would have to clear.
func (p *preparer) test(pc int) *test {
	in := p.u.Insns[pc]
	t := &p.current
	t.pc, t.yes, t.no = pc, pc+1, pc+1+int(in.Off)
	t.special, t.row, t.all, t.intervals = false, false, 0, 0
	switch in.Op {
	case OpTestNe, OpTestNeC, OpTestNMask, OpTestNotI:
		t.yes, t.no = t.no, t.yes
	}
	f := frame.Field(in.A)
	switch in.Op {
	case OpTestEq, OpTestNe:
		t.match(Match{f, fullMask(f), Const{Lo: uint64(in.K)}})
	case OpTestEqC, OpTestNeC:
		t.match(Match{f, fullMask(f), p.u.Consts[in.K]})
	case OpTestMask, OpTestNMask:
		t.match(Match{f, p.u.Consts[in.K+1], p.u.Consts[in.K]})
	case OpTestRow:
		t.match(p.u.Rows[in.K]...)
	case OpTestLt, OpTestLe, OpTestGt, OpTestGe, OpTestRange:
		t.compared(f, in)
	case OpTestIn, OpTestNotI:
		t.special = !t.fromTable(f, &p.u.Tables[in.K])
	default:
		t.special = true
	}
	return t
}

// match makes t a conjunction of masked comparisons, one lane for each word.
func (t *test) match(row ...Match) {
	t.row = true
	for i := range row {
		m, f := &row[i], row[i].Field.Info()
		if f.Width == 128 {
			t.compare(f.Word, m.Mask.Hi, m.Value.Hi)
			t.compare(f.Word+1, m.Mask.Lo, m.Value.Lo)
		} else {
			t.compare(f.Word, m.Mask.Lo<<f.Shift, m.Value.Lo<<f.Shift)
		}
	}
}

// compare adds "word & mask == value" to t.
func (t *test) compare(word uint8, mask, value uint64) {
	if mask == 0 {
		return
	}
	for i := range t.lane[:t.all] {
		l := &t.lane[i]
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
	t.lane[t.all] = lane{word: word, mask: mask, base: value}
	t.all++
}

// fullMask covers all of f.
func fullMask(f frame.Field) Const {
	return prefixMask(uint8(f.Width()), uint8(f.Width()))
}

// compared makes t a comparison of f with a number.
func (t *test) compared(f frame.Field, in Insn) {
	k, top := uint64(in.K), fullMask(f).Lo
	t.of(f)
	switch {
	case in.Op == OpTestRange:
		t.add(interval{k & 0xffff, k >> 16}, f)
	case in.Op == OpTestLt && k > 0:
		t.add(interval{0, k - 1}, f)
	case in.Op == OpTestLe:
		t.add(interval{0, k}, f)
	case in.Op == OpTestGt && k < top:
		t.add(interval{k + 1, top}, f)
	case in.Op == OpTestGe:
		t.add(interval{k, top}, f)
	}
}

// of makes t a set, empty yet, of values of f. The field keeps its place in
// its word: with the bits around it masked away, words are ordered as values.
func (t *test) of(f frame.Field) {
	i := f.Info()
	t.word, t.mask = i.Word, fullMask(f).Lo<<i.Shift
}

// add adds an interval of values of f; false where there are too many.
func (t *test) add(v interval, f frame.Field) bool {
	if t.intervals == maxIntervals {
		return false
	}
	shift := f.Info().Shift
	t.in[t.intervals] = interval{v.lo << shift, v.hi << shift}
	t.intervals++
	return true
}

// fromTable makes t the membership of f in a small table; false where the
// table has to be searched.
func (t *test) fromTable(f frame.Field, table *Table) bool {
	if table.Len() > 4*maxIntervals {
		return false
	}
	ranges := table.intervals()
	if f.Width() == 128 {
		return t.fromUpper(f, ranges)
	}
	t.of(f)
	top := fullMask(f).Lo
	for _, r := range ranges {
		if r.lo.Lo <= top && !t.add(interval{r.lo.Lo, min(r.hi.Lo, top)}, f) {
			return false
		}
	}
	return true
}

// fromUpper is fromTable for prefixes of 64 bits and less of an address of
// 128 bits: they are a matter of its upper word alone.
func (t *test) fromUpper(f frame.Field, ranges []wide) bool {
	t.word, t.mask = f.Info().Word, ^uint64(0)
	for _, r := range ranges {
		if t.intervals == maxIntervals || r.lo.Lo != 0 || r.hi.Lo != ^uint64(0) {
			return false
		}
		t.in[t.intervals] = interval{r.lo.Hi, r.hi.Hi}
		t.intervals++
	}
	return true
}
