package policy

import (
	"strings"

	"go.starlark.net/syntax"
)

// An Error is a mistake in a policy, at the place in the .star file where it
// was made.
type Error struct {
	Pos  syntax.Position
	Name string // the predicate, "policy" where there is none
	Msg  string
	Hint string // what to write instead; may be empty
	Arg  string // the argument of the call at Pos that is wrong; may be empty
}

// Error is "file:line:col: name: problem" and, on a line of its own and
// indented, the hint.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Pos.IsValid() {
		b.WriteString(e.Pos.String())
		b.WriteString(": ")
	}
	b.WriteString(e.Name)
	b.WriteString(": ")
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString("\n    ")
		b.WriteString(e.Hint)
	}
	return b.String()
}
