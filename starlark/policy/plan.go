package policy

import (
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A shape is the way to test a field for membership in a set.
type shape uint8

const (
	shapeRow   shape = iota // one instruction a span
	shapeNets               // one masked comparison a network
	shapeTable              // one lookup
	shapeTree               // a binary search with comparisons
)

// Limits between the shapes. A lookup takes about as long as two or three
// comparisons, and a row of those ends early on average.
const (
	maxRow       = 3    // spans, or networks, tested one by one
	maxTableInts = 4096 // integers that are listed in a table rather than searched as ranges
	tableCost    = 3    // of a lookup, in comparisons
)

// A planned set is a set, or its complement, and the shape to test it in.
type plannedSet struct {
	set     set
	inverse bool // set is the complement of what is asked
	shape   shape
	cost    int
}

// costOf is about how many comparisons a membership takes.
func costOf(f frame.Field, s set) int { return planOf(f, s).cost }

// planOf finds the cheapest way to test a field for membership.
func planOf(f frame.Field, s set) plannedSet {
	best := shapeOf(f, s)
	if best.cost <= 1 || len(s) > maxFactLen {
		return best // its complement is as long
	}
	if p := shapeOf(f, s.complement(maxOf(f.Width()))); p.cost < best.cost {
		p.inverse = true
		return p
	}
	return best
}

// shapeOf finds the cheapest way to test for s itself.
func shapeOf(f frame.Field, s set) plannedSet {
	p := plannedSet{set: s}
	width := f.Width()
	if f.Kind() == frame.KindIPv4 || f.Kind() == frame.KindIPv6 {
		return shapeOfAddrs(p, f)
	}
	ends, count, points := 0, 0, true
	for _, q := range s {
		n := spanCost(q, width)
		ends += n
		points = points && q.a == q.b
		if count <= maxTableInts && q.b.lo-q.a.lo < maxTableInts {
			count += int(q.b.lo-q.a.lo) + 1
		} else {
			count = maxTableInts + 1
		}
	}
	p.shape, p.cost = shapeRow, ends
	switch {
	case len(s) <= maxRow:
	case count <= maxTableInts || points:
		p.shape, p.cost = shapeTable, tableCost
	case width <= 32:
		p.shape, p.cost = shapeTree, treeDepth(len(s))
	}
	return p
}

func treeDepth(n int) int {
	d := 1
	for ; n > 0; n /= 2 {
		d++
	}
	return d
}

// spanCost is how many instructions test one span of an integer or a MAC.
func spanCost(q span, width int) int {
	switch {
	case q.a == q.b || width <= 16 || q.a == (u128{}) && width <= 32 || q.b == maxOf(width) && width <= 32:
		return 1
	case width <= 32:
		return 2
	}
	return 6 // through registers
}

// shapeOfAddrs: addresses are networks, a single address the longest of them.
func shapeOfAddrs(p plannedSet, f frame.Field) plannedSet {
	width := f.Width()
	if len(p.set) == 1 {
		if _, ok := p.set[0].isPrefix(width); ok {
			p.shape, p.cost = shapeNets, 1
			return p
		}
	}
	if len(p.set) <= maxRow {
		if nets, ok := p.set.prefixes(width, maxRow); ok {
			p.shape, p.cost = shapeNets, len(nets)
			return p
		}
	}
	if width == 32 && len(p.set) == 1 {
		p.shape, p.cost = shapeRow, spanCost(p.set[0], width)
		return p
	}
	p.shape, p.cost = shapeTable, tableCost
	return p
}

// planSet is the first of the steps that ask whether a field is in a set.
func (l *lowering) planSet(t test, hi, lo int32, pos rule.Pos) int32 {
	p := planOf(t.a, l.sets[t.set])
	id := t.set
	if p.inverse {
		hi, lo = lo, hi
		id = l.set(p.set)
	}
	switch p.shape {
	case shapeTable:
		return l.add(step{
			insn: rule.Insn{Op: rule.OpTestIn, A: uint8(t.a), K: l.table(id, l.tableKind(t.a, p.set))},
			not:  rule.OpTestNotI, pos: pos, hi: hi, lo: lo,
		})
	case shapeTree:
		return l.planTree(t.a, p.set, hi, lo, pos)
	case shapeNets:
		if p.cost == 1 {
			return l.planNet(t.a, p.set[0], hi, lo, pos)
		}
		nets, _ := p.set.prefixes(t.a.Width(), maxRow)
		for i := len(nets) - 1; i >= 0; i-- {
			lo = l.planNet(t.a, nets[i], hi, lo, pos)
		}
		return lo
	}
	for i := len(p.set) - 1; i >= 0; i-- {
		lo = l.planSpan(t.a, p.set[i], hi, lo, pos)
	}
	return lo
}

// planTree searches a set of ranges: is the field below the middle one?
func (l *lowering) planTree(f frame.Field, s set, hi, lo int32, pos rule.Pos) int32 {
	if len(s) <= 1 {
		return l.planSpan(f, s[0], hi, lo, pos)
	}
	mid := len(s) / 2
	below := l.planTree(f, s[:mid], hi, lo, pos)
	above := l.planTree(f, s[mid:], hi, lo, pos)
	return l.add(step{insn: rule.Insn{Op: rule.OpTestLt, A: uint8(f), K: uint32(s[mid].a.lo)}, not: rule.OpTestGe, pos: pos, hi: below, lo: above})
}

// planNet tests for one network, or one address.
func (l *lowering) planNet(f frame.Field, q span, hi, lo int32, pos rule.Pos) int32 {
	if q.a == q.b {
		return l.planSpan(f, q, hi, lo, pos)
	}
	width := maxOf(f.Width())
	mask := u128{width.hi &^ (q.a.hi ^ q.b.hi), width.lo &^ (q.a.lo ^ q.b.lo)}
	k := l.pair(rule.Const{Hi: q.a.hi, Lo: q.a.lo}, rule.Const{Hi: mask.hi, Lo: mask.lo})
	return l.add(step{insn: rule.Insn{Op: rule.OpTestMask, A: uint8(f), K: k}, not: rule.OpTestNMask, pos: pos, hi: hi, lo: lo})
}

// planSpan tests for one range, or one value.
func (l *lowering) planSpan(f frame.Field, q span, hi, lo int32, pos rule.Pos) int32 {
	width := f.Width()
	test := func(op, not rule.Op, k uint32, hi, lo int32) int32 {
		return l.add(step{insn: rule.Insn{Op: op, A: uint8(f), K: k}, not: not, pos: pos, hi: hi, lo: lo})
	}
	first, last := uint32(q.a.lo), uint32(q.b.lo)
	switch {
	case q.a == q.b && width <= 32:
		return test(rule.OpTestEq, rule.OpTestNe, first, hi, lo)
	case q.a == q.b:
		return test(rule.OpTestEqC, rule.OpTestNeC, l.constantAt(q.a), hi, lo)
	case width > 32:
		return l.planWide(f, q, hi, lo, pos)
	case q.a == (u128{}):
		return test(rule.OpTestLe, rule.OpTestGt, last, hi, lo)
	case q.b == maxOf(width):
		return test(rule.OpTestGe, rule.OpTestLt, first, hi, lo)
	case width <= 16:
		return test(rule.OpTestRange, rule.OpInvalid, first|last<<16, hi, lo)
	}
	return test(rule.OpTestGe, rule.OpTestLt, first, test(rule.OpTestLe, rule.OpTestGt, last, hi, lo), lo)
}

// planWide tests a range of MAC addresses, through registers.
func (l *lowering) planWide(f frame.Field, q span, hi, lo int32, pos rule.Pos) int32 {
	e := l.fieldExpr(f)
	upper := l.planTest(test{kind: testExpr, less: true, x: l.constExpr(int64(q.b.lo)), y: e}, lo, hi, pos)
	return l.planTest(test{kind: testExpr, less: true, x: e, y: l.constExpr(int64(q.a.lo))}, lo, upper, pos)
}

// tableKind is the kind of table for a set: exact where it is all points.
func (l *lowering) tableKind(f frame.Field, s set) rule.TableKind {
	points := true
	for _, q := range s {
		if q.a != q.b {
			points = false
			break
		}
	}
	switch k := f.Kind(); {
	case k == frame.KindIPv6 && points:
		return rule.TableExact128
	case k == frame.KindIPv6:
		return rule.TablePrefix128
	case k == frame.KindIPv4 && !points:
		return rule.TablePrefix32
	}
	return rule.TableExact64
}

// table is the index of the table of a set.
func (l *lowering) table(id sid, kind rule.TableKind) uint32 {
	k := tableKey{id, kind}
	if i, ok := l.tables[k]; ok {
		return i
	}
	s := l.sets[id]
	t := rule.Table{Kind: kind}
	switch kind {
	case rule.TablePrefix32, rule.TablePrefix128:
		width := 32
		if kind == rule.TablePrefix128 {
			width = 128
		}
		nets, _ := s.prefixes(width, rule.MaxTable+1)
		t.Prefixes = make([]rule.Prefix, len(nets))
		for i, q := range nets {
			n, _ := q.isPrefix(width)
			t.Prefixes[i] = rule.Prefix{Value: rule.Const{Hi: q.a.hi, Lo: q.a.lo}, Bits: uint8(n)}
		}
	default:
		t.Values = make([]rule.Const, 0, len(s))
		for _, q := range s {
			for v := q.a; ; v = v.next() {
				t.Values = append(t.Values, rule.Const{Hi: v.hi, Lo: v.lo})
				if v == q.b {
					break
				}
			}
		}
	}
	i := uint32(len(l.unit.Tables))
	l.unit.Tables = append(l.unit.Tables, t)
	l.tables[k] = i
	return i
}
