package policy

import (
	"slices"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A closure is a function that is compiled into its caller.
type closure struct {
	fn       *resolve.Function
	free     []capture
	defaults []nid // by parameter; noValue where it has none
	module   *starlark.Module
}

// An argument is given by position where it has no name.
type argument struct {
	name string
	v    nid
}

// closure is the value of a def or lambda within a predicate.
func (c *compiler) closure(sc *scope, fn *resolve.Function) nid {
	cl := &closure{fn: fn, module: sc.module}
	for _, b := range fn.FreeVars {
		if b.Scope == resolve.Free {
			cl.free = append(cl.free, sc.free[b.Index])
		} else {
			cl.free = append(cl.free, capture{from: sc, slot: b.Index})
		}
	}
	raised := c.yes
	for _, p := range fn.Params {
		d := noValue
		if b, ok := p.(*syntax.BinaryExpr); ok {
			d = c.expr(sc, b.Y)
			raised = c.after(raised, d)
		}
		cl.defaults = append(cl.defaults, d)
	}
	return c.after(raised, c.addLeaf(leaf{kind: leafFunc, fn: cl}))
}

// closureOf is the function value of a file as a closure; nil where its
// syntax is not known.
func (c *compiler) closureOf(fn *starlark.Function) *closure {
	cl, ok := c.closures[fn]
	if !ok {
		cl = c.newClosure(fn)
		c.closures[fn] = cl
	}
	return cl
}

func (c *compiler) newClosure(fn *starlark.Function) *closure {
	syn := c.sources.functions[positionOf(fn.Position())]
	if syn == nil {
		return nil
	}
	cl := &closure{fn: syn, module: fn.Module(), defaults: make([]nid, 0, len(syn.Params))}
	for i := range fn.NumFreeVars() {
		x := capture{v: noValue}
		if _, v := fn.FreeVar(i); v != nil {
			x.v = c.constant(v)
		}
		cl.free = append(cl.free, x)
	}
	named := 0
	for _, p := range syn.Params {
		d := noValue
		if _, star := p.(*syntax.UnaryExpr); !star {
			if v := fn.ParamDefault(named); v != nil {
				d = c.constant(v)
			}
			named++
		}
		cl.defaults = append(cl.defaults, d)
	}
	return cl
}

// callExpr is f(args).
func (c *compiler) callExpr(sc *scope, e *syntax.CallExpr) nid {
	fn := c.expr(sc, e.Fn)
	args := make([]argument, 0, len(e.Args))
	raised := c.yes
	for _, a := range e.Args {
		switch a := a.(type) {
		case *syntax.BinaryExpr:
			if a.Op == syntax.EQ {
				args = append(args, argument{a.X.(*syntax.Ident).Name, c.expr(sc, a.Y)})
				break
			}
			args = append(args, argument{v: c.expr(sc, a)})
		case *syntax.UnaryExpr:
			if a.Op != syntax.STAR && a.Op != syntax.STARSTAR {
				args = append(args, argument{v: c.expr(sc, a)})
				break
			}
			more, failed := c.spread(sc, a)
			if failed != 0 {
				return failed
			}
			args = append(args, more...)
		default:
			args = append(args, argument{v: c.expr(sc, a)})
		}
	}
	for _, a := range args {
		raised = c.after(raised, a.v)
	}
	p := startOf(e)
	r := c.values(fn, func(f nid) nid { return c.apply(f, args, p) })
	return c.after(raised, r)
}

// spread is *xs or **kw in a call.
func (c *compiler) spread(sc *scope, a *syntax.UnaryExpr) (args []argument, failed nid) {
	v := c.expr(sc, a.X)
	if v >= 0 || c.leaf(v).raises() {
		return nil, c.notConstant(v, a.X)
	}
	if a.Op == syntax.STARSTAR {
		d, _ := c.constOf(v)
		dict, ok := d.(*starlark.Dict)
		if !ok {
			return nil, c.errorAt(a.OpPos, "", "** of a %s", c.typeOf(v))
		}
		for _, kv := range dict.Items() {
			name, ok := starlark.AsString(kv[0])
			if !ok {
				return nil, c.errorAt(a.OpPos, "", "keywords must be strings")
			}
			args = append(args, argument{name, c.constant(kv[1])})
		}
		return args, 0
	}
	elems, ok := c.elements(v)
	if !ok {
		return nil, c.notConstant(v, a.X)
	}
	for _, x := range elems {
		if x.when != c.yes {
			return nil, c.errorAt(a.OpPos, "", "* of a list whose length depends on the frame")
		}
		args = append(args, argument{v: x.v})
	}
	return args, 0
}

// apply calls one function.
func (c *compiler) apply(f nid, args []argument, p syntax.Position) nid {
	v := *c.leaf(f)
	switch v.kind {
	case leafAbsent:
		return c.touch(p)
	case leafFunc:
		return c.inline(v.fn, args, p)
	case leafConst:
	default:
		return c.errorAt(p, "", "a call of %s", c.typeOf(f))
	}
	if b, ok := v.v.(*starlark.Builtin); ok && isQuestion(b) {
		return c.question(b, args, p)
	}
	if constant, kwargs, ok := c.constArgs(args); ok {
		n := c.call(v.v, constant, kwargs, p)
		if !c.asked {
			return n
		}
		c.asked = false // no constant: it is compiled
	}
	switch fn := v.v.(type) {
	case *starlark.Function:
		if cl := c.closureOf(fn); cl != nil {
			return c.inline(cl, args, p)
		}
		return c.errorAt(p, "", "the source of %s is not known", fn.Name())
	case *starlark.Builtin:
		return c.builtin(fn, args, p)
	}
	return c.errorAt(p, "", "a call of %s", c.typeOf(f))
}

// constArgs are the arguments as values, where all are constants.
func (c *compiler) constArgs(args []argument) (pos starlark.Tuple, kwargs []starlark.Tuple, ok bool) {
	for _, a := range args {
		v, ok := c.constOf(a.v)
		switch {
		case !ok:
			return nil, nil, false
		case a.name == "":
			pos = append(pos, v)
		default:
			kwargs = append(kwargs, starlark.Tuple{starlark.String(a.name), v})
		}
	}
	return pos, kwargs, true
}

// inline compiles a function into its caller.
func (c *compiler) inline(cl *closure, args []argument, p syntax.Position) nid {
	if slices.Contains(c.calls, cl.fn) {
		return c.errorAt(p, "write a loop over a constant", "%s calls itself: recursion cannot be compiled", cl.fn.Name)
	}
	sc := newScope(cl)
	if failed := c.bind(sc, cl, args, p); failed != 0 {
		return failed
	}
	return c.run(sc)
}

// run executes the body of a function: the tree of what it returns.
func (c *compiler) run(sc *scope) nid {
	c.calls = append(c.calls, sc.fn)
	f := c.block(sc, sc.fn.Body)
	c.calls = c.calls[:len(c.calls)-1]
	return c.each(f.tree, func(l nid) nid {
		switch v := c.leaf(l); v.kind {
		case leafReturn:
			return v.inner
		case leafNext:
			return c.none
		}
		return l
	})
}

// bind puts the arguments into the variables of the parameters.
func (c *compiler) bind(sc *scope, cl *closure, args []argument, p syntax.Position) (failed nid) {
	fn := cl.fn
	var names []string // of the parameters but *args and **kwargs
	positional, star := 0, false
	for _, x := range fn.Params {
		switch x := x.(type) {
		case *syntax.Ident:
			names = append(names, x.Name)
		case *syntax.BinaryExpr:
			names = append(names, x.X.(*syntax.Ident).Name)
		case *syntax.UnaryExpr:
			star = true
			continue
		}
		if !star {
			positional++
		}
	}
	var rest []element
	n := 0
	for _, a := range args {
		i := slices.Index(names, a.name)
		switch {
		case a.name == "" && n < positional:
			i = n
			n++
		case a.name == "" && fn.HasVarargs:
			rest = append(rest, element{c.yes, a.v})
			continue
		case a.name == "":
			return c.errorAt(p, "", "%s takes %d arguments by position", fn.Name, positional)
		case i < 0:
			return c.errorAt(p, "", "%s has no parameter %s%s", fn.Name, a.name, suggestion(a.name, names))
		}
		if sc.slots[i] != noValue {
			return c.errorAt(p, "", "%s gets %s twice", fn.Name, names[i])
		}
		sc.slots[i] = a.v
	}
	i := 0
	for j, x := range fn.Params {
		if _, star := x.(*syntax.UnaryExpr); star {
			continue
		}
		if sc.slots[i] == noValue {
			if sc.slots[i] = cl.defaults[j]; sc.slots[i] == noValue {
				return c.errorAt(p, "", "%s misses the argument %s", fn.Name, names[i])
			}
		}
		i++
	}
	if fn.HasVarargs {
		sc.slots[i] = c.makeSeq(&sequence{tuple: true, elems: rest})
		i++
	}
	if fn.HasKwargs {
		sc.slots[i] = c.constant(new(starlark.Dict))
	}
	return 0
}

// builtin calls a function of the language on something that depends on the
// frame.
func (c *compiler) builtin(b *starlark.Builtin, args []argument, p syntax.Position) nid {
	if d, ok := b.Receiver().(*starlark.Dict); ok && b.Name() == "get" && (len(args) == 1 || len(args) == 2) {
		other := c.none
		if len(args) == 2 {
			other = args[1].v
		}
		return c.values(args[0].v, func(k nid) nid { return c.lookup(d, k, other, p) })
	}
	f, ok := symbolic[b.Name()]
	if !ok || starlark.Universe[b.Name()] != starlark.Value(b) {
		return c.errorAt(p, "compute it from constants", "%s of something that depends on the frame", b.Name())
	}
	for _, a := range args {
		if a.name != "" {
			return c.errorAt(p, "", "%s with %s = of something that depends on the frame", b.Name(), a.name)
		}
	}
	return c.distribute(args, nil, func(vs []nid) nid {
		if slices.ContainsFunc(vs, func(v nid) bool { return c.leaf(v).kind == leafAbsent }) {
			return c.touch(p)
		}
		if r := f(c, vs, p); r != 0 {
			return r
		}
		fixed := make([]argument, len(vs))
		for i, v := range vs {
			fixed[i].v = v
		}
		if pos, _, ok := c.constArgs(fixed); ok {
			return c.call(b, pos, nil, p)
		}
		return c.errorAt(p, "", "%s of %s", b.Name(), c.typeOf(vs[0]))
	})
}

// distribute calls f for each combination of the leaves of the arguments.
func (c *compiler) distribute(args []argument, vs []nid, f func([]nid) nid) nid {
	if len(args) == 0 {
		return f(vs)
	}
	return c.values(args[0].v, func(l nid) nid {
		return c.distribute(args[1:], append(slices.Clip(vs), l), f)
	})
}

// symbolic are the builtins that know leaves which depend on the frame. They
// return 0 where they do not know what they got.
var symbolic map[string]func(c *compiler, args []nid, p syntax.Position) nid

func init() {
	symbolic = map[string]func(c *compiler, args []nid, p syntax.Position) nid{
		"any": func(c *compiler, args []nid, p syntax.Position) nid { return c.anyAll(args, true, p) },
		"all": func(c *compiler, args []nid, p syntax.Position) nid { return c.anyAll(args, false, p) },
		"min": func(c *compiler, args []nid, p syntax.Position) nid { return c.minMax(syntax.LT, args, p) },
		"max": func(c *compiler, args []nid, p syntax.Position) nid { return c.minMax(syntax.GT, args, p) },
		"len": (*compiler).length,
		"abs": (*compiler).abs,
		"bool": func(c *compiler, args []nid, p syntax.Position) nid {
			if len(args) != 1 {
				return 0
			}
			return c.booleans(c.truthOf(args[0], p), p)
		},
		"int": func(c *compiler, args []nid, p syntax.Position) nid {
			if len(args) != 1 || c.leaf(args[0]).kind != leafInt {
				return 0
			}
			return args[0]
		},
		"type": func(c *compiler, args []nid, p syntax.Position) nid {
			if len(args) != 1 {
				return 0
			}
			return c.constant(starlark.String(c.typeOf(args[0])))
		},
		"list":  func(c *compiler, args []nid, p syntax.Position) nid { return c.toSeq(args, false) },
		"tuple": func(c *compiler, args []nid, p syntax.Position) nid { return c.toSeq(args, true) },
		"str": func(c *compiler, args []nid, p syntax.Position) nid {
			if _, ok := c.constOf(args[0]); ok {
				return 0
			}
			return c.errorAt(p, "compare the field itself", "a string built from a field")
		},
	}
}

// anyAll is any(xs), or all(xs).
func (c *compiler) anyAll(args []nid, want bool, p syntax.Position) nid {
	if len(args) != 1 {
		return 0
	}
	elems, ok := c.elements(args[0])
	if !ok {
		return 0
	}
	pos := c.decision(p)
	found, r := c.boolean(want, pos), c.boolean(!want, pos)
	for i := len(elems) - 1; i >= 0; i-- {
		cond := c.truth(elems[i].v, p)
		yes, no := found, r
		if !want {
			yes, no = r, found
		}
		r = c.choose(elems[i].when, c.choose(cond, yes, no), r)
	}
	return r
}

// minMax is the first of the arguments, or of one list, that no other is
// op than.
func (c *compiler) minMax(op syntax.Token, args []nid, p syntax.Position) nid {
	var elems []element
	if len(args) == 1 {
		var ok bool
		if elems, ok = c.elements(args[0]); !ok {
			return 0
		}
	} else {
		for _, a := range args {
			elems = append(elems, element{c.yes, a})
		}
	}
	if len(elems) == 0 {
		return 0
	}
	r := elems[0].v
	for _, e := range elems {
		if e.when != c.yes {
			return c.errorAt(p, "", "the least or greatest of a list whose length depends on the frame")
		}
		r = c.pairs(r, e.v, func(best, x nid) nid { return c.choose(c.ordered(op, x, best, p), x, best) })
	}
	return r
}

// length is len(xs) of a list whose length may depend on the frame.
func (c *compiler) length(args []nid, p syntax.Position) nid {
	if len(args) != 1 || c.leaf(args[0]).kind != leafSeq {
		return 0
	}
	n := c.constant(starlark.MakeInt(0))
	one := c.constant(starlark.MakeInt(1))
	for _, e := range c.leaf(args[0]).seq.elems {
		n = c.choose(e.when, c.binary(syntax.PLUS, n, one, p), n)
	}
	return n
}

func (c *compiler) abs(args []nid, p syntax.Position) nid {
	if len(args) != 1 || c.leaf(args[0]).kind != leafInt {
		return 0
	}
	e := c.leaf(args[0]).expr
	if c.exprs[e].lo >= 0 {
		return args[0]
	}
	neg, ok := c.negate(e)
	if !ok {
		return c.errorAt(p, "", "the result of abs may not fit 64 bits")
	}
	return c.between(e, 0, c.exprs[e].hi, args[0], c.integer(neg), c.pos(p))
}

// toSeq is list(xs) and tuple(xs).
func (c *compiler) toSeq(args []nid, tuple bool) nid {
	if len(args) != 1 || c.leaf(args[0]).kind != leafSeq {
		return 0
	}
	return c.makeSeq(&sequence{tuple: tuple, elems: c.leaf(args[0]).seq.elems})
}
