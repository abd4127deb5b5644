package policytest

import (
	"sync"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/starlark"
)

// A coverage counts, over all programs that came from one source line, which
// ways its tests went. A line compiled several times (for several cards, or
// for several values of a captured variable) is covered by any of them.
type coverage struct {
	// mu guards what follows; nil lines count nothing.
	mu    sync.Mutex
	lines map[place]*ways
	texts map[string][]byte // source by file name, of the files with lines
}

// A place is a position in a source and, for a return, the predicate whose
// verdict it is: the constants of a policy() call share their position.
type place struct {
	file      string
	line, col int
	predicate string
}

// ways are the outcomes of the tests at one place, possible and seen.
type ways struct{ possible, seen [2]bool }

func newCoverage(on bool) *coverage {
	c := &coverage{}
	if on {
		c.lines, c.texts = map[place]*ways{}, map[string][]byte{}
	}
	return c
}

// add takes in the places of a program. A return has one way, a test two.
func (c *coverage) add(p *rule.Program) {
	if c.lines == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for pc := range p.Len() {
		if w := c.at(p, pc); w != nil {
			w.possible[1] = true
			w.possible[0] = w.possible[0] || p.Insn(uint32(pc)).Op.IsTest()
		}
	}
}

// trace notes the ways that one frame went.
func (c *coverage) trace(p *rule.Program, r *replay.Result) {
	if c.lines == nil || r.Reason != frame.OK {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Trace(func(pc int, holds bool) {
		if w := c.at(p, pc); w != nil {
			if holds != negated(p.Insn(uint32(pc)).Op) {
				w.seen[1] = true
			} else {
				w.seen[0] = true
			}
		}
	})
}

// negated reports whether a test asks for the contrary: the compiler writes one
// comparison now as ne, now as eq, as the layout of the program wants it.
func negated(op rule.Op) bool {
	switch op {
	case rule.OpTestNe, rule.OpTestNeC, rule.OpTestNMask, rule.OpTestNeF, rule.OpTestNotI, rule.OpTestRNe, rule.OpTestGe, rule.OpTestGt:
		return true
	}
	return false
}

// at is the entry of an instruction; nil if it belongs to no predicate: guards
// and what is unspoken carry the place of the policy() call.
func (c *coverage) at(p *rule.Program, pc int) *ways {
	if k := p.Why(uint32(pc)).Kind; k == rule.WhyGuard || k == rule.WhyUnspoken {
		return nil
	}
	file, line, col := p.Position(uint32(pc))
	if file == "" || line == 0 {
		return nil
	}
	key := place{file, line, col, p.Why(uint32(pc)).Name}
	w := c.lines[key]
	if w == nil {
		w = &ways{}
		c.lines[key] = w
	}
	return w
}

// sources keeps the texts of files that have lines, for listings.
func (c *coverage) sources(s *starlark.Session) {
	if c.lines == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := range c.lines {
		if _, ok := c.texts[at.file]; !ok {
			if text, ok := s.Text(at.file); ok {
				c.texts[at.file] = text
			}
		}
	}
}
