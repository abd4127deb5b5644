package policy

import (
	"sekimori/starlark/value"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A sequence is a list or tuple of which some parts depend on the frame:
// their values, or whether they are there at all.
type sequence struct {
	tuple bool
	elems []element
}

// An element is there where the tree `when` (of c.yes and c.no) says so.
type element struct{ when, v nid }

// fixed reports whether all elements are always there.
func (c *compiler) fixed(s *sequence) bool {
	for _, e := range s.elems {
		if e.when != c.yes {
			return false
		}
	}
	return true
}

// makeSeq is the leaf of a sequence: a Starlark value where nothing in it
// depends on the frame.
func (c *compiler) makeSeq(s *sequence) nid {
	vs := make([]starlark.Value, 0, len(s.elems))
	for _, e := range s.elems {
		v, ok := c.constOf(e.v)
		if !ok || e.when != c.yes {
			return c.addLeaf(leaf{kind: leafSeq, seq: s})
		}
		vs = append(vs, v)
	}
	if s.tuple {
		return c.constant(starlark.Tuple(vs))
	}
	return c.constant(starlark.NewList(vs))
}

// display is [a, b, ...] or (a, b, ...).
func (c *compiler) display(sc *scope, list []syntax.Expr, tuple bool) nid {
	s := &sequence{tuple: tuple, elems: make([]element, len(list))}
	for i, x := range list {
		s.elems[i] = element{c.yes, c.expr(sc, x)}
	}
	r := c.makeSeq(s)
	for i := len(list) - 1; i >= 0; i-- {
		r = c.after(s.elems[i].v, r)
	}
	return r
}

// elements are the parts of a leaf that can be iterated over.
func (c *compiler) elements(l nid) ([]element, bool) {
	v := c.leaf(l)
	if v.kind == leafSeq {
		return v.seq.elems, true
	}
	it, ok := v.v.(starlark.Iterable)
	if v.kind != leafConst || !ok {
		return nil, false
	}
	if starlark.Len(it) > maxLoop {
		return nil, false
	}
	var out []element
	for e := range starlark.Elements(it) {
		out = append(out, element{c.yes, c.constant(e)})
	}
	return out, true
}

func (c *compiler) concat(a, b nid, p syntax.Position) nid {
	x, ok1 := c.elements(a)
	y, ok2 := c.elements(b)
	if !ok1 || !ok2 || c.typeOf(a) != c.typeOf(b) {
		return c.errorAt(p, "", "unknown binary op: %s + %s", c.typeOf(a), c.typeOf(b))
	}
	s := &sequence{tuple: c.typeOf(a) == "tuple"}
	s.elems = append(append(s.elems, x...), y...)
	return c.makeSeq(s)
}

// element is s[i] for a constant i.
func (c *compiler) element(s *sequence, i starlark.Value, p syntax.Position) nid {
	n, err := starlark.AsInt32(i)
	if n < 0 {
		n += len(s.elems)
	}
	switch {
	case err != nil:
		return c.errorAt(p, "", "index: %s", err)
	case !c.fixed(s):
		return c.errorAt(p, "", "an index into a list whose length depends on the frame")
	case n < 0 || n >= len(s.elems):
		return c.errorAt(p, "", "index %s out of range of %d", i, len(s.elems))
	}
	return s.elems[n].v
}

// equalSeq compares a sequence; ok is false where types never match.
func (c *compiler) equalSeq(s *sequence, y leaf, p syntax.Position) (n nid, ok bool) {
	var other []element
	tuple := false
	switch v := y.v.(type) {
	case starlark.Tuple:
		tuple = true
		for _, e := range v {
			other = append(other, element{c.yes, c.constant(e)})
		}
	case *starlark.List:
		for i := range v.Len() {
			other = append(other, element{c.yes, c.constant(v.Index(i))})
		}
	default:
		if y.kind != leafSeq {
			return 0, false
		}
		if !c.fixed(y.seq) {
			return c.errorAt(p, "", "lists compared whose lengths depend on the frame"), true
		}
		tuple, other = y.seq.tuple, y.seq.elems
	}
	switch {
	case !c.fixed(s):
		return c.errorAt(p, "", "lists compared whose lengths depend on the frame"), true
	case tuple != s.tuple || len(other) != len(s.elems):
		return c.no, true
	}
	r := c.yes
	for i := len(other) - 1; i >= 0; i-- {
		r = c.choose(c.pairs(s.elems[i].v, other[i].v, func(a, b nid) nid { return c.equal(a, b, p) }), r, c.no)
	}
	return r, true
}

// inSeq is x in s.
func (c *compiler) inSeq(x nid, s *sequence, p syntax.Position) nid {
	r := c.no
	for i := len(s.elems) - 1; i >= 0; i-- {
		e := s.elems[i]
		found := c.values(e.v, func(l nid) nid {
			switch v, _ := c.constOf(l); v.(type) {
			case value.Net, value.Ports:
				if c.typeOf(x) != v.Type() {
					return c.contains(x, l, p)
				}
			}
			return c.equal(x, l, p)
		})
		r = c.choose(e.when, c.choose(found, c.yes, r), r)
	}
	return r
}

// seqIn is x in y for a tuple x that depends on the frame.
func (c *compiler) seqIn(x nid, y starlark.Value, p syntax.Position) nid {
	switch y.(type) {
	case *starlark.List, starlark.Tuple, *starlark.Set, *starlark.Dict:
	default:
		return c.errorAt(p, "", "%s in %s cannot be compiled", c.typeOf(x), y.Type())
	}
	elems, ok := c.elements(c.constant(y))
	if !ok {
		return c.errorAt(p, "search for a single field", "too large to compile: a search for a tuple in %d elements, at most %d", starlark.Len(y), maxLoop)
	}
	return c.inSeq(x, &sequence{elems: elems}, p)
}

// comprehension is [body for x in xs if cond], over constants.
func (c *compiler) comprehension(sc *scope, e *syntax.Comprehension) nid {
	b := &builder{c: c, sc: sc, e: e, seq: &sequence{}, raised: c.yes}
	b.clause(0, c.yes)
	if b.failed != 0 {
		return b.failed
	}
	return c.after(b.raised, b.result())
}

// A builder collects the elements of a comprehension.
type builder struct {
	c      *compiler
	sc     *scope
	e      *syntax.Comprehension
	seq    *sequence
	keys   []nid // of a dict comprehension
	raised nid   // raises where an element does
	failed nid   // an error, 0 while there is none
}

// clause goes on with the i-th clause, for the frames that `when` names.
func (b *builder) clause(i int, when nid) {
	c := b.c
	if b.failed != 0 || !c.step(b.e.Lbrack) {
		if b.failed == 0 {
			b.failed = c.fatal
		}
		return
	}
	if i == len(b.e.Clauses) {
		b.body(when)
		return
	}
	switch clause := b.e.Clauses[i].(type) {
	case *syntax.IfClause:
		cond := c.truth(c.expr(b.sc, clause.Cond), startOf(clause.Cond))
		b.note(when, cond)
		if when = c.choose(when, cond, c.no); when != c.no {
			b.clause(i+1, when)
		}
	case *syntax.ForClause:
		xs := c.expr(b.sc, clause.X)
		if xs >= 0 || c.leaf(xs).raises() {
			b.failed = c.notConstant(xs, clause.X)
			return
		}
		elems, ok := c.elements(xs)
		if !ok {
			b.failed = c.notConstant(xs, clause.X)
			return
		}
		for _, e := range elems {
			b.note(when, c.assign(b.sc, clause.Vars, e.v))
			b.clause(i+1, c.choose(when, e.when, c.no))
		}
	}
}

// note keeps what raises in n, for the frames that `when` names.
func (b *builder) note(when, n nid) {
	if b.c.raises(n) {
		b.raised = b.c.after(b.raised, b.c.choose(when, b.c.after(n, b.c.yes), b.c.yes))
	}
}

func (b *builder) body(when nid) {
	c := b.c
	if entry, ok := b.e.Body.(*syntax.DictEntry); ok {
		b.keys = append(b.keys, c.expr(b.sc, entry.Key))
		b.seq.elems = append(b.seq.elems, element{when, c.expr(b.sc, entry.Value)})
		return
	}
	v := c.expr(b.sc, b.e.Body)
	b.note(when, v)
	b.seq.elems = append(b.seq.elems, element{when, v})
}

// result is what the comprehension yields.
func (b *builder) result() nid {
	c := b.c
	if !b.e.Curly {
		return c.makeSeq(b.seq)
	}
	d := starlark.NewDict(len(b.keys))
	for i, k := range b.keys {
		key, ok1 := c.constOf(k)
		v, ok2 := c.constOf(b.seq.elems[i].v)
		if !ok1 || !ok2 || b.seq.elems[i].when != c.yes {
			return c.errorAt(b.e.Lbrack, "", "a dict that depends on the frame")
		}
		if err := d.SetKey(key, v); err != nil {
			return c.errorAt(b.e.Lbrack, "", "%s", err)
		}
	}
	return c.constant(d)
}

// notConstant is the error of a loop over xs.
func (c *compiler) notConstant(xs nid, e syntax.Expr) nid {
	if xs < 0 && c.leaf(xs).raises() {
		return xs
	}
	if xs < 0 && c.leaf(xs).kind == leafAbsent {
		return c.touch(startOf(e))
	}
	if v, ok := c.constOf(xs); ok && starlark.Len(v) > maxLoop {
		return c.errorAt(startOf(e), "search large collections with `in` instead of a loop over them",
			"too large to compile: a loop over %d elements, at most %d", starlark.Len(v), maxLoop)
	}
	what := "something that depends on the frame"
	if xs < 0 {
		what = "a value of type " + c.typeOf(xs)
	}
	return c.errorAt(startOf(e), "loops run when the policy is compiled, so over constants", "a loop over %s", what)
}
