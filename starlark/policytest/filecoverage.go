package policytest

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A FileCoverage is how much of the predicates of a file the tests reached.
type FileCoverage struct {
	File string `json:"file"`
	// Branches counts the outcomes of comparisons and returns, Covered those
	// that a frame of a test had.
	Branches int `json:"branches"`
	Covered  int `json:"covered"`
	// Missing are the lines that have outcomes no frame had, sorted.
	Missing []int `json:"missing,omitempty"`
	// Places are the comparisons and returns, in the order of the file.
	Places []PlaceCoverage `json:"places,omitempty"`

	text []byte
}

// A PlaceCoverage is one comparison or return of a predicate.
type PlaceCoverage struct {
	Line int `json:"line"`
	Col  int `json:"col"`
	// Predicate is set for a return: whose verdict it is.
	Predicate string `json:"predicate,omitempty"`
	// Missing says which outcomes no frame had: "never reached", or
	// "always the same outcome"; empty where nothing is missing.
	Missing string `json:"missing,omitempty"`
}

// Percent is the share of the branches that are covered.
func (c *FileCoverage) Percent() float64 {
	if c.Branches == 0 {
		return 100
	}
	return 100 * float64(c.Covered) / float64(c.Branches)
}

// Below are the files with less than min percent of their branches covered.
func (r *Report) Below(min float64) []FileCoverage {
	var out []FileCoverage
	for _, c := range r.Coverage {
		if c.Percent() < min {
			out = append(out, c)
		}
	}
	return out
}

// report sums up by file, sorted.
func (c *coverage) report() []FileCoverage {
	byFile := map[string]*FileCoverage{}
	for at, w := range c.lines {
		f := byFile[at.file]
		if f == nil {
			f = &FileCoverage{File: at.file, text: c.texts[at.file]}
			byFile[at.file] = f
		}
		for i := range w.possible {
			if w.possible[i] {
				f.Branches++
			}
			if w.seen[i] {
				f.Covered++
			}
		}
		missing := w.missing()
		if missing != "" && !slices.Contains(f.Missing, at.line) {
			f.Missing = append(f.Missing, at.line)
		}
		f.Places = append(f.Places, PlaceCoverage{at.line, at.col, at.predicate, missing})
	}
	var out []FileCoverage
	for _, f := range byFile {
		slices.Sort(f.Missing)
		slices.SortFunc(f.Places, func(a, b PlaceCoverage) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Predicate, b.Predicate))
		})
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b FileCoverage) int { return cmp.Compare(a.File, b.File) })
	return out
}

// missing says in words which ways nobody went.
func (w *ways) missing() string {
	lacks := func(i int) bool { return w.possible[i] && !w.seen[i] }
	switch {
	case lacks(0) && lacks(1), lacks(1) && !w.possible[0]:
		return "never reached"
	case lacks(0), lacks(1):
		return "always the same outcome"
	}
	return ""
}

// text says what is missing: "column 12: never reached".
func (p *PlaceCoverage) text() string {
	if p.Predicate != "" {
		return fmt.Sprintf("column %d: return of %s %s", p.Col, p.Predicate, p.Missing)
	}
	return fmt.Sprintf("column %d: %s", p.Col, p.Missing)
}

// WriteListing writes the source of each file with a mark before the lines of
// predicates: + all outcomes seen, - some not, and which under the line.
func (r *Report) WriteListing(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i := range r.Coverage {
		c := &r.Coverage[i]
		c.writeText(b)
		byLine := c.byLine()
		for n, line := range c.lines() {
			places, mark := byLine[n+1], " "
			if len(places) > 0 {
				mark = "+"
			}
			var notes []string
			for _, p := range places {
				if p.Missing != "" {
					mark = "-"
					notes = append(notes, "      | "+p.text())
				}
			}
			fmt.Fprintln(b, strings.TrimRight(fmt.Sprintf("%s %4d| %s", mark, n+1, line), " "))
			for _, note := range notes {
				fmt.Fprintln(b, note)
			}
		}
	}
	return b.Flush()
}

func (c *FileCoverage) byLine() map[int][]PlaceCoverage {
	m := map[int][]PlaceCoverage{}
	for _, p := range c.Places {
		m[p.Line] = append(m[p.Line], p)
	}
	return m
}

// lines are those of the source, tabs as four spaces.
func (c *FileCoverage) lines() []string {
	text := strings.TrimSuffix(string(c.text), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(strings.ReplaceAll(text, "\t", "    "), "\n")
}
