package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sekimori/nicshadow"
	"sekimori/starlark/policytest"
)

// testOptions are the flags of test.
type testOptions struct {
	policytest.Options
	pattern, format string
	verbose         bool
	least           float64 // percent of coverage
	list            bool
	html            string // file
	replay          string // directory
}

func (a *app) testCommand() *cobra.Command {
	var o testOptions
	cmd := &cobra.Command{
		Use:   "test [PATH...]",
		Short: "test policies offline",
		Long: `Test runs the test_* functions of *_test.star files: those named, and those
below the directories named (the current one if none is). It needs no root, no
network and no containers: frames are judged by the very bytes that would be in
force. Its exit code is 3 if a test failed or the coverage is too low, 2 if a
file could not be loaded.`,
		Example: "  seki test -v --run attack --coverage examples\n  seki test --replay recorded web-new.star",
	}
	cmd.RunE = func(cmd *cobra.Command, paths []string) error { return a.test(cmd, paths, o) }
	f := cmd.Flags()
	f.BoolVarP(&o.verbose, "verbose", "v", false, "print the tests that passed, too, and the programs that judged")
	f.StringVar(&o.pattern, "run", "", "run only the tests whose name matches this regular expression; function/case for tests inside a test")
	f.BoolVar(&o.Coverage, "coverage", false, "count which outcomes of the predicates' comparisons a frame of a test had")
	f.Float64Var(&o.least, "coverage-min", 0, "fail where less than so many percent of a file's branches are covered")
	f.BoolVar(&o.list, "coverage-list", false, "print the source with marks: + covered, - not, and what is missing")
	f.StringVar(&o.html, "coverage-html", "", "write the source with its coverage to this file, as HTML")
	f.BoolVar(&o.Bench, "bench", false, "measure how long the frames of each test take to judge")
	f.BoolVar(&o.Update, "update", false, "write the files of t.golden() where they differ")
	f.StringVar(&o.replay, "replay", "", "replay this recording of seki run --record, by the file that was run or by the PATH given; fail where a verdict differs")
	f.StringVar(&o.format, "format", "text", strings.Join(policytest.Formats(), ", "))
	jsonFlag(f, &o.format)
	oneOf(cmd, "format", policytest.Formats()...)
	cmd.ValidArgsFunction = starFiles
	return cmd
}

func (a *app) test(cmd *cobra.Command, paths []string, o testOptions) error {
	if !slices.Contains(policytest.Formats(), o.format) {
		return usage("--format %q: want one of %s%s", o.format, strings.Join(policytest.Formats(), ", "), meant(o.format, policytest.Formats()))
	}
	if o.least < 0 || o.least > 100 {
		return usage("--coverage-min %g: want a percentage from 0 to 100", o.least)
	}
	var err error
	if o.Run, err = policytest.ParseSelector(o.pattern); err != nil {
		return usage("--run %w", err)
	}
	o.Coverage = o.Coverage || o.least > 0 || o.list || o.html != ""
	report, err := a.testReport(cmd, paths, o)
	if err != nil {
		return err
	}
	report.Coverage = covered(report.Coverage)
	if err := report.Write(a.stdout, o.format, o.verbose); err != nil {
		return err
	}
	if err := a.testCoverage(report, o); err != nil {
		return err
	}
	if code := report.ExitCode(); code != exitFine {
		return &codeError{code: code}
	}
	return a.testLeast(report, o.least)
}

// covered is the coverage that a user asks for: not that of policies which only
// tests have, and of the standard library, which has tests of its own, only
// where it is all that is tested.
func covered(all []policytest.FileCoverage) []policytest.FileCoverage {
	all = slices.DeleteFunc(all, func(c policytest.FileCoverage) bool { return strings.HasSuffix(c.File, policytest.Suffix) })
	std := func(c policytest.FileCoverage) bool { return strings.HasPrefix(c.File, "@seki//") }
	if !slices.ContainsFunc(all, func(c policytest.FileCoverage) bool { return !std(c) }) {
		return all
	}
	return slices.DeleteFunc(all, std)
}

// testReport runs the tests, or a recording.
func (a *app) testReport(cmd *cobra.Command, paths []string, o testOptions) (report *policytest.Report, err error) {
	if o.replay == "" {
		if len(paths) == 0 {
			paths = []string{"."}
		}
		report, err = policytest.Run(cmd.Context(), paths, o.Options)
	} else {
		if len(paths) > 1 {
			return nil, usage("test: --replay: want one FILE at most, have %d", len(paths))
		}
		r := policytest.ReplayOptions{Options: o.Options, Dir: o.replay, Note: recordNote}
		if len(paths) == 1 {
			r.File = paths[0]
		}
		report, err = policytest.Replay(cmd.Context(), r)
	}
	if err != nil {
		return nil, &codeError{exitUsage, err}
	}
	return report, nil
}

// recordNote reads what package nicshadow wrote of a recorded frame.
func recordNote(comment string) (policytest.Note, bool) {
	n, ok := nicshadow.ParseRecordNote(comment)
	return policytest.Note{Verdict: n.Verdict, Program: n.Program, Ingress: n.Ingress}, ok
}

// testCoverage writes the listings of the coverage.
func (a *app) testCoverage(report *policytest.Report, o testOptions) error {
	if o.html != "" {
		if err := writeFile(o.html, report.WriteHTML); err != nil {
			return err
		}
	}
	if o.list {
		return report.WriteListing(a.stdout)
	}
	return nil
}

// testLeast fails where a file is covered too little.
func (a *app) testLeast(report *policytest.Report, least float64) error {
	low := report.Below(least)
	for _, c := range low {
		fmt.Fprintf(a.stderr, "seki: %s: %.1f %% of %s covered, want %g %%\n", c.File, c.Percent(), count(c.Branches, "branch"), least)
	}
	if len(low) > 0 {
		return &codeError{code: exitTests}
	}
	return nil
}

// writeFile writes a file whole.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
