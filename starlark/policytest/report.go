package policytest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"time"

	"sekimori/starlark"
)

// A Report is the outcome of a run.
type Report struct {
	Files []*FileReport
	// Coverage is by file, sorted; empty where the run did not count.
	Coverage []FileCoverage
	Duration time.Duration
}

// A FileReport is the outcome of one file.
type FileReport struct {
	Path string
	// Err says why the file could not be loaded; then it has no tests.
	Err      error
	Tests    []*TestReport
	Duration time.Duration
}

// A TestReport is the outcome of one test function.
type TestReport struct {
	Name     string        `json:"name"`
	Pos      string        `json:"pos"`
	Passed   bool          `json:"passed"`
	Frames   int           `json:"frames"`
	Duration time.Duration `json:"duration_ns"`
	// Programs are the SHA-256 of the programs that judged, as a machine
	// would report them.
	Programs []string  `json:"programs,omitempty"`
	Failures []Failure `json:"failures,omitempty"`
	// More is how many failures are not listed.
	More   int      `json:"more,omitempty"`
	Output []string `json:"output,omitempty"`
	// Bench is set where the run measured.
	Bench *Bench `json:"bench,omitempty"`
	// Inside are the tests of t.run() and t.cases(), with names such as
	// "test_ports/http".
	Inside []*TestReport `json:"inside,omitempty"`

	measured []measured
}

// all is the test and those inside it, in order.
func (t *TestReport) all(yield func(*TestReport) bool) bool {
	if !yield(t) {
		return false
	}
	for _, in := range t.Inside {
		if !in.all(yield) {
			return false
		}
	}
	return true
}

// tests are the tests of a file, those inside others too.
func (f *FileReport) tests() iter.Seq[*TestReport] {
	return func(yield func(*TestReport) bool) {
		for _, t := range f.Tests {
			if !t.all(yield) {
				return
			}
		}
	}
}

// tests are the tests of all files.
func (r *Report) tests() iter.Seq[*TestReport] {
	return func(yield func(*TestReport) bool) {
		for _, f := range r.Files {
			for t := range f.tests() {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// A Failure is one failed assertion, or the error that ended a test.
type Failure struct {
	// Pos is file:line:col of the assertion.
	Pos     string `json:"pos,omitempty"`
	Message string `json:"message"`
	// Details are the frame's fields and the branches taken, several lines.
	Details string `json:"details,omitempty"`
	// Stack is the calls that led to the assertion, outermost first, where it
	// does not stand in the test function itself.
	Stack []string `json:"stack,omitempty"`
}

// Failed reports whether a test failed.
func (r *Report) Failed() bool {
	_, failed := r.count()
	return failed > 0
}

// Unloadable reports whether a file could not be loaded.
func (r *Report) Unloadable() bool {
	for _, f := range r.Files {
		if f.Err != nil {
			return true
		}
	}
	return false
}

// ExitCode is what seki test exits with: 0 if all passed, 2 if a file could
// not be loaded, else 3.
func (r *Report) ExitCode() int {
	switch {
	case r.Unloadable():
		return 2
	case r.Failed():
		return 3
	}
	return 0
}

func (r *Report) count() (passed, failed int) {
	for t := range r.tests() {
		if t.Passed {
			passed++
		} else {
			failed++
		}
	}
	return passed, failed
}

// WriteText writes the report for people: failures in full, and with verbose
// each test with its programs and what it printed.
func (r *Report) WriteText(w io.Writer, verbose bool) error {
	b := bufio.NewWriter(w)
	for _, f := range r.Files {
		f.writeText(b, verbose)
	}
	for t := range r.tests() {
		if t.Bench != nil {
			fmt.Fprintf(b, "bench %s: %.1f ns a frame, at most %d steps (%d frames)\n", t.Name, t.Bench.NSPerFrame, t.Bench.MaxSteps, t.Bench.Frames)
		}
	}
	for i := range r.Coverage {
		r.Coverage[i].writeText(b)
	}
	passed, failed := r.count()
	fmt.Fprintf(b, "%d passed, %d failed", passed, failed)
	if r.Unloadable() {
		fmt.Fprint(b, ", some files could not be loaded")
	}
	fmt.Fprintf(b, " (%s)\n", r.Duration.Round(time.Millisecond))
	return b.Flush()
}

func (f *FileReport) writeText(b *bufio.Writer, verbose bool) {
	if f.Err != nil {
		fmt.Fprintf(b, "ERROR %s\n", f.Path)
		for _, e := range starlark.Errors(f.Err) {
			fmt.Fprintln(b, indent(fmt.Sprintf("%+v", e), "    "))
		}
		return
	}
	failed, n := 0, 0
	for t := range f.tests() {
		n++
		if !t.Passed {
			failed++
		}
		if verbose || !t.Passed {
			t.writeText(b, verbose)
		}
	}
	switch {
	case n == 0:
		fmt.Fprintf(b, "none  %s: no test_ function selected\n", f.Path)
	case failed == 0:
		fmt.Fprintf(b, "ok    %s: %s\n", f.Path, count(n))
	default:
		fmt.Fprintf(b, "FAIL  %s: %d of %s\n", f.Path, failed, count(n))
	}
}

func (t *TestReport) writeText(b *bufio.Writer, verbose bool) {
	word := "pass"
	if !t.Passed {
		word = "FAIL"
	}
	fmt.Fprintf(b, "%s  %s (%d frames, %s)\n", word, t.Name, t.Frames, t.Duration.Round(10*time.Microsecond))
	if verbose {
		for _, p := range t.Programs {
			fmt.Fprintf(b, "    program %s\n", p)
		}
	}
	if verbose || !t.Passed {
		for _, line := range t.Output {
			fmt.Fprintln(b, indent(line, "    | "))
		}
	}
	for _, f := range t.Failures {
		at := ""
		if f.Pos != "" {
			at = f.Pos + ": "
		}
		fmt.Fprintf(b, "    %s%s\n", at, f.Message)
		for _, s := range f.Stack {
			fmt.Fprintf(b, "        %s\n", s)
		}
		if f.Details != "" {
			fmt.Fprintln(b, indent(f.Details, "        "))
		}
	}
	if t.More > 0 {
		fmt.Fprintf(b, "    and %d more\n", t.More)
	}
}

func (c *FileCoverage) writeText(b *bufio.Writer) {
	fmt.Fprintf(b, "cover %s: %.1f %% of %d branches", c.File, c.Percent(), c.Branches)
	if len(c.Missing) > 0 {
		fmt.Fprintf(b, "; not all of line %s", numbers(c.Missing))
	}
	fmt.Fprintln(b)
}

func numbers(ns []int) string {
	out := ""
	for i, n := range ns {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprint(n)
	}
	return out
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	type errorJSON struct {
		Pos     string `json:"pos,omitempty"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	}
	type fileJSON struct {
		Path     string        `json:"path"`
		Errors   []errorJSON   `json:"errors,omitempty"`
		Tests    []*TestReport `json:"tests"`
		Duration time.Duration `json:"duration_ns"`
	}
	passed, failed := r.count()
	out := struct {
		Passed   int            `json:"passed"`
		Failed   int            `json:"failed"`
		Duration time.Duration  `json:"duration_ns"`
		Files    []fileJSON     `json:"files"`
		Coverage []FileCoverage `json:"coverage,omitempty"`
	}{Passed: passed, Failed: failed, Duration: r.Duration, Coverage: r.Coverage, Files: []fileJSON{}}
	for _, f := range r.Files {
		j := fileJSON{Path: f.Path, Tests: f.Tests, Duration: f.Duration}
		if j.Tests == nil {
			j.Tests = []*TestReport{}
		}
		for _, e := range starlark.Errors(f.Err) {
			ej := errorJSON{Message: e.Msg, Hint: e.Hint}
			if e.Pos.Line > 0 {
				ej.Pos = e.Pos.String()
			}
			j.Errors = append(j.Errors, ej)
		}
		out.Files = append(out.Files, j)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// count is `1 test`, `2 tests`.
func count(n int) string {
	if n == 1 {
		return "1 test"
	}
	return fmt.Sprintf("%d tests", n)
}
