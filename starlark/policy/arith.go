package policy

import (
	"math"
	"math/bits"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"go.starlark.net/syntax"
)

// An eid is the number of an integer expression.
type eid int32

// An exprOp is the operation of an integer expression.
type exprOp uint8

const (
	exprConst exprOp = iota // k
	exprField               // field
	exprAdd
	exprSub
	exprMul
	exprDiv
	exprMod
	exprAnd
	exprOr
	exprXor
	exprShl
	exprShr
	exprNeg
	exprNot
)

// An expr is an integer expression over fields, for which the rule machine
// has registers. lo and hi bound its value; both follow from the operands.
type expr struct {
	op     exprOp
	field  frame.Field
	x, y   eid
	k      int64
	lo, hi int64
}

func (g *graph) expr(e expr) eid {
	if id, ok := g.exprIDs[e]; ok {
		return id
	}
	id := eid(len(g.exprs))
	g.exprs = append(g.exprs, e)
	g.exprIDs[e] = id
	return id
}

func (g *graph) constExpr(k int64) eid { return g.expr(expr{op: exprConst, k: k, lo: k, hi: k}) }

// fieldExpr is a field of at most 48 bits as a number.
func (g *graph) fieldExpr(f frame.Field) eid {
	return g.expr(expr{op: exprField, field: f, hi: int64(maxOf(f.Width()).lo)})
}

// exprOps gives the operation of each binary operator on integers.
var exprOps = map[syntax.Token]exprOp{
	syntax.PLUS: exprAdd, syntax.MINUS: exprSub, syntax.STAR: exprMul,
	syntax.SLASHSLASH: exprDiv, syntax.PERCENT: exprMod,
	syntax.AMP: exprAnd, syntax.PIPE: exprOr, syntax.CIRCUMFLEX: exprXor,
	syntax.LTLT: exprShl, syntax.GTGT: exprShr,
}

// arith is x op y. ok is false where the value may leave 64 bits or a shift
// count may leave 0 to 63. Divisors are not zero: the caller has asked.
func (g *graph) arith(op exprOp, x, y eid) (e eid, ok bool) {
	a, b := g.exprs[x], g.exprs[y]
	lo, hi, ok := bounds(op, a, b)
	if !ok {
		return 0, false
	}
	return g.expr(expr{op: op, x: x, y: y, lo: lo, hi: hi}), true
}

// negate is -x, and invertBits ~x; x is never the least integer.
func (g *graph) negate(x eid) (eid, bool) {
	a := g.exprs[x]
	if a.lo == math.MinInt64 {
		return 0, false
	}
	return g.expr(expr{op: exprNeg, x: x, lo: -a.hi, hi: -a.lo}), true
}

func (g *graph) invertBits(x eid) eid {
	a := g.exprs[x]
	return g.expr(expr{op: exprNot, x: x, lo: ^a.hi, hi: ^a.lo})
}

// bounds are the bounds of a op b.
func bounds(op exprOp, a, b expr) (lo, hi int64, ok bool) {
	switch op {
	case exprAdd:
		lo, ok = add(a.lo, b.lo)
		hi, ok2 := add(a.hi, b.hi)
		return lo, hi, ok && ok2
	case exprSub:
		if b.lo == math.MinInt64 || b.hi == math.MinInt64 {
			return 0, 0, false
		}
		lo, ok = add(a.lo, -b.hi)
		hi, ok2 := add(a.hi, -b.lo)
		return lo, hi, ok && ok2
	case exprMul:
		return corners(mul, a, b)
	case exprDiv:
		return divBounds(a, b)
	case exprMod:
		return modBounds(a, b)
	case exprAnd, exprOr, exprXor:
		lo, hi = bitBounds(op, a, b)
		return lo, hi, true
	case exprShl, exprShr:
		if b.lo < 0 || b.hi > 63 {
			return 0, 0, false
		}
		if op == exprShr {
			return corners(func(x, n int64) (int64, bool) { return x >> n, true }, a, b)
		}
		return corners(shl, a, b)
	}
	return 0, 0, false
}

// corners bounds an operation that is monotone in each operand.
func corners(f func(x, y int64) (int64, bool), a, b expr) (lo, hi int64, ok bool) {
	lo, hi = math.MaxInt64, math.MinInt64
	for _, x := range [2]int64{a.lo, a.hi} {
		for _, y := range [2]int64{b.lo, b.hi} {
			v, ok := f(x, y)
			if !ok {
				return 0, 0, false
			}
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	return lo, hi, true
}

func add(x, y int64) (int64, bool) {
	s := x + y
	return s, (s > x) == (y > 0)
}

func mul(x, y int64) (int64, bool) {
	if x == 0 || y == 0 {
		return 0, true
	}
	p := x * y
	return p, p/y == x && !(x == -1 && y == math.MinInt64) && !(y == -1 && x == math.MinInt64)
}

func shl(x, n int64) (int64, bool) {
	s := x << n
	return s, s>>n == x
}

// divBounds: the quotient is no larger than the dividend, and rounds down.
func divBounds(a, b expr) (lo, hi int64, ok bool) {
	if a.lo == math.MinInt64 {
		return 0, 0, false
	}
	if b.lo > 0 {
		return corners(func(x, y int64) (int64, bool) { return floorDiv(x, y), true }, a, b)
	}
	m := max(a.hi, -a.lo)
	return -m, m, true
}

// modBounds: the rest has the sign of the divisor and is less than it.
func modBounds(a, b expr) (lo, hi int64, ok bool) {
	if a.lo == math.MinInt64 || b.lo == math.MinInt64 {
		return 0, 0, false
	}
	if b.hi > 0 {
		hi = b.hi - 1
	}
	if b.lo < 0 {
		lo = b.lo + 1
	}
	if a.lo >= 0 && b.lo >= 0 {
		hi = min(hi, a.hi)
	}
	return lo, hi, true
}

// bitBounds: the operands' signs and the number of their bits bound the result.
func bitBounds(op exprOp, a, b expr) (lo, hi int64) {
	if op == exprAnd && (a.lo >= 0 || b.lo >= 0) {
		hi = math.MaxInt64
		if a.lo >= 0 {
			hi = a.hi
		}
		if b.lo >= 0 {
			hi = min(hi, b.hi)
		}
		return 0, hi
	}
	n := 0
	for _, v := range [4]int64{a.lo, a.hi, b.lo, b.hi} {
		if v < 0 {
			v = ^v
		}
		n = max(n, bits.Len64(uint64(v)))
	}
	hi = math.MaxInt64
	if n < 63 {
		hi = 1<<n - 1
	}
	if a.lo >= 0 && b.lo >= 0 {
		return 0, hi
	}
	return ^hi, hi
}

func floorDiv(x, y int64) int64 {
	q := x / y
	if x%y != 0 && (x < 0) != (y < 0) {
		q--
	}
	return q
}

// between is hi for frames for which lo <= e <= hi.
func (g *graph) between(e eid, from, to int64, hi, lo nid, pos rule.Pos) nid {
	x := g.exprs[e]
	switch {
	case from > to || to < x.lo || from > x.hi:
		return lo
	case from <= x.lo && x.hi <= to:
		return hi
	}
	if f, s, ok := g.solve(e, from, to); ok {
		return g.inSet(f, s, hi, lo, pos)
	}
	if from == to {
		if x.op == exprAnd {
			if t, ok := g.maskTest(x, from); ok {
				return g.branch(t, hi, lo, pos)
			}
		}
		return g.branch(g.test(test{kind: testExpr, x: e, y: g.constExpr(from)}), hi, lo, pos)
	}
	if to < x.hi {
		hi = g.branch(g.test(test{kind: testExpr, less: true, x: g.constExpr(to), y: e}), lo, hi, pos)
	}
	if from > x.lo {
		hi = g.branch(g.test(test{kind: testExpr, less: true, x: e, y: g.constExpr(from)}), lo, hi, pos)
	}
	return hi
}

// solve finds the values of the one field of e for which from <= e <= to,
// where e grows or falls steadily with it.
func (g *graph) solve(e eid, from, to int64) (f frame.Field, s set, ok bool) {
	x := g.exprs[e]
	from, to = max(from, x.lo), min(to, x.hi)
	if from > to {
		return 0, nil, false
	}
	if x.op == exprField {
		return x.field, set{{u128{0, uint64(from)}, u128{0, uint64(to)}}}, true
	}
	if x.op == exprNeg {
		return g.solve(x.x, -to, -from)
	}
	if x.op == exprConst || x.op == exprNot || g.exprs[x.y].op != exprConst {
		if x.op == exprAdd && g.exprs[x.x].op == exprConst {
			k := g.exprs[x.x].k
			return g.solve(x.y, from-k, to-k)
		}
		if x.op == exprSub && g.exprs[x.x].op == exprConst {
			k := g.exprs[x.x].k
			return g.solve(x.y, k-to, k-from)
		}
		return 0, nil, false
	}
	// from and to lie within the bounds of x, so nothing below overflows.
	switch k := g.exprs[x.y].k; {
	case x.op == exprAdd:
		return g.solve(x.x, from-k, to-k)
	case x.op == exprSub:
		return g.solve(x.x, from+k, to+k)
	case x.op == exprShr:
		a, ok1 := shl(from, k)
		b, ok2 := shl(to, k)
		if ok1 && ok2 && b <= math.MaxInt64-(1<<k-1) {
			return g.solve(x.x, a, b+1<<k-1)
		}
	case x.op == exprDiv && k > 0:
		a, ok1 := mul(from, k)
		b, ok2 := mul(to, k)
		if ok1 && ok2 && b <= math.MaxInt64-(k-1) {
			return g.solve(x.x, a, b+k-1)
		}
	}
	return 0, nil, false
}

// maskTest is the test field & mask == value.
func (g *graph) maskTest(x expr, value int64) (tid, bool) {
	a, m := g.exprs[x.x], g.exprs[x.y]
	if a.op == exprConst {
		a, m = m, a
	}
	if a.op != exprField || m.op != exprConst {
		return 0, false
	}
	mask := uint64(m.k) & maxOf(a.field.Width()).lo
	if uint64(value)&^mask != 0 {
		return 0, false // never equal; left to the registers
	}
	return g.test(test{kind: testMask, a: a.field, mask: mask, value: uint64(value)}), true
}

// compareExprs is hi for frames for which x op y.
func (g *graph) compareExprs(op syntax.Token, x, y eid, hi, lo nid, pos rule.Pos) nid {
	switch op {
	case syntax.NEQ, syntax.GE, syntax.LE:
		if op == syntax.LE { // x <= y is not y < x
			return g.compareExprs(syntax.LT, y, x, lo, hi, pos)
		}
		return g.compareExprs(invert(op), x, y, lo, hi, pos)
	case syntax.GT:
		return g.compareExprs(syntax.LT, y, x, hi, lo, pos)
	}
	a, b := g.exprs[x], g.exprs[y]
	switch {
	case b.op == exprConst && op == syntax.EQL:
		return g.between(x, b.k, b.k, hi, lo, pos)
	case a.op == exprConst && op == syntax.EQL:
		return g.between(y, a.k, a.k, hi, lo, pos)
	case b.op == exprConst:
		if b.k == math.MinInt64 {
			return lo
		}
		return g.between(x, math.MinInt64, b.k-1, hi, lo, pos)
	case a.op == exprConst:
		if a.k == math.MaxInt64 {
			return lo
		}
		return g.between(y, a.k+1, math.MaxInt64, hi, lo, pos)
	case x == y:
		if op == syntax.EQL {
			return hi
		}
		return lo
	case a.hi < b.lo || a.lo > b.hi:
		if op == syntax.LT && a.hi < b.lo {
			return hi
		}
		return lo
	}
	if op == syntax.LT {
		return g.branch(g.test(test{kind: testExpr, less: true, x: x, y: y}), hi, lo, pos)
	}
	if a.op == exprField && b.op == exprField && a.field.Width() == b.field.Width() {
		return g.equalFields(a.field, b.field, hi, lo, pos)
	}
	return g.branch(g.test(test{kind: testExpr, x: min(x, y), y: max(x, y)}), hi, lo, pos)
}

// equalFields is hi for frames in which two fields of one width are equal.
func (g *graph) equalFields(a, b frame.Field, hi, lo nid, pos rule.Pos) nid {
	if a == b {
		return hi
	}
	return g.branch(g.test(test{kind: testEqual, a: min(a, b), b: max(a, b)}), hi, lo, pos)
}
