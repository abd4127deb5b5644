package policy

import (
	"math"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/value"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// relation is a comparison or membership: a tree of truth values that know
// where they were decided. Looking at a tuple looks at all its elements.
func (c *compiler) relation(op syntax.Token, x, y nid, p syntax.Position) nid {
	return c.pairs(x, y, func(a, b nid) nid {
		r := c.relate(op, a, b, p)
		if op != syntax.IN && op != syntax.NOT_IN {
			r = c.afterParts(b, r, p)
		}
		return c.afterParts(a, r, p)
	})
}

// afterParts is r where l is no list or tuple with an absent element.
func (c *compiler) afterParts(l, r nid, p syntax.Position) nid {
	v := c.leaf(l)
	if v.kind != leafSeq {
		return r
	}
	for _, e := range v.seq.elems {
		r = c.after(c.choose(e.when, c.values(e.v, func(x nid) nid {
			if c.leaf(x).kind == leafAbsent {
				return c.touch(p)
			}
			return c.yes
		}), c.yes), r)
	}
	return r
}

func (c *compiler) relate(op syntax.Token, a, b nid, p syntax.Position) nid {
	switch op {
	case syntax.EQL:
		return c.booleans(c.equal(a, b, p), p)
	case syntax.NEQ:
		return c.unary(syntax.NOT, c.booleans(c.equal(a, b, p), p), p)
	case syntax.IN:
		return c.booleans(c.contains(a, b, p), p)
	case syntax.NOT_IN:
		return c.unary(syntax.NOT, c.booleans(c.contains(a, b, p), p), p)
	}
	return c.booleans(c.ordered(op, a, b, p), p)
}

// sample is a value of the type of a leaf, for what only types decide.
func (c *compiler) sample(l leaf) starlark.Value {
	switch l.kind {
	case leafConst:
		return l.v
	case leafInt:
		return starlark.MakeInt(0)
	case leafAddr:
		if l.field.Kind() == frame.KindMAC {
			return value.MAC{}
		}
		return value.IP{}
	case leafSeq:
		if l.seq.tuple {
			return starlark.Tuple{}
		}
		return starlark.NewList(nil)
	}
	return starlark.None
}

// equal is the tree of c.yes and c.no for a == b.
func (c *compiler) equal(a, b nid, p syntax.Position) nid {
	x, y := *c.leaf(a), *c.leaf(b)
	if x.kind == leafAbsent || y.kind == leafAbsent {
		return c.touch(p)
	}
	if x.kind == leafConst && y.kind == leafConst {
		holds, err := value.Compare(syntax.EQL, x.v, y.v)
		return c.decided(holds, err, p)
	}
	if x.kind == leafConst {
		x, y = y, x // x depends on the frame
	}
	switch {
	case x.kind == leafAddr:
		if r, ok := c.equalAddr(x.field, y, p); ok {
			return r
		}
	case x.kind == leafSeq:
		if r, ok := c.equalSeq(x.seq, y, p); ok {
			return r
		}
	case x.kind == leafFunc || y.kind == leafFunc:
		return c.errorAt(p, "", "functions compared in a predicate")
	case x.kind == leafInt:
		if e, ok := c.exprOf(y); ok {
			return c.compareExprs(syntax.EQL, x.expr, e, c.yes, c.no, c.pos(p))
		}
		if f, ok := y.v.(starlark.Float); ok && y.kind == leafConst {
			return c.equalFloat(x.expr, float64(f), p)
		}
	}
	return c.decided(false, value.Mixed(c.sample(x), c.sample(y)), p)
}

// decided is an answer, or an error, that holds for every frame.
func (c *compiler) decided(holds bool, err error, p syntax.Position) nid {
	switch {
	case err != nil:
		return c.errorAt(p, "", "%s", err)
	case holds:
		return c.yes
	}
	return c.no
}

func (c *compiler) equalFloat(e eid, f float64, p syntax.Position) nid {
	if n := int64(f); math.Abs(f) < 1<<53 && float64(n) == f {
		return c.between(e, n, n, c.yes, c.no, c.pos(p))
	}
	return c.no
}

// equalAddr compares an address field; ok is false where types never match.
func (c *compiler) equalAddr(f frame.Field, y leaf, p syntax.Position) (n nid, ok bool) {
	if y.kind == leafAddr {
		mac1, mac2 := f.Kind() == frame.KindMAC, y.field.Kind() == frame.KindMAC
		switch {
		case mac1 != mac2:
			return 0, false
		case f.Width() != y.field.Width():
			return c.no, true
		}
		return c.equalFields(f, y.field, c.yes, c.no, c.pos(p)), true
	}
	switch v := y.v.(type) {
	case value.IP:
		if f.Kind() == frame.KindMAC {
			return 0, false
		}
		if v.BitLen() != f.Width() {
			return c.no, true
		}
		return c.inSet(f, point(u128Of(v.Addr)), c.yes, c.no, c.pos(p)), true
	case value.MAC:
		if f.Kind() == frame.KindMAC {
			return c.inSet(f, point(u128{0, v.Uint64()}), c.yes, c.no, c.pos(p)), true
		}
	}
	return 0, false
}

// ordered is the tree of c.yes and c.no for a op b with < <= > >=.
func (c *compiler) ordered(op syntax.Token, a, b nid, p syntax.Position) nid {
	x, y := *c.leaf(a), *c.leaf(b)
	pos := c.pos(p)
	switch {
	case x.kind == leafAbsent || y.kind == leafAbsent:
		return c.touch(p)
	case x.kind == leafConst && y.kind == leafConst:
		holds, err := value.Compare(op, x.v, y.v)
		return c.decided(holds, err, p)
	case x.kind == leafAddr && y.kind == leafConst:
		return c.orderedAddr(op, x.field, y.v, p)
	case y.kind == leafAddr && x.kind == leafConst:
		return c.orderedAddr(mirror(op), y.field, x.v, p)
	case x.kind == leafAddr && y.kind == leafAddr:
		return c.orderedFields(op, x.field, y.field, p)
	}
	e, ok1 := c.exprOf(x)
	f, ok2 := c.exprOf(y)
	if ok1 && ok2 {
		return c.compareExprs(op, e, f, c.yes, c.no, pos)
	}
	if n, ok := y.v.(starlark.Int); ok && ok1 { // beyond 64 bits
		return c.decided((n.Sign() > 0) == (op == syntax.LT || op == syntax.LE), nil, p)
	}
	if n, ok := x.v.(starlark.Int); ok && ok2 {
		return c.decided((n.Sign() < 0) == (op == syntax.LT || op == syntax.LE), nil, p)
	}
	return c.errorAt(p, "", "%s %s %s not implemented", c.typeOf(a), op, c.typeOf(b))
}

// mirror is the operator for the operands the other way round.
func mirror(op syntax.Token) syntax.Token {
	switch op {
	case syntax.LT:
		return syntax.GT
	case syntax.GT:
		return syntax.LT
	case syntax.LE:
		return syntax.GE
	}
	return syntax.LE
}

// orderedAddr is field op v: False between families, as [value.IP] has it.
func (c *compiler) orderedAddr(op syntax.Token, f frame.Field, v starlark.Value, p syntax.Position) nid {
	var at u128
	switch v := v.(type) {
	case value.IP:
		if f.Kind() == frame.KindMAC {
			return c.errorAt(p, "", "mac %s ip not implemented", op)
		}
		if v.BitLen() != f.Width() {
			return c.no
		}
		at = u128Of(v.Addr)
	case value.MAC:
		if f.Kind() != frame.KindMAC {
			return c.errorAt(p, "", "ip %s mac not implemented", op)
		}
		at = u128{0, v.Uint64()}
	default:
		hint := ""
		if s, ok := v.(starlark.String); ok {
			hint = "write ip(" + s.String() + ")"
		}
		return c.errorAt(p, hint, "an address %s %s", op, v.Type())
	}
	max := maxOf(f.Width())
	yes, no := c.yes, c.no
	if op == syntax.GE || op == syntax.GT {
		yes, no = no, yes // not less, not less or equal
	}
	upTo := at
	if op == syntax.LT || op == syntax.GE {
		if at == (u128{}) {
			return no
		}
		upTo = at.prev()
	}
	if upTo == max {
		return yes
	}
	return c.inSet(f, set{{u128{}, upTo}}, yes, no, c.pos(p))
}

// orderedFields compares two address fields, through registers.
func (c *compiler) orderedFields(op syntax.Token, f, g frame.Field, p syntax.Position) nid {
	switch {
	case (f.Kind() == frame.KindMAC) != (g.Kind() == frame.KindMAC):
		return c.errorAt(p, "", "a mac and an ip are not ordered")
	case f.Width() != g.Width():
		return c.no
	case f.Width() > 48:
		return c.errorAt(p, "compare with constants", "the order of two IPv6 fields cannot be compiled")
	}
	return c.compareExprs(op, c.fieldExpr(f), c.fieldExpr(g), c.yes, c.no, c.pos(p))
}

// contains is the tree of c.yes and c.no for a in b.
func (c *compiler) contains(a, b nid, p syntax.Position) nid {
	x, y := *c.leaf(a), *c.leaf(b)
	switch {
	case x.kind == leafAbsent || y.kind == leafAbsent:
		return c.touch(p)
	case y.kind == leafSeq:
		return c.inSeq(a, y.seq, p)
	case y.kind != leafConst:
		return c.errorAt(p, "", "%s in %s: nothing to search in", c.typeOf(a), c.typeOf(b))
	case x.kind == leafConst:
		found, err := value.Contains(x.v, y.v)
		return c.decided(found, err, p)
	case x.kind == leafSeq:
		return c.seqIn(a, y.v, p)
	case x.kind == leafAddr:
		s, err := c.membersOf(x, y.v)
		if err != nil {
			return c.errorAt(p, "", "%s", err)
		}
		return c.inSet(x.field, s, c.yes, c.no, c.pos(p))
	case x.kind == leafInt:
		s, err := c.membersOf(x, y.v)
		if err != nil {
			return c.errorAt(p, "", "%s", err)
		}
		return c.exprIn(x.expr, s, c.pos(p))
	}
	return c.errorAt(p, "", "%s in %s cannot be compiled", c.typeOf(a), c.typeOf(b))
}

// exprIn is whether an integer is in a set. The integers of a set are shifted
// by 2^63, so that the negative ones come first.
func (c *compiler) exprIn(e eid, s set, pos rule.Pos) nid {
	x := c.exprs[e]
	if x.op == exprField {
		return c.inSet(x.field, unbias(s), c.yes, c.no, pos)
	}
	points := len(s) > 4
	for _, q := range s {
		points = points && q.a == q.b && q.a.lo >= bias
	}
	if points && x.lo >= 0 {
		return c.branch(c.test(test{kind: testExprs, x: e, set: c.set(unbias(s))}), c.yes, c.no, pos)
	}
	r := c.no
	for i := len(s) - 1; i >= 0; i-- {
		r = c.between(e, int64(s[i].a.lo-bias), int64(s[i].b.lo-bias), c.yes, r, pos)
	}
	return r
}

const bias = 1 << 63

func biased(n int64) u128 { return u128{0, uint64(n) + bias} }

// unbias is the part of s that is not negative, as plain numbers.
func unbias(s set) set {
	var out set
	for _, q := range s {
		if q.b.lo < bias {
			continue
		}
		a := max(q.a.lo, bias)
		out = append(out, span{u128{0, a - bias}, u128{0, q.b.lo - bias}})
	}
	return out
}
