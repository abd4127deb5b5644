package witness

import (
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// Forwarded is the values of a field that frames of some class have which the
// program forwards, if the fields of with have values in those sets. whole is
// false where the search was not, and there may be more.
func Forwarded(p *rule.Program, c frame.Class, f frame.Field, with map[frame.Field]Set, l Limits) (values Set, whole bool) {
	l = l.orDefaults()
	vs := variants(c)
	g := newGraph(maxNodes)
	root, err := g.add(p, c, false)
	if err != nil || vs == nil || !c.Has(f) {
		return Set{}, false
	}
	root = g.passes(root, map[nodeID]nodeID{})
	s := &search{graph: g, limit: l.Steps}
	partial := false
	s.found = func(at *domain) bool {
		if at.fields[f].within(values) {
			return true
		}
		if len(at.decided) == 0 {
			values = values.Or(at.fields[f])
			return true
		}
		// What arithmetic lets through is known of single frames only.
		s.keys(c, at, func(k *frame.Key) bool {
			if !judge(p, k, false).Verdict.Passes() {
				return false
			}
			hi, lo := k.Wide(f)
			values = values.Or(point(value{Hi: hi, Lo: lo}))
			return true
		})
		partial = true
		return true
	}
	for _, v := range vs {
		d := v.domain(c)
		for field, set := range with {
			d.fields[field] = d.fields[field].And(set)
		}
		if !feasible(d, c) {
			continue
		}
		s.walk(root, leafDrop, d)
	}
	return values, !s.cut && !partial
}

// passes is the graph in which an audited frame is a forwarded one.
func (g *graph) passes(n nodeID, done map[nodeID]nodeID) nodeID {
	switch {
	case n == leafAudit:
		return leafForward
	case n < leaves:
		return n
	}
	out, ok := done[n]
	if !ok {
		at := g.nodes[n]
		out = g.node(at.test, g.passes(at.yes, done), g.passes(at.no, done))
		done[n] = out
	}
	return out
}

// feasible reports whether every field of the class has a value left.
func feasible(d *domain, c frame.Class) bool {
	for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
		if c.Has(f) && d.fields[f].Empty() {
			return false
		}
	}
	return true
}

// Prefix is the set of the addresses in a prefix of n bits.
func Prefix(v rule.Const, n, width int) Set {
	s, _ := masked(prefixMask(n, width), v, width)
	return s
}

// Point is the set of one value.
func Point(v rule.Const) Set { return point(v) }
