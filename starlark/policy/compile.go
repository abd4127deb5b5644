package policy

import (
	"errors"
	"sync"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// compilers keeps the memory of compilers between compilations.
var compilers = sync.Pool{New: func() any { return newCompiler() }}

// Compile makes the program that judges the frames of the NIC that id
// describes. The error is an [*Error], or several joined.
func (p *Policy) Compile(id Identity) (*rule.Program, error) {
	c := compilers.Get().(*compiler)
	defer compilers.Put(c)
	c.reset(p)
	u, err := c.unit(p, id)
	if err != nil {
		return nil, err
	}
	prog, err := rule.New(u)
	if err != nil {
		return nil, &Error{Pos: p.callPos, Name: "policy", Msg: err.Error()}
	}
	if p.budget > 0 && prog.MaxSteps() > p.budget {
		return nil, c.overBudget(p, id, prog.MaxSteps())
	}
	return prog, nil
}

// asUDP names the class that the frames of a class are judged as where there
// is no allow_dhcp. Behind their first check theirs are the same.
var asUDP = [frame.NumClasses]frame.Class{frame.ClassIPv4DHCP: frame.ClassIPv4UDP, frame.ClassIPv6DHCP: frame.ClassIPv6UDP}

// An assembly puts the predicates of a policy together, class by class.
type assembly struct {
	*compiler
	p     *Policy
	id    *Identity
	own   *own
	pos   rule.Pos // of what no predicate decided
	trees map[treeKey]compiled
}

type treeKey struct {
	way      way
	pred     pred
	family   ipFamily
	fragment bool
}

// A compiled is the tree of a predicate.
type compiled struct {
	tree  nid
	class frame.Class // it was compiled for
	flows bool        // it asks for flows, which no later fragment is of
}

// unit compiles p.
func (c *compiler) unit(p *Policy, id Identity) (*rule.Unit, error) {
	a := &assembly{compiler: c, p: p, id: &id, own: id.own(), pos: c.pos(p.pos), trees: make(map[treeKey]compiled)}
	s := c.simplifier
	s.clear()
	roots := []classRoots{a.roots(s)}
	all := roots[0][1:]
	if p.judgeIn {
		c.way = ingress
		roots = append(roots, a.roots(s))
		all = append(all, roots[1][1:]...)
		c.way = egress
	}
	if err := c.mistakes(all); err != nil {
		return nil, err
	}
	return lower(c, roots, p.callPos)
}

// classRoots are the trees of all classes, for one way.
type classRoots [frame.NumClasses]nid

// roots are the trees for the way that the compiler is at.
func (a *assembly) roots(s *simplifier) (roots classRoots) {
	for class := frame.ClassNone + 1; class < frame.NumClasses; class++ {
		if udp := asUDP[class]; udp != frame.ClassNone && !a.side().has(allowDHCP) && !(a.way == egress && a.id.DHCP4) {
			// Nothing but a guard tells it from UDP: that is not compiled twice.
			roots[class] = a.guardedBy(classChecks[class][:1], roots[udp])
			continue
		}
		roots[class] = s.class(a.class(class), class)
	}
	return roots
}

func (a *assembly) side() *side { return &a.p.ways[a.way] }

// verdict is the leaf of a verdict.
func (c *compiler) verdict(v rule.Verdict, w rule.Why) nid {
	id := c.why(w)
	return c.internLeaf(leafKey{kind: leafVerdict, n: int64(id), m: int64(v)}, leaf{kind: leafVerdict, verdict: v, why: id})
}

// why is the number of a reason.
func (c *compiler) why(w rule.Why) uint32 {
	i := c.whyIDs.start(hashWhy(&w))
	for ; c.whyIDs.slots[i] != 0; i = c.whyIDs.next(i) {
		if id := c.whyIDs.slots[i] - 1; c.whys[id] == w {
			return uint32(id)
		}
	}
	id := uint32(len(c.whys))
	c.whys = append(c.whys, w)
	if c.whyIDs.add(i, int32(id)) {
		c.whyIDs.rebuild(func(id int32) uint64 { return hashWhy(&c.whys[id]) })
	}
	return id
}

func hashWhy(w *rule.Why) uint64 {
	n := len(w.Name)
	return mix(packed(w.Pos), uint64(w.Kind)<<32|uint64(n)<<16|uint64(w.Name[n-1])<<8|uint64(w.Name[0]))
}

// class is the tree of verdicts for the frames of a class: guards first, then
// the layers, if none of them is left unspoken.
func (a *assembly) class(class frame.Class) nid {
	return a.guardedBy(classChecks[class], a.layers(class))
}

// guardedBy is tree for the frames that pass the checks whose guards are on.
func (a *assembly) guardedBy(checks []check, tree nid) nid {
	if a.way == ingress {
		return tree // guards hold the container to its own addresses
	}
	for i := len(checks) - 1; i >= 0; i-- {
		if !a.p.off.has(checks[i].guard) {
			tree = a.guarded(checks[i], tree)
		}
	}
	return tree
}

// guarded is tree for the frames that pass the check.
func (a *assembly) guarded(ch check, tree nid) nid {
	r := a.verdict(rule.Drop, rule.Why{Kind: rule.WhyGuard, Name: guardNames[ch.guard], Pos: a.pos})
	for i := len(ch.any) - 1; i >= 0; i-- {
		t := tree
		for j := len(ch.any[i]) - 1; j >= 0; j-- {
			f := &ch.any[i][j]
			no := r
			switch {
			case f.not:
				t, no = no, t
			case f.leased(a.id):
				no = a.branch(a.test(test{kind: testLease, a: f.field}), t, r, rule.Pos{})
			}
			t = a.inSet(f.field, f.setOf(a.own), t, no, rule.Pos{})
		}
		r = t
	}
	return r
}

// layers is the tree of the predicates that judge a class. A later fragment
// belongs to the transport predicate of its protocol, which is a field.
func (a *assembly) layers(class frame.Class) nid {
	tree := a.judged(class, 0)
	if !isFragment(class) {
		return tree
	}
	for _, t := range transports {
		if t.family == noFamily || t.family == family(class) {
			tree = a.inSet(frame.IPProtocol, point(u128{0, t.protocol}), a.judged(class, t.protocol), tree, rule.Pos{})
		}
	}
	return tree
}

// judged is the tree of the predicates that judge the frames of a class, of
// a protocol where they are fragments: each that says yes hands on to the next.
func (a *assembly) judged(class frame.Class, protocol uint64) nid {
	judges, unspoken := a.side().judges(class, protocol)
	if unspoken != "" {
		return a.verdict(rule.Drop, rule.Why{Kind: rule.WhyUnspoken, Name: unspoken, Pos: a.pos})
	}
	tree := a.tree(judges[len(judges)-1], class)
	for i := len(judges) - 2; i >= 0; i-- {
		next := tree
		tree = a.each(a.tree(judges[i], class), func(l nid) nid {
			switch a.leaf(l).verdict {
			case rule.Forward:
				return next
			case rule.Audit:
				return a.watched(next, l)
			}
			return l
		})
	}
	return tree
}

// watched is tree behind a predicate in audit mode that said no: what passes
// does so because of l.
func (a *assembly) watched(tree, l nid) nid {
	return a.each(tree, func(m nid) nid {
		if v := a.leaf(m); v.kind == leafVerdict && v.verdict != rule.Drop {
			return l
		}
		return m
	})
}

// tree is the tree of one predicate for a class of frames.
func (a *assembly) tree(q pred, class frame.Class) nid {
	k := treeKey{a.way, q, family(class), isFragment(class)}
	if t, ok := a.trees[k]; ok {
		return t.tree
	}
	var n nid
	r := a.side().preds[q]
	if t, ok := a.trees[treeKey{k.way, q, k.family, false}]; ok && !t.flows && q.looksAlike(r.fn, class, t.class) {
		a.trees[k] = t
		return t.tree
	}
	a.flows = false
	if r.fn != nil {
		n = a.predicate(q, r.fn, class)
	} else {
		v := rule.Drop
		if r.constant {
			v = rule.Forward
		}
		n = a.verdict(v, rule.Why{Kind: rule.WhyPredicate, Name: q.String(), Pos: a.compiler.pos(a.p.callPos)})
	}
	if r.audit {
		n = a.each(n, func(l nid) nid {
			if v := *a.leaf(l); v.kind == leafVerdict && v.verdict == rule.Drop {
				return a.verdict(rule.Audit, a.whys[v.why])
			}
			return l
		})
	}
	a.trees[k] = compiled{n, class, a.flows}
	return n
}

// looksAlike reports whether both classes have the fields that a predicate
// looks at: a later fragment lacks those of the transport layer. Both are of one
// family.
func (q pred) looksAlike(fn *starlark.Function, c, d frame.Class) bool {
	if fn == nil {
		return true
	}
	for i := range fn.NumParams() {
		name, _ := fn.Param(i)
		if m, ok := q.paramNamed(name); ok && m.name != direction {
			if f := m.field[family(c)]; c.Has(f) != d.Has(f) {
				return false
			}
		}
	}
	return true
}

// predicate compiles a predicate for a class of frames.
func (c *compiler) predicate(q pred, fn *starlark.Function, class frame.Class) nid {
	c.pred, c.fragment = q, isFragment(class)
	cl := c.closureOf(fn)
	if cl == nil {
		return c.errorAt(fn.Position(), "", "the source of this function is not known")
	}
	sc := newScope(cl)
	for i := range fn.NumParams() {
		name, _ := fn.Param(i)
		m, ok := q.paramNamed(name)
		switch {
		case !ok:
			sc.slots[i] = c.constant(fn.ParamDefault(i))
		case m.name == direction:
			sc.slots[i] = c.constant(starlark.String(c.way.String()))
		case !class.Has(m.field[family(class)]):
			sc.slots[i] = c.internLeaf(leafKey{kind: leafAbsent}, leaf{kind: leafAbsent})
		default:
			sc.slots[i] = c.fieldLeaf(m.field[family(class)])
		}
	}
	c.calls = append(c.calls[:0], cl.fn)
	tree := c.block(sc, cl.fn.Body).tree
	c.calls = c.calls[:0]
	c.step(fn.Position()) // the budget may have ended in the last expression
	end := c.decision(fn.Position())
	return c.each(tree, func(l nid) nid {
		v := *c.leaf(l)
		switch v.kind {
		case leafNext:
			return c.verdict(rule.Drop, rule.Why{Kind: rule.WhyPredicate, Name: q.String(), Pos: end})
		case leafTouch:
			return c.verdict(rule.Drop, rule.Why{Kind: rule.WhyFragment, Name: q.String(), Pos: v.pos})
		case leafReturn:
			return c.answer(q, v.inner, v.pos, cl.fn.Pos)
		}
		return l
	})
}

// answer is the verdict for a returned value.
func (c *compiler) answer(q pred, l nid, pos rule.Pos, p syntax.Position) nid {
	if own := c.leaf(l).pos; own.Line != 0 {
		pos = own
	}
	why := rule.Why{Kind: rule.WhyPredicate, Name: q.String(), Pos: pos}
	return c.each(c.truthOf(l, p), func(t nid) nid {
		switch t {
		case c.yes:
			return c.verdict(rule.Forward, why)
		case c.no:
			return c.verdict(rule.Drop, why)
		}
		why.Kind = rule.WhyFragment // an absent field, returned
		return c.verdict(rule.Drop, why)
	})
}

// maxMistakes is how many mistakes are reported at once.
const maxMistakes = 10

// mistakes are the errors that some frame would get to.
func (c *compiler) mistakes(roots []nid) error {
	if c.fatal != 0 {
		return c.leaf(c.fatal).err
	}
	var errs []error
	told := make(map[string]bool)
	seen := make(map[nid]bool)
	var visit func(n nid)
	visit = func(n nid) {
		if seen[n] || !c.raises(n) || len(errs) == maxMistakes {
			return
		}
		seen[n] = true
		if n >= 0 {
			visit(c.nodes[n].hi)
			visit(c.nodes[n].lo)
			return
		}
		if err := c.leaf(n).err; !told[err.Error()] {
			told[err.Error()] = true
			errs = append(errs, err)
		}
	}
	for _, n := range roots {
		visit(n)
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
