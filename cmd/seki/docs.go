package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sekimori/starlark/reference"
	"sekimori/starlark/std"
)

func (a *app) docCommand() *cobra.Command {
	var format, man string
	cmd := &cobra.Command{
		Use:   "doc [NAME | FILE.star | @seki//FILE.star]",
		Short: "print the reference of the language, or of a module",
		Long: `Doc prints the reference: containers, policies, predicates and their fields,
guards, points of a container's life, frame builders, tests, constants. With a
NAME it prints that entry; with a file, or a module of the standard library,
what its docstrings say.

--man writes the man pages of the command to a directory.`,
		Example: "  seki doc allow_tcp\n  seki doc @seki//policy.star\n  seki doc --format markdown > reference.md",
		Args:    args(0, 1, "one NAME or FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if format != "text" && format != "markdown" {
			return usage("--format %q: want text or markdown", format)
		}
		if man != "" {
			all := *a
			all.args = nil // the command line names one verb, the pages are of all
			return writeMan(all.command(), man)
		}
		sections, title := reference.Language(), "The language of .star files"
		switch {
		case len(args) == 0:
		case strings.HasSuffix(args[0], ".star"):
			s, err := moduleDoc(args[0])
			if err != nil {
				return &codeError{exitUsage, err}
			}
			sections, title = []reference.Section{s}, s.Title
		default:
			e, err := reference.Find(sections, args[0])
			if err != nil {
				return &codeError{exitUsage, fmt.Errorf("doc: %w", err)}
			}
			if format == "text" {
				return e.WriteText(a.stdout)
			}
			sections, title = []reference.Section{{Title: e.Name, Entries: []reference.Entry{*e}}}, e.Name
		}
		if format == "markdown" {
			return reference.WriteMarkdown(a.stdout, title, sections)
		}
		return reference.WriteText(a.stdout, sections)
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "text", "text or markdown")
	f.StringVar(&man, "man", "", "write the man pages of all verbs to this directory")
	oneOf(cmd, "format", "text", "markdown")
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, s := range reference.Language() {
			for _, e := range s.Entries {
				names = append(names, e.Name)
			}
		}
		return names, cobra.ShellCompDirectiveDefault
	}
	return cmd
}

// moduleDoc documents the module of a file or of the standard library.
func moduleDoc(path string) (reference.Section, error) {
	var src []byte
	var err error
	if name, ok := strings.CutPrefix(path, "@seki//"); ok {
		src, err = std.Files.ReadFile(name)
	} else {
		src, err = os.ReadFile(path)
	}
	if err != nil {
		return reference.Section{}, fmt.Errorf("%s: %s", path, cause(err))
	}
	s, err := reference.Module(path, src)
	return s, positioned(err)
}
