package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sekimori/nicshadow/rule"
	"sekimori/starlark/policytest"
)

func (a *app) checkCommand() *cobra.Command {
	var src source
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "say what is wrong with .star files",
		Long: `Check evaluates each file and compiles its policies, and says how large each
program is and how many steps a frame may take. It runs nothing and looks at
nothing but the files; tests are only evaluated. Its exit code is 2 if one of
them is wrong.`,
		Example: "  seki check examples/*.star",
		Args:    args(1, -1, "at least one FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, paths []string) error {
		wrong := false
		for _, path := range paths {
			if err := a.check(cmd, path, src); err != nil {
				a.complain(err)
				wrong = true
			}
		}
		if wrong {
			return &codeError{code: exitUsage}
		}
		return nil
	}
	src.flags(cmd)
	return cmd
}

func (a *app) check(cmd *cobra.Command, path string, src source) error {
	if strings.HasSuffix(path, policytest.Suffix) {
		tests, err := policytest.Check(cmd.Context(), path)
		if err != nil {
			return &codeError{exitUsage, err}
		}
		_, err = fmt.Fprintf(a.stdout, "%s: ok: %s\n", path, count(tests, "test"))
		return err
	}
	pod, err := a.load(cmd.Context(), path, src)
	if err != nil {
		return err
	}
	policies, longest := 0, 0
	for _, c := range pod.Containers {
		if c.Program != nil {
			policies++
			longest = max(longest, c.Program.MaxSteps())
		}
	}
	fmt.Fprintf(a.stdout, "%s: ok: %s, %s", path, count(len(pod.Containers), "container"), count(policies, "policy"))
	if policies > 0 {
		fmt.Fprintf(a.stdout, ", at most %s a frame", count(longest, "step"))
	}
	fmt.Fprintln(a.stdout)
	for _, c := range pod.Containers {
		if c.Program != nil {
			fmt.Fprintf(a.stdout, "  %s: %s\n", c.Spec.Name, programSize(c.Program, c.Policy.Budget()))
		}
	}
	return nil
}

// programSize says how large a program is, and how long it may take.
func programSize(p *rule.Program, budget int) string {
	u := p.Unit()
	s := fmt.Sprintf("%s, %s at most", count(p.Len(), "instruction"), count(p.MaxSteps(), "step"))
	if budget > 0 {
		s += fmt.Sprintf(" of %d", budget)
	}
	if n := len(u.Tables); n > 0 {
		entries := 0
		for i := range u.Tables {
			entries += u.Tables[i].Len()
		}
		s += fmt.Sprintf(", %s of %s", count(n, "table"), count(entries, "entry"))
	}
	if n := len(u.Limits); n > 0 {
		s += ", " + count(n, "rate limit")
	}
	if p.JudgesIngress() {
		s += ", both ways"
	}
	return s + fmt.Sprintf(", %s", count(len(p.Bytes()), "byte"))
}

// count is "1 policy", "2 policies".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if stem, ok := strings.CutSuffix(what, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	if strings.HasSuffix(what, "ch") || strings.HasSuffix(what, "ss") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}
