package main

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"sekimori/starlark/policytest"
)

func (a *app) testCommand() *cobra.Command {
	var opts policytest.Options
	var pattern, format string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test [PATH...]",
		Short: "test policies offline",
		Long: `Test runs the test_* functions of *_test.star files: those named, and those
below the directories named (the current one if none is). It needs no root, no
network and no containers: frames are judged by the very bytes that would be in
force. Its exit code is 3 if a test failed, 2 if a file could not be loaded.`,
		Example: "  seki test -v --run attack examples",
	}
	cmd.RunE = func(cmd *cobra.Command, paths []string) error {
		if format != "text" && format != "json" {
			return usage("--format %q: want text or json", format)
		}
		if pattern != "" {
			re, err := regexp.Compile(pattern)
			if err != nil {
				return usage("--run %q: %w", pattern, err)
			}
			opts.Run = re
		}
		if len(paths) == 0 {
			paths = []string{"."}
		}
		report, err := policytest.Run(cmd.Context(), paths, opts)
		if err != nil {
			return &codeError{exitUsage, err}
		}
		if len(report.Files) == 0 {
			return usage("test: no *_test.star file in %s", strings.Join(paths, ", "))
		}
		if format == "json" {
			err = report.WriteJSON(a.stdout)
		} else {
			err = report.WriteText(a.stdout, verbose)
		}
		if code := report.ExitCode(); err == nil && code != exitFine {
			return &codeError{code: code}
		}
		return err
	}
	f := cmd.Flags()
	f.BoolVarP(&verbose, "verbose", "v", false, "print the tests that passed, too, and the programs that judged")
	f.StringVar(&pattern, "run", "", "run only the tests whose name matches this regular expression")
	f.BoolVar(&opts.Coverage, "coverage", false, "count which outcomes of the predicates' comparisons a frame of a test had")
	f.StringVar(&format, "format", "text", "text or json")
	jsonFlag(f, &format)
	return cmd
}
