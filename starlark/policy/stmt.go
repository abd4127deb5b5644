package policy

import (
	"slices"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A flow is what executing statements leads to: a tree whose leaves say where
// control goes (on, out of the loop, out of the function), and the local
// variables for each way that stays in the function. Those for going on are
// in the scope itself. Where two ways meet, variables that differ become
// trees, so the number of ways never multiplies.
type flow struct {
	tree  nid
	next  bool  // some frames go on
	brk   []nid // variables at break; nil if no frame gets to one
	again []nid // ... at continue
}

func (c *compiler) goesOn() flow { return flow{tree: c.next, next: true} }

// block executes statements.
func (c *compiler) block(sc *scope, stmts []syntax.Stmt) flow {
	f := c.goesOn()
	for _, s := range stmts {
		if !f.next {
			break
		}
		f = c.then(f, c.stmt(sc, s))
	}
	return f
}

// then is first followed by rest, which ran on the variables first left.
func (c *compiler) then(first, rest flow) flow {
	if first.tree == c.next {
		return rest
	}
	return flow{
		tree:  c.redirect(first.tree, leafNext, rest.tree),
		next:  rest.next,
		brk:   c.meet(first.tree, leafBreak, first.brk, rest.brk),
		again: c.meet(first.tree, leafAgain, first.again, rest.again),
	}
}

// redirect leads the leaves of a kind elsewhere.
func (c *compiler) redirect(tree nid, kind leafKind, to nid) nid {
	return c.each(tree, func(l nid) nid {
		if c.leaf(l).kind == kind {
			return to
		}
		return l
	})
}

// meet joins the variables of two ways: a where the tree ends in a leaf of
// the kind, else b. Either may be nil: no frame comes that way.
func (c *compiler) meet(tree nid, kind leafKind, a, b []nid) []nid {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	cond := c.each(tree, func(l nid) nid {
		if c.leaf(l).kind == kind {
			return c.yes
		}
		return c.no
	})
	return c.merge(cond, a, b)
}

// merge joins the variables of two ways.
func (c *compiler) merge(cond nid, a, b []nid) []nid {
	out := slices.Clone(a)
	for i, v := range b {
		if v == out[i] {
			continue
		}
		out[i] = c.choose(cond, c.assigned(out[i]), c.assigned(v))
	}
	return out
}

// assigned is a variable's value as a tree: not being assigned raises.
func (c *compiler) assigned(n nid) nid {
	if n == noValue {
		return c.unassigned
	}
	return n
}

// stmt executes one statement.
func (c *compiler) stmt(sc *scope, s syntax.Stmt) flow {
	if !c.step(startOf(s)) {
		return flow{tree: c.fatal}
	}
	switch s := s.(type) {
	case *syntax.ReturnStmt:
		return c.returnStmt(sc, s)
	case *syntax.IfStmt:
		return c.ifStmt(sc, s)
	case *syntax.AssignStmt:
		return c.strict(c.assignStmt(sc, s))
	case *syntax.ExprStmt:
		return c.strict(c.expr(sc, s.X))
	case *syntax.ForStmt:
		return c.forStmt(sc, s)
	case *syntax.BranchStmt:
		switch s.Token {
		case syntax.BREAK:
			return flow{tree: c.brk, brk: slices.Clone(sc.slots)}
		case syntax.CONTINUE:
			return flow{tree: c.again, again: slices.Clone(sc.slots)}
		}
		return c.goesOn()
	case *syntax.DefStmt:
		n := c.closure(sc, s.Function.(*resolve.Function))
		return c.strict(c.assign(sc, s.Name, n))
	}
	return flow{tree: c.errorAt(startOf(s), "use for over a constant", "this statement cannot be compiled")}
}

// strict goes on where evaluating n does not raise.
func (c *compiler) strict(n nid) flow {
	f := flow{tree: c.after(n, c.next)}
	f.next = f.tree == c.next || f.tree >= 0
	return f
}

func (c *compiler) returnStmt(sc *scope, s *syntax.ReturnStmt) flow {
	pos := c.decision(s.Return)
	v := c.none
	if s.Result != nil {
		pos = c.decision(startOf(s.Result))
		v = c.expr(sc, s.Result)
	}
	return flow{tree: c.values(v, func(l nid) nid {
		if x := c.leaf(l); x.kind == leafConst && x.pos.Line == 0 {
			if b, ok := x.v.(starlark.Bool); ok {
				l = c.boolean(bool(b), pos)
			}
		}
		return c.internLeaf(leafKey{kind: leafReturn, pos: pos, n: int64(l)}, leaf{kind: leafReturn, inner: l, pos: pos})
	})}
}

func (c *compiler) ifStmt(sc *scope, s *syntax.IfStmt) flow {
	cond := c.truth(c.expr(sc, s.Cond), startOf(s.Cond))
	return c.either(sc, cond, func() flow { return c.block(sc, s.True) }, func() flow { return c.block(sc, s.False) })
}

// either runs a where cond holds and b where not.
func (c *compiler) either(sc *scope, cond nid, a, b func() flow) flow {
	switch cond {
	case c.yes:
		return a()
	case c.no:
		return b()
	}
	before := slices.Clone(sc.slots)
	f := a()
	left := sc.slots
	sc.slots = before
	g := b()
	switch {
	case f.next && g.next:
		sc.slots = c.merge(cond, left, sc.slots)
	case f.next:
		sc.slots = left
	}
	return flow{
		tree:  c.choose(cond, f.tree, g.tree),
		next:  f.next || g.next,
		brk:   c.mergeWays(cond, f.brk, g.brk),
		again: c.mergeWays(cond, f.again, g.again),
	}
}

func (c *compiler) mergeWays(cond nid, a, b []nid) []nid {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return c.merge(cond, a, b)
}

// assignStmt is x = y and x += y; it returns what raises, or anything.
func (c *compiler) assignStmt(sc *scope, s *syntax.AssignStmt) nid {
	if s.Op == syntax.EQ {
		return c.assign(sc, s.LHS, c.expr(sc, s.RHS))
	}
	old := c.expr(sc, s.LHS)
	n := c.pairs(old, c.expr(sc, s.RHS), func(a, b nid) nid {
		if c.typeOf(a) == "list" || c.typeOf(a) == "dict" || c.typeOf(a) == "set" {
			return c.errorAt(s.OpPos, "write x = x + [...]", "%s changes a %s in place", s.Op, c.typeOf(a))
		}
		return c.binaryLeaves(s.Op-syntax.PLUS_EQ+syntax.PLUS, a, b, s.OpPos)
	})
	return c.assign(sc, s.LHS, n)
}

// assign binds variables to a value; it returns a tree that raises where that
// does.
func (c *compiler) assign(sc *scope, to syntax.Expr, v nid) nid {
	switch to := to.(type) {
	case *syntax.ParenExpr:
		return c.assign(sc, to.X, v)
	case *syntax.Ident:
		if b := to.Binding.(*resolve.Binding); b.Scope == resolve.Local || b.Scope == resolve.Cell {
			sc.slots[b.Index] = v
			return v
		}
	case *syntax.TupleExpr:
		return c.unpack(sc, to.List, v, startOf(to))
	case *syntax.ListExpr:
		return c.unpack(sc, to.List, v, startOf(to))
	}
	return c.errorAt(startOf(to), "predicates compute from the frame and constants", "assignment to what a predicate does not own")
}

// unpack is a, b = v.
func (c *compiler) unpack(sc *scope, to []syntax.Expr, v nid, p syntax.Position) nid {
	r := c.values(v, func(l nid) nid {
		elems, ok := c.elements(l)
		switch {
		case c.leaf(l).kind == leafAbsent:
			return c.touch(p)
		case !ok:
			return c.errorAt(p, "", "%s cannot be unpacked", c.typeOf(l))
		case len(elems) != len(to):
			return c.errorAt(p, "", "%d values for %d variables", len(elems), len(to))
		}
		for _, e := range elems {
			if e.when != c.yes {
				return c.errorAt(p, "", "unpacking a list whose length depends on the frame")
			}
		}
		return c.yes
	})
	for i, x := range to {
		part := c.values(v, func(l nid) nid {
			if elems, _ := c.elements(l); i < len(elems) {
				return elems[i].v
			}
			return c.none
		})
		r = c.after(r, c.assign(sc, x, part))
	}
	return r
}

// forStmt runs the body for each element, one after the other.
func (c *compiler) forStmt(sc *scope, s *syntax.ForStmt) flow {
	xs := c.expr(sc, s.X)
	if xs >= 0 {
		return flow{tree: c.notConstant(xs, s.X)}
	}
	elems, ok := c.elements(xs)
	if !ok {
		return flow{tree: c.notConstant(xs, s.X)}
	}
	// The rounds nest: what comes behind a round is part of where it leads.
	// They are run first to last and then joined last to first.
	var rounds []flow
	for _, e := range elems {
		f := c.round(sc, s, e)
		rounds = append(rounds, f)
		if !f.next {
			break
		}
	}
	last := c.goesOn()
	if n := len(rounds); n > 0 && !rounds[n-1].next {
		last = flow{tree: c.next} // nothing gets behind the last round
	}
	return c.joinRounds(sc, rounds, last)
}

// round runs the body once; continue goes on.
func (c *compiler) round(sc *scope, s *syntax.ForStmt, e element) flow {
	f := c.either(sc, e.when, func() flow {
		f := c.strict(c.assign(sc, s.Vars, e.v))
		if !f.next {
			return f
		}
		return c.then(f, c.block(sc, s.Body))
	}, c.goesOn)
	if f.again != nil {
		if f.next {
			sc.slots = c.meet(f.tree, leafAgain, f.again, sc.slots)
		} else {
			sc.slots = f.again
		}
		f.tree, f.next, f.again = c.redirect(f.tree, leafAgain, c.next), true, nil
	}
	return f
}

// joinRounds joins the rounds of a loop, so that break goes on behind it.
func (c *compiler) joinRounds(sc *scope, rounds []flow, last flow) flow {
	f, slots := last, sc.slots
	for i := len(rounds) - 1; i >= 0; i-- {
		r := rounds[i]
		tree := c.each(r.tree, func(l nid) nid {
			switch c.leaf(l).kind {
			case leafNext:
				return f.tree
			case leafBreak:
				return c.next
			}
			return l
		})
		switch {
		case r.brk != nil && f.next:
			slots = c.meet(r.tree, leafBreak, r.brk, slots)
		case r.brk != nil:
			slots = r.brk
		}
		f = flow{tree: tree, next: f.next || r.brk != nil}
	}
	sc.slots = slots
	return f
}
