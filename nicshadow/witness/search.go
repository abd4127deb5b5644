package witness

import (
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A domain is what is known of a frame on a way through the graphs: the values
// that each field may have, and how opaque tests came out.
type domain struct {
	fields  [frame.NumFields]Set
	decided map[testID]bool // shared between domains; copied to add to it
}

// A search walks two graphs at once.
type search struct {
	*graph
	steps, limit int
	cut          bool // the limit came first
	// found is called where the verdicts part, with what is known there; it
	// returns false to end the search.
	found func(d *domain) bool
	ended bool
}

// walk visits each pair of ways that a frame in d can take. It takes one way
// alone where the graphs have become one.
func (s *search) walk(a, b nodeID, d *domain) {
	if s.steps++; s.steps > s.limit {
		s.cut = true
	}
	if s.cut || s.ended {
		return
	}
	a, b = s.follow(a, d), s.follow(b, d)
	if a == b {
		return
	}
	at := a
	if a < leaves {
		if b < leaves {
			s.ended = !s.found(d)
			return
		}
		at = b
	}
	t := s.nodes[at].test
	for _, holds := range []bool{true, false} {
		if refined, ok := s.refine(d, t, holds); ok {
			s.walk(a, b, refined)
		}
	}
}

// follow goes on as far as d says how tests come out.
func (s *search) follow(n nodeID, d *domain) nodeID {
	for n >= leaves {
		at := &s.nodes[n]
		holds, known := s.outcome(at.test, d)
		if !known {
			break
		}
		if n = at.no; holds {
			n = at.yes
		}
	}
	return n
}

// outcome is how a test comes out for all frames in d, if it is the same.
func (s *search) outcome(id testID, d *domain) (holds, known bool) {
	t := &s.tests[id]
	if t.field == frame.FieldInvalid {
		if holds, known = d.decided[id]; !known && t.same {
			f, g := d.fields[t.reads[0]], d.fields[t.reads[1]]
			known = f.And(g).Empty()
		}
		return holds, known
	}
	have := d.fields[t.field]
	if have.within(t.in) {
		return true, true
	}
	return false, have.within(t.out)
}

// refine is d where the test came out so; ok is false where no frame is left.
func (s *search) refine(d *domain, id testID, holds bool) (out *domain, ok bool) {
	t, c := &s.tests[id], *d
	if t.field == frame.FieldInvalid {
		c.decided = make(map[testID]bool, len(d.decided)+1)
		for k, v := range d.decided {
			c.decided[k] = v
		}
		c.decided[id] = holds
		if t.same && holds {
			f, g := t.reads[0], t.reads[1]
			both := d.fields[f].And(d.fields[g])
			c.fields[f], c.fields[g] = both, both
		}
		return &c, true
	}
	with := t.out
	if holds {
		with = t.in
	}
	c.fields[t.field] = d.fields[t.field].And(with)
	return &c, !c.fields[t.field].Empty()
}

// A Limits bounds a search; the zero Limits means the defaults.
type Limits struct {
	// Steps is how many pairs of places are visited for each class of frames.
	Steps int
	// Changes is how many changes are returned.
	Changes int
}

// Defaults of [Limits]: a second or so for all classes, for a person to read.
const (
	DefaultSteps   = 200_000
	DefaultChanges = 32
	// maxNodes bounds the graph of one class.
	maxNodes = 1 << 20
)

func (l Limits) orDefaults() Limits {
	if l.Steps <= 0 {
		l.Steps = DefaultSteps
	}
	if l.Changes <= 0 {
		l.Changes = DefaultChanges
	}
	return l
}

// A Searched says what was looked through.
type Searched struct {
	// Classes are the names of the classes of frames that were walked whole,
	// Cut those where a limit came first, and why.
	Classes []string `json:"classes"`
	Cut     []string `json:"cut,omitempty"`
	// Steps is how many pairs of places were visited.
	Steps int `json:"steps"`
	// Unresolved counts ways to a different verdict for which no frame was
	// found: they hang on arithmetic with fields or on state.
	Unresolved int `json:"unresolved,omitempty"`
}

// Whole reports whether nothing was left out: then there is no other change.
func (s *Searched) Whole() bool { return len(s.Cut) == 0 && s.Unresolved == 0 }

// judge has a program judge a key, on its way out or in, as the first frame
// that it sees.
func judge(p *rule.Program, k *frame.Key, ingress bool) rule.Outcome {
	return p.RunAt(k, &rule.Moment{State: p.NewState(nil), Now: 1, Ingress: ingress})
}
