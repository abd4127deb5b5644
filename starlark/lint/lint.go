package lint

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"go.starlark.net/syntax"

	"sekimori/starlark"
	"sekimori/starlark/dotload"
	"sekimori/starlark/policy"
)

// A Finding is one thing that is most likely a mistake.
type Finding struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
	// Rule is the name of the check: "dead-branch", "unused-load", ...
	Rule    string `json:"rule"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// String is "file:line:col: rule: message", then the hint on an indented line.
func (f Finding) String() string {
	s := fmt.Sprintf("%s:%d:%d: %s: %s", f.File, f.Line, f.Col, f.Rule, f.Message)
	if f.Hint != "" {
		s += "\n    " + f.Hint
	}
	return s
}

func at(pos syntax.Position, rule, hint, format string, args ...any) Finding {
	return Finding{File: pos.Filename(), Line: int(pos.Line), Col: int(pos.Col), Rule: rule, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Pod looks at a pod's files and at the policies of its containers. Modules of
// the standard library are not the user's to mend, and left out.
func Pod(ctx context.Context, p *starlark.Pod) ([]Finding, error) {
	var out []Finding
	trees := map[string]*syntax.File{}
	for _, name := range p.Files() {
		if text, ok := p.Text(name); ok && !isStd(name) {
			f, err := parse(name, text)
			if err != nil {
				return nil, err
			}
			trees[name] = f
			out = append(out, names(f)...)
		}
	}
	found, err := predicates(p, trees)
	if err != nil {
		return nil, err
	}
	out = append(out, found...)
	out = append(out, reaches(ctx, p)...)
	return inOrder(out), ctx.Err()
}

// Source looks at the names of one file alone: for test files, which describe
// no pod.
func Source(filename string, src []byte) ([]Finding, error) {
	f, err := parse(filename, src)
	if err != nil {
		return nil, err
	}
	return inOrder(names(f)), nil
}

func parse(filename string, src []byte) (*syntax.File, error) {
	return policy.Options.Parse(filename, dotload.Allow(filename, src), 0)
}

func isStd(name string) bool { return len(name) > 0 && name[0] == '@' }

// inOrder sorts findings by where they are, each once.
func inOrder(fs []Finding) []Finding {
	slices.SortStableFunc(fs, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(fs)
}
