package policy

import (
	"math/big"
	"sync"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/value"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A scope is one activation of a function: its local variables' values.
type scope struct {
	fn     *resolve.Function
	slots  []nid
	free   []capture
	module *starlark.Module
}

// newScope is a scope in which no variable is assigned.
func newScope(cl *closure) *scope {
	sc := &scope{fn: cl.fn, free: cl.free, module: cl.module, slots: make([]nid, len(cl.fn.Locals))}
	for i := range sc.slots {
		sc.slots[i] = noValue
	}
	return sc
}

// A capture is a variable of an enclosing function: its current value where
// that function is part of the predicate, or a constant.
type capture struct {
	from *scope
	slot int
	v    nid
}

func (x capture) value() nid {
	if x.from != nil {
		return x.from.slots[x.slot]
	}
	return x.v
}

// expr evaluates an expression.
func (c *compiler) expr(sc *scope, e syntax.Expr) nid {
	// step, but that where e starts is found only when it is told.
	if c.steps++; c.fatal != 0 || c.exhausted() {
		c.step(startOf(e))
		return c.fatal
	}
	switch e := e.(type) {
	case *syntax.Literal:
		return c.literal(e)
	case *syntax.Ident:
		return c.ident(sc, e)
	case *syntax.ParenExpr:
		return c.expr(sc, e.X)
	case *syntax.CallExpr:
		if op, ok := asOperator(e); ok {
			return c.relation(op, c.expr(sc, e.Args[0]), c.expr(sc, e.Args[1]), startOf(e))
		}
		if n, ok := c.measured(sc, e); ok {
			return n
		}
		return c.callExpr(sc, e)
	case *syntax.BinaryExpr:
		if e.Op == syntax.AND || e.Op == syntax.OR {
			return c.shortCircuit(sc, e)
		}
		return c.binary(e.Op, c.expr(sc, e.X), c.expr(sc, e.Y), e.OpPos)
	case *syntax.UnaryExpr:
		return c.unary(e.Op, c.expr(sc, e.X), e.OpPos)
	case *syntax.CondExpr:
		return c.condExpr(sc, e)
	case *syntax.DotExpr:
		return c.values(c.expr(sc, e.X), func(l nid) nid { return c.attr(l, e.Name.Name, e.Name.NamePos) })
	case *syntax.IndexExpr:
		return c.pairs(c.expr(sc, e.X), c.expr(sc, e.Y), func(x, y nid) nid { return c.index(x, y, e.Lbrack) })
	case *syntax.SliceExpr:
		return c.slice(sc, e)
	case *syntax.ListExpr:
		return c.display(sc, e.List, false)
	case *syntax.TupleExpr:
		return c.display(sc, e.List, true)
	case *syntax.DictExpr:
		return c.dict(sc, e)
	case *syntax.Comprehension:
		return c.comprehension(sc, e)
	case *syntax.LambdaExpr:
		return c.closure(sc, e.Function.(*resolve.Function))
	}
	return c.errorAt(startOf(e), "", "this cannot be compiled")
}

func (c *compiler) literal(e *syntax.Literal) nid {
	switch v := e.Value.(type) {
	case int64:
		return c.constant(starlark.MakeInt64(v))
	case string:
		if e.Token == syntax.BYTES {
			return c.constant(starlark.Bytes(v))
		}
		return c.constant(starlark.String(v))
	case *big.Int:
		return c.constant(starlark.MakeBigInt(v))
	case float64:
		return c.constant(starlark.Float(v))
	}
	return c.errorAt(e.TokenPos, "", "a literal that cannot be compiled")
}

func (c *compiler) ident(sc *scope, e *syntax.Ident) nid {
	b := e.Binding.(*resolve.Binding)
	n := noValue
	switch b.Scope {
	case resolve.Local, resolve.Cell:
		n = sc.slots[b.Index]
	case resolve.Free:
		n = sc.free[b.Index].value()
	case resolve.Global:
		if v := c.moduleGlobals(sc.module)[e.Name]; v != nil {
			n = c.constant(v)
		}
	case resolve.Predeclared:
		n = c.constant(sc.module.Predeclared()[e.Name])
	case resolve.Universal:
		n = c.constant(starlark.Universe[e.Name])
	}
	if n == noValue {
		n = c.unassigned
	}
	if n < 0 && c.leaf(n).kind == leafFlag {
		return c.inSet(c.leaf(n).field, one, c.yes, c.no, c.pos(e.NamePos))
	}
	if !c.raises(n) {
		return n
	}
	unassigned := c.errorAt(e.NamePos, "", "%s is not assigned on every way to here", e.Name)
	return c.each(n, func(l nid) nid {
		if l == c.unassigned {
			return unassigned
		}
		return l
	})
}

// one is the set of a flag that is set.
var one = numbers(1)

func (c *compiler) moduleGlobals(m *starlark.Module) starlark.StringDict {
	g, ok := c.globals[m]
	if !ok {
		g = m.Globals()
		c.globals[m] = g
	}
	return g
}

func (c *compiler) condExpr(sc *scope, e *syntax.CondExpr) nid {
	switch cond := c.truth(c.expr(sc, e.Cond), startOf(e.Cond)); cond {
	case c.yes:
		return c.expr(sc, e.True)
	case c.no:
		return c.expr(sc, e.False)
	default:
		return c.choose(cond, c.expr(sc, e.True), c.expr(sc, e.False))
	}
}

// shortCircuit is `and` and `or`, which yield one of their operands.
func (c *compiler) shortCircuit(sc *scope, e *syntax.BinaryExpr) nid {
	y := noValue
	return c.values(c.expr(sc, e.X), func(l nid) nid {
		cond := c.truthOf(l, startOf(e.X))
		if cond == c.no && e.Op == syntax.AND || cond == c.yes && e.Op == syntax.OR {
			return l
		}
		if y == noValue {
			y = c.expr(sc, e.Y)
		}
		if e.Op == syntax.AND {
			return c.choose(cond, y, l)
		}
		return c.choose(cond, l, y)
	})
}

func (c *compiler) unary(op syntax.Token, x nid, p syntax.Position) nid {
	return c.values(x, func(l nid) nid {
		v := *c.leaf(l)
		switch {
		case v.kind == leafAbsent:
			return c.touch(p)
		case op == syntax.NOT:
			if b, ok := v.v.(starlark.Bool); ok && v.pos.Line != 0 {
				return c.boolean(!bool(b), v.pos)
			}
			pos := c.decision(p)
			return c.choose(c.truthOf(l, p), c.boolean(false, pos), c.boolean(true, pos))
		case v.kind == leafConst:
			r, err := starlark.Unary(op, v.v)
			if err != nil {
				return c.errorAt(p, "", "%s", err)
			}
			return c.constant(r)
		case v.kind == leafInt && op == syntax.PLUS:
			return l
		case v.kind == leafInt && op == syntax.TILDE:
			return c.integer(c.invertBits(v.expr))
		case v.kind == leafInt && op == syntax.MINUS:
			if e, ok := c.negate(v.expr); ok {
				return c.integer(e)
			}
		}
		return c.errorAt(p, "", "%s of %s", op, c.typeOf(l))
	})
}

// binary is an arithmetic operator.
func (c *compiler) binary(op syntax.Token, x, y nid, p syntax.Position) nid {
	return c.pairs(x, y, func(a, b nid) nid { return c.binaryLeaves(op, a, b, p) })
}

func (c *compiler) binaryLeaves(op syntax.Token, a, b nid, p syntax.Position) nid {
	x, y := *c.leaf(a), *c.leaf(b)
	switch {
	case x.kind == leafAbsent || y.kind == leafAbsent:
		return c.touch(p)
	case x.kind == leafConst && y.kind == leafConst:
		v, err := starlark.Binary(op, x.v, y.v)
		if err != nil {
			return c.errorAt(p, "", "%s", err)
		}
		return c.constant(v)
	case op == syntax.PLUS && (x.kind == leafSeq || y.kind == leafSeq):
		return c.concat(a, b, p)
	}
	if s, ok := x.v.(starlark.String); ok {
		return c.errorAt(p, "compare the field itself", "a string built from a field: %s %s %s", s, op, c.typeOf(b))
	}
	e, ok1 := c.exprOf(x)
	f, ok2 := c.exprOf(y)
	o, known := exprOps[op]
	switch {
	case op == syntax.SLASH && ok1 && ok2:
		return c.errorAt(p, "write // for the whole part", "/ makes a float, which predicates cannot hold")
	case !ok1 || !ok2 || !known:
		return c.errorAt(p, "", "unknown binary op: %s %s %s", c.typeOf(a), op, c.typeOf(b))
	}
	return c.arithmetic(o, op, e, f, p)
}

// arithmetic computes on fields, with the frames for which it would fail
// going to an error.
func (c *compiler) arithmetic(o exprOp, op syntax.Token, x, y eid, p syntax.Position) nid {
	b := c.exprs[y]
	divides := o == exprDiv || o == exprMod
	if divides && b.op == exprConst && b.k == 0 {
		return c.errorAt(p, "", "division by zero")
	}
	e, ok := c.arith(o, x, y)
	switch {
	case !ok && (o == exprShl || o == exprShr) && (b.lo < 0 || b.hi > 63):
		return c.errorAt(p, "mask it first, as in x << (n & 7)", "the shift count may be %d to %d, want 0 to 63", b.lo, b.hi)
	case !ok:
		return c.errorAt(p, "mask an operand first, as in x & 0xffff", "the result of %s may not fit 64 bits", op)
	case divides && b.lo <= 0 && b.hi >= 0:
		zero := c.errorAt(p, "ask first, as in y != 0 and x // y == 2", "the divisor may be zero")
		return c.between(y, 0, 0, zero, c.integer(e), c.pos(p))
	}
	return c.integer(e)
}

// exprOf is an integer leaf as an expression.
func (c *compiler) exprOf(l leaf) (eid, bool) {
	if l.kind == leafInt {
		return l.expr, true
	}
	if n, ok := l.v.(starlark.Int); ok && l.kind == leafConst {
		if k, ok := n.Int64(); ok {
			return c.constExpr(k), true
		}
	}
	return 0, false
}

// attr is x.name.
func (c *compiler) attr(l nid, name string, p syntax.Position) nid {
	v := *c.leaf(l)
	switch v.kind {
	case leafAbsent:
		return c.touch(p)
	case leafAddr:
		return c.addrAttr(v.field, name, p)
	case leafConst:
		if x, ok := v.v.(starlark.HasAttrs); ok {
			r, err := x.Attr(name)
			if err != nil {
				return c.errorAt(p, "", "%s", err)
			}
			if r != nil {
				return c.constant(r)
			}
			return c.errorAt(p, "", "%s has no attribute %s%s", v.v.Type(), name, suggestion(name, x.AttrNames()))
		}
	case leafSeq:
		return c.errorAt(p, "build lists with + or a comprehension", "%s.%s on a list that depends on the frame", c.typeOf(l), name)
	}
	return c.errorAt(p, "", "%s has no attribute %s", c.typeOf(l), name)
}

// addrAttr is an attribute of an ip or mac field; they are all tests.
func (c *compiler) addrAttr(f frame.Field, name string, p syntax.Position) nid {
	pos := c.decision(p)
	yes, no := c.boolean(true, pos), c.boolean(false, pos)
	if f.Kind() == frame.KindMAC {
		bit := uint64(0)
		switch name {
		case "is_broadcast":
			return c.inSet(f, point(maxOf(48)), yes, no, c.pos(p))
		case "is_multicast":
			bit = 1 << 40
		case "is_local":
			bit = 2 << 40
		default:
			_, err := value.MAC{}.Attr(name)
			return c.errorAt(p, "", "%v", err)
		}
		return c.branch(c.test(test{kind: testMask, a: f, mask: bit, value: bit}), yes, no, c.pos(p))
	}
	if nets, ok := value.AddressRanges()[name]; ok {
		var spans []span
		for _, n := range nets {
			if n.Addr().BitLen() == f.Width() {
				spans = append(spans, prefixSpan(n))
			}
		}
		return c.inSet(f, makeSet(spans), yes, no, c.pos(p))
	}
	if name == "version" {
		version := 4
		if f.Kind() == frame.KindIPv6 {
			version = 6
		}
		return c.constant(starlark.MakeInt(version))
	}
	_, err := value.IP{}.Attr(name)
	return c.errorAt(p, "", "%v", err)
}

// typeOf is the Starlark type of a leaf.
func (c *compiler) typeOf(l nid) string {
	switch v := c.leaf(l); v.kind {
	case leafConst:
		return v.v.Type()
	case leafInt:
		return "int"
	case leafAddr:
		if v.field.Kind() == frame.KindMAC {
			return "mac"
		}
		return "ip"
	case leafSeq:
		if v.seq.tuple {
			return "tuple"
		}
		return "list"
	case leafFunc:
		return "function"
	}
	return "absent"
}

// pick and cut are x[i] and x[a:b:c] as Starlark itself has them.
var pick, cut = helper(`lambda x, i: x[i]`), helper(`lambda x, a, b, c: x[a:b:c]`)

// helper is made when it is first used, which few policies do.
func helper(src string) func() starlark.Value {
	return sync.OnceValue(func() starlark.Value {
		v, err := starlark.EvalOptions(Options, new(starlark.Thread), "seki", src, nil)
		if err != nil {
			panic(err) // a bug: the text is ours, above
		}
		v.Freeze()
		return v
	})
}

// index is x[y].
func (c *compiler) index(a, b nid, p syntax.Position) nid {
	x, y := *c.leaf(a), *c.leaf(b)
	switch {
	case x.kind == leafAbsent || y.kind == leafAbsent:
		return c.touch(p)
	case x.kind == leafConst && y.kind == leafConst:
		return c.call(pick(), starlark.Tuple{x.v, y.v}, nil, p)
	case x.kind == leafSeq && y.kind == leafConst:
		return c.element(x.seq, y.v, p)
	case x.kind == leafConst:
		if d, ok := x.v.(*starlark.Dict); ok {
			missing := c.errorAt(p, "ask first whether it is in the dict, or use .get()", "the key may not be in the dict")
			return c.lookup(d, b, missing, p)
		}
		if s, ok := x.v.(starlark.Indexable); ok && y.kind == leafInt {
			return c.nth(s, y.expr, p)
		}
	}
	return c.errorAt(p, "", "%s[%s] cannot be compiled", c.typeOf(a), c.typeOf(b))
}

// lookup is d[key], or missing where the key is not in the dict.
func (c *compiler) lookup(d *starlark.Dict, key, missing nid, p syntax.Position) nid {
	if d.Len() > maxLookup {
		return c.errorAt(p, "", "a dict of %d entries indexed by a field: at most %d", d.Len(), maxLookup)
	}
	r := missing
	for _, kv := range d.Items() {
		r = c.choose(c.equal(key, c.constant(kv[0]), p), c.constant(kv[1]), r)
	}
	return r
}

// nth is s[e] for a list indexed by an expression.
func (c *compiler) nth(s starlark.Indexable, e eid, p syntax.Position) nid {
	if x := c.exprs[e]; s.Len() > maxLookup || x.lo < 0 {
		return c.errorAt(p, "", "a list of %d indexed by %d to %d", s.Len(), x.lo, x.hi)
	}
	r := c.errorAt(p, "ask first whether it is less than len()", "the index may be out of range")
	for i := range s.Len() {
		r = c.between(e, int64(i), int64(i), c.constant(s.Index(i)), r, c.pos(p))
	}
	return r
}

// slice is x[lo:hi:step] of constants.
func (c *compiler) slice(sc *scope, e *syntax.SliceExpr) nid {
	args := make(starlark.Tuple, 4)
	for i, x := range []syntax.Expr{e.X, e.Lo, e.Hi, e.Step} {
		args[i] = starlark.None
		if x == nil {
			continue
		}
		v, ok := c.constOf(c.expr(sc, x))
		if !ok {
			return c.errorAt(startOf(x), "", "a slice that depends on the frame")
		}
		args[i] = v
	}
	return c.call(cut(), args, nil, e.Lbrack)
}

// dict is a dict display, of constants.
func (c *compiler) dict(sc *scope, e *syntax.DictExpr) nid {
	d := starlark.NewDict(len(e.List))
	for _, x := range e.List {
		x := x.(*syntax.DictEntry)
		k, ok1 := c.constOf(c.expr(sc, x.Key))
		v, ok2 := c.constOf(c.expr(sc, x.Value))
		if !ok1 || !ok2 {
			return c.errorAt(x.Colon, "use if and elif", "a dict that depends on the frame")
		}
		if err := d.SetKey(k, v); err != nil {
			return c.errorAt(x.Colon, "", "%s", err)
		}
	}
	return c.constant(d)
}
