package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sekimori/starlark/lint"
	"sekimori/starlark/policytest"
)

func (a *app) lintCommand() *cobra.Command {
	var src source
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "lint PATH...",
		Short: "find what is right in grammar and wrong in meaning",
		Long: `Lint evaluates .star files, and those below directories, and looks at what they
mean: returns that no frame gets to, predicates that always say the same, loads
and parameters that nothing uses, and containers that may send packets to whom
they may not resolve, or the other way round.

Its exit code is 1 if it finds something, 2 if a file is wrong.`,
		Example: "  seki lint examples",
		Args:    args(1, -1, "at least one PATH"),
	}
	cmd.RunE = func(cmd *cobra.Command, paths []string) error {
		files, err := starlarkFiles(paths)
		if err != nil {
			return &codeError{exitUsage, err}
		}
		found := []lint.Finding{}
		wrong := false
		for _, path := range files {
			fs, err := a.lint(cmd.Context(), path, src)
			if err != nil {
				a.complain(err)
				wrong = true
			}
			for _, f := range fs { // a module that several files load is told of once
				if !contains(found, f) {
					found = append(found, f)
				}
			}
		}
		if asJSON {
			err = a.printJSON(found)
		} else {
			for _, f := range found {
				fmt.Fprintln(a.stdout, f)
			}
		}
		switch {
		case err != nil:
			return err
		case wrong:
			return &codeError{code: exitUsage}
		case len(found) > 0:
			return &codeError{code: exitFailed}
		}
		return nil
	}
	src.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func contains(fs []lint.Finding, f lint.Finding) bool {
	for _, g := range fs {
		if f == g {
			return true
		}
	}
	return false
}

// lint looks at one file: a test for its names, all else as a pod.
func (a *app) lint(ctx context.Context, path string, src source) ([]lint.Finding, error) {
	if strings.HasSuffix(path, policytest.Suffix) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		fs, err := lint.Source(path, text)
		return fs, positioned(err)
	}
	pod, err := a.load(ctx, path, src)
	if err != nil {
		return nil, err
	}
	return lint.Pod(ctx, pod)
}
