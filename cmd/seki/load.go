package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.starlark.net/syntax"

	"sekimori/starlark"
)

// A source is a .star file and the values of its parameters: what every verb
// that reads one takes.
type source struct {
	set []string
	pod string // name of the pod, "" for that of the file
}

func (s *source) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.set, "set", nil, "value of a param() of the file, as name=value; may be repeated")
	cmd.ValidArgsFunction = starFiles
}

// starFiles completes names of .star files.
func starFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"star"}, cobra.ShellCompDirectiveFilterFileExt
}

// oneOf completes a flag that takes one of a few words.
func oneOf(cmd *cobra.Command, flag string, words ...string) {
	// The error is that of a flag that does not exist: a bug that tests meet.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// params are the values given with --set, by name.
func (s *source) params() map[string]string {
	params := map[string]string{}
	for _, kv := range s.set {
		k, v, _ := strings.Cut(kv, "=")
		params[k] = v
	}
	return params
}

// load evaluates the file at path. What is wrong with it is a usage error.
func (a *app) load(ctx context.Context, path string, s source) (*starlark.Pod, error) {
	for _, kv := range s.set {
		if !strings.Contains(kv, "=") {
			return nil, usage("--set %q: want name=value", kv)
		}
	}
	if st, err := os.Stat(path); err != nil {
		return nil, usage("%s: %s", path, cause(err))
	} else if st.IsDir() {
		return nil, usage("%s: is a directory, want a .star file", path)
	} else if !st.Mode().IsRegular() {
		return nil, usage("%s: not a regular file", path)
	}
	pod, err := starlark.Load(ctx, path, starlark.Options{
		Params: s.params(),
		Pod:    s.pod,
		Print:  func(s string) { fmt.Fprintln(a.stderr, s) },
	})
	if err != nil {
		return nil, &codeError{exitUsage, err}
	}
	return pod, nil
}

// container finds the one named, or the only one if name is "".
func container(pod *starlark.Pod, name string) (*starlark.Container, error) {
	var names []string
	for _, c := range pod.Containers {
		if c.Spec.Name == name || name == "" && len(pod.Containers) == 1 {
			return c, nil
		}
		names = append(names, c.Spec.Name)
	}
	if name == "" {
		return nil, usage("--container: %s has %d, say which: %s", pod.Path, len(names), strings.Join(names, ", "))
	}
	return nil, usage("container %q: not in %s%s", name, pod.Path, meant(name, names))
}

// explainText is what a user is told of err: one line, a hint, and the calls
// that led there if there was more than one.
func explainText(err error) string {
	var e *starlark.Error
	if !errors.As(err, &e) {
		return "seki: " + err.Error()
	}
	if many := starlark.Errors(err); len(many) > 1 {
		var texts []string
		for _, e := range many {
			texts = append(texts, explainText(e))
		}
		return strings.Join(texts, "\n")
	}
	text := err.Error()
	if e.Pos.Line == 0 || !strings.HasPrefix(text, e.Pos.String()) {
		text = "seki: " + text
	}
	// The first line is a heading, the second the file itself.
	if trace := strings.TrimRight(e.Backtrace, "\n"); strings.Count(trace, "\n") > 1 {
		text += "\n" + trace
	}
	return text
}

// positioned is an error of the parser alone as one of a file: it is told with
// its position first.
func positioned(err error) error {
	var bad syntax.Error
	if errors.As(err, &bad) {
		return &starlark.Error{Pos: bad.Pos, Msg: bad.Msg}
	}
	return err
}

// missing reports whether err says that a file is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
