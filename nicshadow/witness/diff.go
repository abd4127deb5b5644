package witness

import (
	"slices"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A Change is a frame that two programs judge differently: it was built,
// parsed, and judged by both.
type Change struct {
	Class    frame.Class
	Key      frame.Key
	Frame    []byte
	Old, New rule.Outcome
}

// A Report is what a search has found.
type Report struct {
	// Changes differ in what decided, before or after.
	Changes []Change
	// More is how many further changes there were no place for.
	More int
	Searched
}

// Same reports whether no frame was found that changes its verdict.
func (r *Report) Same() bool { return len(r.Changes) == 0 }

// Diff looks for frames that the programs judge differently.
func Diff(before, after *rule.Program, l Limits) *Report {
	d := &differ{before: before, after: after, limits: l.orDefaults(), report: &Report{}, seen: map[[2]uint32]bool{}}
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		d.class(c)
	}
	return d.report
}

// A differ runs the search of [Diff].
type differ struct {
	before, after *rule.Program
	limits        Limits
	report        *Report
	seen          map[[2]uint32]bool // pairs of deciding instructions
}

func (d *differ) class(c frame.Class) {
	vs := variants(c)
	if vs == nil {
		d.cut(c, "frames of this class cannot be built")
		return
	}
	g := newGraph(maxNodes)
	a, err := g.add(d.before, c)
	if err == nil {
		var b nodeID
		if b, err = g.add(d.after, c); err == nil {
			d.walk(g, c, vs, a, b)
		}
	}
	if err != nil {
		d.cut(c, err.Error())
	}
}

func (d *differ) walk(g *graph, c frame.Class, vs []variant, a, b nodeID) {
	s := &search{graph: g, limit: d.limits.Steps}
	s.found = func(at *domain) bool {
		d.part(s, c, at)
		return true
	}
	for _, v := range vs {
		s.walk(a, b, v.domain(c))
	}
	d.report.Steps += s.steps
	if s.cut {
		d.cut(c, "more ways than the limit of steps")
	} else {
		d.report.Classes = append(d.report.Classes, c.String())
	}
}

func (d *differ) cut(c frame.Class, why string) {
	d.report.Cut = append(d.report.Cut, c.String()+": "+why)
}

// part is where the verdicts of the two programs part.
func (d *differ) part(s *search, c frame.Class, at *domain) {
	found, possible := s.keys(c, at, func(k *frame.Key) bool { return d.try(c, k) })
	if possible && !found {
		d.report.Unresolved++
	}
}

// try builds the frame of a key and has both programs judge it. It reports
// whether they differ.
func (d *differ) try(c frame.Class, k *frame.Key) bool {
	x, y := outcomes(d.before, d.after, k)
	if x.Verdict == y.Verdict {
		return false
	}
	data := Build(k)
	var parsed frame.Key
	if data == nil || frame.Parse(data, &parsed) != frame.OK {
		return false
	}
	x, y = outcomes(d.before, d.after, &parsed)
	if x.Verdict == y.Verdict {
		return false
	}
	pair := [2]uint32{x.PC, y.PC}
	if d.seen[pair] {
		return true
	}
	d.seen[pair] = true
	if len(d.report.Changes) >= d.limits.Changes {
		d.report.More++
		return true
	}
	d.report.Changes = append(d.report.Changes, Change{c, parsed, slices.Clone(data), x, y})
	return true
}
