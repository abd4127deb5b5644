package policytest

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"sekimori/starlark"
)

// Formats are the names that [Report.Write] knows.
func Formats() []string { return []string{"text", "json", "junit", "tap", "github"} }

// Write writes the report: "text" for people, with the tests that passed too
// if verbose; "json"; "junit", the XML that most CI systems show; "tap", the
// Test Anything Protocol; "github", annotations of source lines in the log of
// a GitHub workflow (Gitea and Forgejo read them, too).
func (r *Report) Write(w io.Writer, format string, verbose bool) error {
	switch format {
	case "text":
		return r.WriteText(w, verbose)
	case "json":
		return r.WriteJSON(w)
	case "junit":
		return r.writeJUnit(w)
	case "tap":
		return r.writeTAP(w)
	case "github":
		return r.writeGitHub(w)
	}
	return fmt.Errorf("format %q: want one of %s", format, strings.Join(Formats(), ", "))
}

// text is a failure as a few lines.
func (f *Failure) text() string {
	lines := []string{f.Message}
	if f.Pos != "" {
		lines[0] = f.Pos + ": " + f.Message
	}
	lines = append(lines, f.Stack...)
	if f.Details != "" {
		lines = append(lines, strings.TrimRight(f.Details, "\n"))
	}
	return strings.Join(lines, "\n")
}

// text is all failures of a test.
func (t *TestReport) text() string {
	var all []string
	for i := range t.Failures {
		all = append(all, t.Failures[i].text())
	}
	if t.More > 0 {
		all = append(all, fmt.Sprintf("and %d more", t.More))
	}
	return strings.Join(all, "\n")
}

// JUnit's XML has no standard; this is the part that Jenkins, GitLab, and
// GitHub's actions agree on.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string      `xml:"classname,attr"`
		Name    string      `xml:"name,attr"`
		File    string      `xml:"file,attr"`
		Time    string      `xml:"time,attr"`
		Failure *junitFault `xml:"failure"`
		Error   *junitFault `xml:"error"`
		Output  string      `xml:"system-out,omitempty"`
	}
	junitFault struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

func (r *Report) writeJUnit(w io.Writer) error {
	out := junitSuites{Time: seconds(r.Duration.Seconds())}
	for _, f := range r.Files {
		s := junitSuite{Name: f.Path, Time: seconds(f.Duration.Seconds())}
		if f.Err != nil {
			s.Tests, s.Errors = 1, 1
			s.Cases = []junitCase{{Class: f.Path, Name: "load", File: f.Path, Time: "0", Error: &junitFault{Message: firstLine(f.Err.Error()), Text: f.Err.Error()}}}
		}
		for t := range f.tests() {
			c := junitCase{Class: f.Path, Name: t.Name, File: f.Path, Time: seconds(t.Duration.Seconds()), Output: strings.Join(t.Output, "\n")}
			if !t.Passed {
				s.Failures++
				c.Failure = &junitFault{Message: firstLine(t.Failures[0].Message), Text: t.text()}
			}
			s.Tests++
			s.Cases = append(s.Cases, c)
		}
		out.Tests, out.Failures, out.Errors = out.Tests+s.Tests, out.Failures+s.Failures, out.Errors+s.Errors
		out.Suites = append(out.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(s float64) string { return fmt.Sprintf("%.6f", s) }

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// writeTAP writes version 13: a plan, a line for each test, and what is wrong
// as a YAML block.
func (r *Report) writeTAP(w io.Writer) error {
	b := bufio.NewWriter(w)
	n := 0
	for _, f := range r.Files {
		n += b2i(f.Err != nil)
	}
	passed, failed := r.count()
	fmt.Fprintf(b, "TAP version 13\n1..%d\n", n+passed+failed)
	n = 0
	line := func(ok bool, name, text string) {
		n++
		if !ok {
			fmt.Fprint(b, "not ")
		}
		// A # would begin a directive such as SKIP.
		fmt.Fprintf(b, "ok %d - %s\n", n, strings.ReplaceAll(name, "#", "_"))
		if !ok {
			fmt.Fprintf(b, "  ---\n  message: |\n%s\n  ...\n", indent(text, "    "))
		}
	}
	for _, f := range r.Files {
		if f.Err != nil {
			line(false, f.Path, f.Err.Error())
		}
		for t := range f.tests() {
			line(t.Passed, f.Path+" "+t.Name, t.text())
		}
	}
	return b.Flush()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// writeGitHub writes workflow commands: each failure, each error of a file and
// each line that lacks coverage becomes a note at its source line.
func (r *Report) writeGitHub(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, f := range r.Files {
		for _, e := range starlark.Errors(f.Err) {
			annotate(b, "error", e.Pos.String(), "cannot load "+f.Path, e.Error())
		}
		for t := range f.tests() {
			for i := range t.Failures {
				annotate(b, "error", t.Failures[i].Pos, t.Name, t.Failures[i].text())
			}
		}
	}
	for _, c := range r.Coverage {
		for _, n := range c.Missing {
			annotate(b, "warning", fmt.Sprintf("%s:%d", c.File, n), "coverage", "no frame of a test had every outcome of this line")
		}
	}
	passed, failed := r.count()
	fmt.Fprintf(b, "%d passed, %d failed\n", passed, failed)
	return b.Flush()
}

// annotate writes one workflow command for "file:line:col". The values may not
// hold what ends them: https://github.com/actions/toolkit, command.ts.
func annotate(b *bufio.Writer, level, pos, title, text string) {
	data := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	parts := append(strings.Split(pos, ":"), "", "") // of a position without line or column, too
	fmt.Fprintf(b, "::%s ", level)
	if parts[0] != "" {
		fmt.Fprintf(b, "file=%s,", property.Replace(parts[0]))
	}
	for i, key := range []string{"line", "col"} {
		if parts[i+1] != "" {
			fmt.Fprintf(b, "%s=%s,", key, parts[i+1])
		}
	}
	fmt.Fprintf(b, "title=%s::%s\n", property.Replace(title), data.Replace(text))
}
