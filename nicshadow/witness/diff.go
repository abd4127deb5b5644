package witness

import (
	"slices"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A Change is a frame that two programs judge differently: it was built,
// parsed, and judged by both.
type Change struct {
	Class frame.Class
	// Ingress says that the frame is on its way to the container.
	Ingress  bool
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
	if before.JudgesIngress() || after.JudgesIngress() {
		d.ingress = true
		for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
			d.class(c)
		}
	}
	return d.report
}

// A differ runs the search of [Diff].
type differ struct {
	before, after *rule.Program
	ingress       bool // frames on their way to the container are searched
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
	a, err := g.add(d.before, c, d.ingress)
	if err == nil {
		var b nodeID
		if b, err = g.add(d.after, c, d.ingress); err == nil {
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
		d.report.Classes = append(d.report.Classes, d.name(c))
	}
}

func (d *differ) cut(c frame.Class, why string) {
	d.report.Cut = append(d.report.Cut, d.name(c)+": "+why)
}

// name is what a report calls the frames of a class.
func (d *differ) name(c frame.Class) string {
	if d.ingress {
		return c.String() + ", ingress"
	}
	return c.String()
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
	x, y := judge(d.before, k, d.ingress), judge(d.after, k, d.ingress)
	if x.Verdict == y.Verdict {
		return false
	}
	data := Build(k)
	var parsed frame.Key
	if data == nil || frame.Parse(data, &parsed) != frame.OK {
		return false
	}
	x, y = judge(d.before, &parsed, d.ingress), judge(d.after, &parsed, d.ingress)
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
	d.report.Changes = append(d.report.Changes, Change{c, d.ingress, parsed, slices.Clone(data), x, y})
	return true
}
