package policytest

import (
	"cmp"
	"slices"
	"sync"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
)

// A coverage counts, over all programs that came from one source line, which
// ways its tests went. A line compiled several times (for several cards, or
// for several values of a captured variable) is covered by any of them.
type coverage struct {
	// mu guards lines; nil lines count nothing.
	mu    sync.Mutex
	lines map[place]*ways
}

type place struct {
	file      string
	line, col int
}

// ways are the outcomes of the tests at one place, possible and seen.
type ways struct{ possible, seen [2]bool }

func newCoverage(on bool) *coverage {
	c := &coverage{}
	if on {
		c.lines = map[place]*ways{}
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
	p.Trace(&r.Key, func(pc int, holds bool) {
		if w := c.at(p, pc); w != nil {
			if holds {
				w.seen[1] = true
			} else {
				w.seen[0] = true
			}
		}
	})
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
	key := place{file, line, col}
	w := c.lines[key]
	if w == nil {
		w = &ways{}
		c.lines[key] = w
	}
	return w
}

// A FileCoverage is how much of the predicates of a file the tests reached.
type FileCoverage struct {
	File string `json:"file"`
	// Branches counts the outcomes of comparisons and returns, Covered those
	// that a frame of a test had.
	Branches int `json:"branches"`
	Covered  int `json:"covered"`
	// Missing are the lines that have outcomes no frame had, sorted.
	Missing []int `json:"missing,omitempty"`
}

// report sums up by file, sorted.
func (c *coverage) report() []FileCoverage {
	byFile := map[string]*FileCoverage{}
	for at, w := range c.lines {
		f := byFile[at.file]
		if f == nil {
			f = &FileCoverage{File: at.file}
			byFile[at.file] = f
		}
		for i := range w.possible {
			if !w.possible[i] {
				continue
			}
			f.Branches++
			if w.seen[i] {
				f.Covered++
			} else if !slices.Contains(f.Missing, at.line) {
				f.Missing = append(f.Missing, at.line)
			}
		}
	}
	var out []FileCoverage
	for _, f := range byFile {
		slices.Sort(f.Missing)
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b FileCoverage) int { return cmp.Compare(a.File, b.File) })
	return out
}
