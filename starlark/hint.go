package starlark

import (
	"fmt"
	"strings"
	"unicode"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

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

// syntaxError is what is wrong with a file's syntax, at the end of a line rather
// than before the next one, with a hint where one is known.
func (s *Session) syntaxError(e syntax.Error) *Error {
	out := &Error{Pos: e.Pos, Msg: "syntax: " + e.Msg, err: e}
	lines := []string{}
	if text, ok := s.Text(e.Pos.Filename()); ok {
		lines = strings.Split(string(text), "\n")
	}
	line := func(n int32) string {
		if n < 1 || int(n) > len(lines) {
			return ""
		}
		return strings.TrimRight(lines[n-1], " \t\r")
	}
	if strings.HasPrefix(e.Msg, "got newline") && e.Pos.Col == 1 && e.Pos.Line > 1 {
		out.Pos.Line--
		out.Pos.Col = int32(len([]rune(line(out.Pos.Line)))) + 1
	}
	if at := line(out.Pos.Line); strings.HasPrefix(e.Msg, "got identifier") && int(out.Pos.Col) <= len(at)+1 {
		// The scanner is behind the word, the reader looks for it.
		word := strings.TrimRightFunc(at[:out.Pos.Col-1], func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) })
		out.Pos.Col = int32(len(word)) + 1
	}
	out.Hint = syntaxHint(e.Msg, line(out.Pos.Line), line(out.Pos.Line-1), int(out.Pos.Col))
	return out
}

// syntaxHint explains syntax that other languages have, and what is often
// forgotten. before is the line before the one that is wrong, col is counted from 1.
func syntaxHint(msg, line, before string, col int) string {
	first, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	begins := strings.TrimSpace(line[:min(max(col-1, 0), len(line))]) == ""
	switch {
	case begins && strings.Contains(msg, "want ','") && strings.TrimSpace(before) != "" && !strings.HasSuffix(before, ","):
		return "a comma is missing at the end of the line before"
	case msg == "got newline, want ':'":
		return "a colon ends this line"
	case strings.Contains(msg, "got indent"):
		return "the line is indented deeper than the one before it"
	case strings.Contains(msg, "got '|'") && strings.Contains(line, "||"), strings.Contains(msg, "got '&'") && strings.Contains(line, "&&"), strings.Contains(msg, "unexpected input character '!'"):
		return "the words are: and, or, not"
	case strings.Contains(msg, "got '='") && !begins && (first == "return" || first == "if" || first == "elif"):
		return "equal is written =="
	case strings.Contains(msg, "got string literal") && strings.ContainsAny(line, "fF"):
		return `there are no f-strings: write "%s" % x, or "{}".format(x)`
	case (first == "fun" || first == "func" || first == "function") && strings.Contains(msg, "got identifier"):
		return "a function begins with def"
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
