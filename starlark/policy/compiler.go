package policy

import (
	"fmt"
	"math"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/value"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Limits of one compilation. They stop what would compile for ever, or into
// a program that no rule machine holds; what people write stays far below.
const (
	maxWork   = 1 << 22 // nodes walked over
	maxNodes  = 1 << 19 // tests, of which many are gone in the end
	maxSteps  = 1 << 20 // expressions and statements evaluated
	maxLoop   = 1 << 16 // elements of what is looped over
	maxLookup = 1 << 12 // entries of a dict that is indexed by a field
	// nodes visited to keep intermediate trees small
	maxCompaction = 1 << 21
	constOps      = 50_000_000 // interpreter steps of calls with constant arguments
)

// A compiler evaluates predicates symbolically: a value that depends on the
// frame is a decision tree (graph), all else is computed by Starlark itself.
type compiler struct {
	*graph
	sources *Sources
	pred    pred
	way     way
	// fragment says that the predicate is compiled for later fragments.
	fragment bool
	flows    bool // it asked for flows
	limits   []rule.Limit
	limitIDs map[limitKey]int
	asked    bool // a function that was called asks something of the frame
	thread   *starlark.Thread
	printed  bool
	files    []string
	cols     map[[2]uint32]uint16 // column of the first decision in a line
	steps    int
	fatal    nid // the leafError of an exhausted budget; 0 while there is none
	calls    []*resolve.Function
	globals  map[*starlark.Module]starlark.StringDict
	closures map[*starlark.Function]*closure
	members  map[any]set // sets of what large collections hold
	whys     []rule.Why
	whyIDs   index

	simplifier *simplifier // of whole programs
	lowering   *lowering

	// Leaves that are always there. unassigned raises: it is the value of a
	// variable that has none.
	yes, no, none, next, brk, again, unassigned nid
}

func newCompiler() *compiler {
	g := newGraph()
	return &compiler{
		graph: g, simplifier: newSimplifier(g), lowering: newLowering(),
		cols:    make(map[[2]uint32]uint16),
		globals: make(map[*starlark.Module]starlark.StringDict), closures: make(map[*starlark.Function]*closure),
		members: make(map[any]set), limitIDs: make(map[limitKey]int),
	}
}

// reset readies c for compiling p.
func (c *compiler) reset(p *Policy) {
	c.graph.clear()
	clear(c.cols)
	clear(c.globals)
	clear(c.closures)
	clear(c.members)
	clear(c.limitIDs)
	c.whyIDs.clear()
	*c = compiler{
		graph: c.graph, simplifier: c.simplifier, lowering: c.lowering, sources: p.sources,
		cols: c.cols, globals: c.globals, closures: c.closures, members: c.members, limitIDs: c.limitIDs, whys: c.whys[:0], whyIDs: c.whyIDs, calls: c.calls[:0],
	}
	c.compact = c.compactor()
	c.yes, c.no = c.constant(starlark.True), c.constant(starlark.False)
	c.none = c.constant(starlark.None)
	c.unassigned = c.addLeaf(leaf{kind: leafError, err: &Error{Name: "policy", Msg: "a variable that is not assigned"}})
	c.next = c.internLeaf(leafKey{kind: leafNext}, leaf{kind: leafNext})
	c.brk = c.internLeaf(leafKey{kind: leafBreak}, leaf{kind: leafBreak})
	c.again = c.internLeaf(leafKey{kind: leafAgain}, leaf{kind: leafAgain})
}

// compactor is a function that simplifies trees, knowing nothing of the frame
// but what the tests on the way say. It gives up once it has done too much.
func (c *compiler) compactor() func(nid) nid {
	var s *simplifier
	total := 0
	return func(n nid) nid {
		if s == nil {
			s = newSimplifier(c.graph)
		}
		s.visits = 0
		if total < maxCompaction {
			n = s.simplify(n)
			total += s.visits
		}
		return n
	}
}

// pos is a position in the program's debug lines.
func (c *compiler) pos(p syntax.Position) rule.Pos {
	if p.Line <= 0 {
		return rule.Pos{}
	}
	name := p.Filename()
	file := -1
	for i, f := range c.files {
		if f == name {
			file = i
			break
		}
	}
	if file < 0 {
		if len(c.files) > math.MaxUint16 {
			return rule.Pos{}
		}
		file = len(c.files)
		c.files = append(c.files, name)
	}
	return rule.Pos{File: uint16(file), Line: uint32(p.Line), Col: uint16(min(p.Col, math.MaxUint16))}
}

// decision is the position of a decision. Decisions in one line share the
// position of the first: `dst_port == 80 or dst_port == 443` is one test then.
func (c *compiler) decision(p syntax.Position) rule.Pos {
	q := c.pos(p)
	if q.Line == 0 {
		return q
	}
	k := [2]uint32{uint32(q.File), q.Line}
	if col, ok := c.cols[k]; ok {
		q.Col = col
	} else {
		c.cols[k] = q.Col
	}
	return q
}

// errorAt is a leaf that is a mistake if any frame gets there.
func (c *compiler) errorAt(p syntax.Position, hint, format string, args ...any) nid {
	return c.addLeaf(leaf{kind: leafError, err: &Error{Pos: p, Name: c.pred.String(), Msg: fmt.Sprintf(format, args...), Hint: hint}})
}

// touch is a leaf for having looked at a field that a fragment lacks.
func (c *compiler) touch(p syntax.Position) nid {
	q := c.decision(p)
	return c.internLeaf(leafKey{kind: leafTouch, pos: q}, leaf{kind: leafTouch, pos: q})
}

// step counts an evaluation; false once the budget is spent.
func (c *compiler) step(p syntax.Position) bool {
	c.steps++
	if c.fatal == 0 && c.exhausted() {
		c.fatal = c.errorAt(p, "search large collections with `in` instead of a loop over them", "too large to compile")
	}
	return c.fatal == 0
}

func (c *compiler) exhausted() bool { return c.steps > maxSteps || c.spent() }

// constant is the leaf of a Starlark value, which is frozen from now on.
func (c *compiler) constant(v starlark.Value) nid {
	l := leaf{kind: leafConst, v: v}
	k := leafKey{}
	switch v := v.(type) {
	case starlark.Bool:
		k.n, k.m = int64(b2i(bool(v))), 1
	case starlark.Int:
		n, ok := v.Int64()
		if !ok {
			return c.addLeaf(l)
		}
		k.n, k.m = n, 2
	case starlark.NoneType:
		k.m = 3
	case starlark.String:
		k.x = string(v)
	case value.IP, value.MAC, value.Net:
		k.x = v
	case *starlark.List, *starlark.Dict, *starlark.Set, *starlark.Builtin, *starlark.Function:
		v.Freeze()
		k.x = v
	default:
		v.Freeze()
		return c.addLeaf(l)
	}
	return c.internLeaf(k, l)
}

// boolean is a truth value that was decided at pos.
func (c *compiler) boolean(b bool, pos rule.Pos) nid {
	return c.internLeaf(leafKey{pos: pos, n: int64(b2i(b)), m: 1}, leaf{kind: leafConst, v: starlark.Bool(b), pos: pos})
}

// integer is the leaf of an integer expression.
func (c *compiler) integer(e eid) nid {
	if x := c.exprs[e]; x.op == exprConst {
		return c.constant(starlark.MakeInt64(x.k))
	}
	return c.internLeaf(leafKey{kind: leafInt, n: int64(e)}, leaf{kind: leafInt, expr: e})
}

// fieldLeaf is the value of a field.
func (c *compiler) fieldLeaf(f frame.Field) nid {
	switch f.Kind() {
	case frame.KindBool:
		return c.internLeaf(leafKey{kind: leafFlag, n: int64(f)}, leaf{kind: leafFlag, field: f})
	case frame.KindInt:
		return c.integer(c.fieldExpr(f))
	}
	return c.internLeaf(leafKey{kind: leafAddr, n: int64(f)}, leaf{kind: leafAddr, field: f})
}

// choose is a where cond, a tree of truth values, is true, and b where it is false.
func (c *compiler) choose(cond, a, b nid) nid {
	return c.values(cond, func(l nid) nid {
		if c.leaf(l).v == starlark.True {
			return a
		}
		return b
	})
}

// truth is the tree of c.yes and c.no that says whether n counts as true.
func (c *compiler) truth(n nid, p syntax.Position) nid {
	if n == c.yes || n == c.no {
		return n
	}
	return c.values(n, func(l nid) nid { return c.truthOf(l, p) })
}

func (c *compiler) truthOf(l nid, p syntax.Position) nid {
	switch v := c.leaf(l); v.kind {
	case leafConst:
		if v.v.Truth() {
			return c.yes
		}
		return c.no
	case leafInt:
		return c.between(v.expr, 0, 0, c.no, c.yes, c.pos(p))
	case leafSeq:
		r := c.no
		for i := len(v.seq.elems) - 1; i >= 0; i-- {
			r = c.choose(v.seq.elems[i].when, c.yes, r)
		}
		return r
	case leafAbsent:
		return c.touch(p)
	}
	return c.yes
}

// booleans gives the truth values of a tree of c.yes and c.no their position.
func (c *compiler) booleans(n nid, p syntax.Position) nid {
	pos := c.decision(p)
	return c.choose(n, c.boolean(true, pos), c.boolean(false, pos))
}

// call runs a function on constants in the interpreter.
func (c *compiler) call(fn starlark.Value, args starlark.Tuple, kwargs []starlark.Tuple, p syntax.Position) nid {
	if c.thread == nil {
		c.thread = &starlark.Thread{Name: c.pred.String(), Print: func(*starlark.Thread, string) { c.printed = true }}
		c.thread.SetMaxExecutionSteps(constOps)
		c.thread.SetLocal(askedKey, &c.asked)
	}
	v, err := starlark.Call(c.thread, fn, args, kwargs)
	if err != nil {
		c.thread = nil // it may have been cancelled
		return c.errorAt(p, "", "%s", message(err))
	}
	if c.printed {
		c.printed = false
		return c.errorAt(p, "a predicate judges frames; it cannot print", "print")
	}
	return c.constant(v)
}

// message is the innermost message of an error of the interpreter.
func message(err error) string {
	if e, ok := err.(*starlark.EvalError); ok {
		return e.Msg
	}
	return err.Error()
}
