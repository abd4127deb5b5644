package starlark

import (
	"fmt"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"

	"sekimori/starlark/value"
)

// resolveError replaces the resolver's suggestion by one over the builtins
// too: the resolver knows only the names of the file and of the language.
func (s *Session) resolveError(r resolve.Error) *Error {
	e := &Error{Pos: r.Pos, Msg: r.Msg, err: r}
	name, ok := strings.CutPrefix(r.Msg, "undefined: ")
	if !ok {
		e.Hint = resolveHint(r.Msg)
		return e
	}
	name, theirs, _ := strings.Cut(name, " (did you mean ")
	theirs = strings.TrimSuffix(theirs, "?)")
	if theirs == "" || !isIdent(theirs) {
		theirs = value.Suggest(name, s.knownNames())
	}
	e.Msg = "undefined: " + name
	if theirs != "" {
		e.Msg += fmt.Sprintf(" (did you mean %s?)", theirs)
	}
	return e
}

// knownNames are the names every file can use.
func (s *Session) knownNames() []string {
	var names []string
	for name := range s.sources.Predeclared() {
		if isIdent(name) {
			names = append(names, name)
		}
	}
	for name := range starlark.Universe {
		names = append(names, name)
	}
	return names
}

// resolveHint says what to write instead of what the dialect leaves out.
func resolveHint(msg string) string {
	switch {
	case strings.Contains(msg, "while"):
		return "the language has no while: write for i in range(n) and break"
	case strings.Contains(msg, "cannot reassign"):
		return "a name at the top of a file is given once; functions may reassign their own"
	}
	return ""
}

// syntaxHint explains syntax that other languages have.
func syntaxHint(msg string) string {
	switch {
	case strings.Contains(msg, "got '**'"):
		return "the language has no power operator: write 1 << n, or x * x"
	case strings.Contains(msg, "got import"):
		return `the language has no import: write load("module.star", "name")`
	case strings.Contains(msg, "got class"), strings.Contains(msg, "got try"), strings.Contains(msg, "got with"), strings.Contains(msg, "got yield"), strings.Contains(msg, "got raise"):
		return "Starlark is a small part of Python: functions, dicts and struct-like values do the rest"
	}
	return ""
}

// isIdent tells names that a file can write from those of operators.
func isIdent(name string) bool {
	return name != "" && (name[0] == '_' || name[0] >= 'A' && name[0] <= 'Z' || name[0] >= 'a' && name[0] <= 'z') &&
		name != "in" && name != "not in"
}
