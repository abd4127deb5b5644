package policy

import (
	"go.starlark.net/starlark"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// An Ending is a verdict that a predicate can come to, and the source line that
// gives it.
type Ending struct {
	Verdict rule.Verdict
	Kind    rule.WhyKind
	File    string
	Line    int
}

// A Judging is one predicate of a policy, by itself.
type Judging struct {
	Name    string
	Ingress bool
	// Fn is nil for a constant.
	Fn *starlark.Function
	// Endings are those that some frame comes to, of all classes of frames
	// that the predicate judges.
	Endings []Ending
}

// Judgings takes the policy apart: each predicate and what it can answer, for
// the NIC that id describes, whatever guards and other predicates say. What no
// frame comes to is not among the endings. The error is that of Compile.
func (p *Policy) Judgings(id Identity) ([]Judging, error) {
	c := compilers.Get().(*compiler)
	defer compilers.Put(c)
	c.reset(p)
	a := &assembly{compiler: c, p: p, id: &id, own: id.own(), pos: c.pos(p.pos), trees: make(map[treeKey]compiled)}
	c.simplifier.clear()
	var out []Judging
	var roots []nid
	for _, w := range []way{egress, ingress} {
		if c.way = w; w == ingress && !p.judgeIn {
			break
		}
		for q := range numPreds {
			if !a.side().has(q) {
				continue
			}
			j := Judging{Name: q.String(), Ingress: w == ingress, Fn: a.side().preds[q].fn}
			roots = append(roots, a.endings(q, &j)...)
			out = append(out, j)
		}
	}
	c.way = egress
	return out, c.mistakes(roots)
}

// endings fills in the endings of one predicate, and returns its trees.
func (a *assembly) endings(q pred, j *Judging) (roots []nid) {
	seen := map[Ending]bool{}
	for class := frame.ClassNone + 1; class < frame.NumClasses; class++ {
		if !a.judgesClass(q, class) {
			continue
		}
		n := a.simplifier.class(a.tree(q, class), class)
		roots = append(roots, n)
		a.each(n, func(l nid) nid {
			v := a.leaf(l)
			if v.kind != leafVerdict {
				return l
			}
			w := a.whys[v.why]
			e := Ending{Verdict: v.verdict, Kind: w.Kind, Line: int(w.Pos.Line)}
			if w.Pos.Line != 0 {
				e.File = a.files[w.Pos.File]
			}
			if !seen[e] {
				seen[e] = true
				j.Endings = append(j.Endings, e)
			}
			return l
		})
	}
	return roots
}

// judgesClass reports whether q is asked about some frame of a class.
func (a *assembly) judgesClass(q pred, class frame.Class) bool {
	protocols := []uint64{0}
	if isFragment(class) {
		for _, t := range transports {
			protocols = append(protocols, t.protocol)
		}
	}
	for _, p := range protocols {
		judges, _ := a.side().judges(class, p)
		for _, j := range judges {
			if j == q {
				return true
			}
		}
	}
	return false
}
