package starlark

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/starlark/args"
	"sekimori/starlark/policy"
)

// An Error is one thing wrong with a .star file, or that went wrong in it.
type Error struct {
	// Pos is where; its Line is 0 if it is no place in a file (--set).
	Pos syntax.Position
	// Msg is one line without the position.
	Msg string
	// Hint says what to write instead, or is empty.
	Hint string
	// Backtrace is the calls that led there, outermost first, one a line;
	// empty for errors found without evaluating.
	Backtrace string

	err error
}

// Error is `file:line:col: message`, then the hint on an indented line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Pos.Line > 0 {
		fmt.Fprintf(&b, "%s: ", e.Pos)
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString("\n    " + strings.ReplaceAll(e.Hint, "\n", "\n    "))
	}
	return b.String()
}

// Format adds the backtrace for %+v.
func (e *Error) Format(f fmt.State, verb rune) {
	text := e.Error()
	if verb == 'q' {
		text = fmt.Sprintf("%q", text)
	}
	if verb == 'v' && f.Flag('+') && e.Backtrace != "" {
		text += "\n" + strings.TrimRight(e.Backtrace, "\n")
	}
	// A failed write is the caller's to notice, as with every Formatter.
	_, _ = io.WriteString(f, text)
}

// Unwrap is the error underneath: of a context, of the file system.
func (e *Error) Unwrap() error { return e.err }

// Errors are the single errors in err, in order: those that errors.Join put
// together, or err alone.
func Errors(err error) []*Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok {
		return []*Error{e}
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*Error
		for _, e := range many.Unwrap() {
			out = append(out, Errors(e)...)
		}
		return out
	}
	var e *Error
	if errors.As(err, &e) {
		return []*Error{e}
	}
	return []*Error{{Msg: err.Error(), err: err}}
}

// Explain turns an error of parsing, resolving, evaluating or compiling files
// of the session into *Error values, joined if there are several.
func (s *Session) Explain(err error) error {
	if err == nil {
		return nil
	}
	seen := map[string]bool{}
	var out []error
	for _, e := range s.explain(err) {
		if key := e.Error(); !seen[key] {
			seen[key] = true
			out = append(out, e)
		}
	}
	if len(out) == 1 {
		return out[0]
	}
	inOrder(out)
	return errors.Join(out...)
}

// inOrder sorts the errors of one file by where they are.
func inOrder(errs []error) {
	at := func(i int) syntax.Position { return errs[i].(*Error).Pos }
	for i := range errs {
		if at(i).Line == 0 || at(i).Filename() != at(0).Filename() {
			return
		}
	}
	sort.SliceStable(errs, func(i, j int) bool {
		a, b := at(i), at(j)
		return a.Line < b.Line || a.Line == b.Line && a.Col < b.Col
	})
}

func (s *Session) explain(err error) []*Error {
	switch e := err.(type) {
	case *Error:
		return []*Error{e}
	case syntax.Error:
		return []*Error{s.syntaxError(e)}
	case resolve.ErrorList:
		var out []*Error
		for _, r := range e {
			out = append(out, s.resolveError(r))
		}
		return out
	case *starlark.EvalError:
		return s.evalError(e)
	case *policy.Error:
		msg := e.Msg
		if e.Name != "" {
			msg = e.Name + ": " + msg
		}
		pos, _ := s.argument(e.Pos, e.Arg)
		return []*Error{{Pos: pos, Msg: msg, Hint: e.Hint, err: err}}
	case *args.Error:
		return []*Error{{Pos: e.Pos, Msg: e.Msg, Hint: e.Hint, err: err}}
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*Error
		for _, e := range many.Unwrap() {
			out = append(out, s.explain(e)...)
		}
		return out
	}
	if inner := errors.Unwrap(err); inner != nil && explained(inner) {
		return s.explain(inner)
	}
	return []*Error{{Msg: err.Error(), Hint: hintOf(err), err: err}}
}

// explained reports whether err leads to an error that knows its position.
func explained(err error) bool {
	var ours *Error
	var pol *policy.Error
	var ev *starlark.EvalError
	return errors.As(err, &ours) || errors.As(err, &pol) || errors.As(err, &ev)
}

// evalError gives an evaluation error the position of the innermost Starlark
// frame, or of the argument that was wrong there.
func (s *Session) evalError(e *starlark.EvalError) []*Error {
	if cause := errors.Unwrap(e); cause != nil {
		if inner, ok := s.modulesErrors(cause); ok {
			return inner
		}
	}
	out := &Error{Msg: e.Msg, Hint: hintOf(e), Backtrace: backtrace(e.CallStack), err: e}
	for i := range e.CallStack {
		if fr := e.CallStack.At(i); fr.Pos.Line > 0 {
			out.Pos = fr.Pos
			break
		}
	}
	var arg *args.Error
	if errors.As(e, &arg) {
		if arg.Pos.Line > 0 {
			out.Pos = arg.Pos
		} else if pos, ok := s.argument(out.Pos, arg.Arg); ok {
			out.Pos = pos
		}
	}
	var unread *Error
	if errors.As(e, &unread) {
		out.Msg, out.Hint = strings.Replace(e.Msg, unread.Error(), unread.Msg, 1), unread.Hint
	}
	if name, ok := strings.CutPrefix(e.Msg, "Starlark computation cancelled: "); ok {
		out.Msg = "evaluation stopped: " + name
	}
	return []*Error{out}
}

// modulesErrors finds the errors of a loaded module, which have positions and
// backtraces of their own, below the load statement that failed for them; and
// those of the compiler below a builtin that called it.
func (s *Session) modulesErrors(cause error) ([]*Error, bool) {
	for err := cause; err != nil; err = errors.Unwrap(err) {
		switch e := err.(type) {
		case *Error:
			if e.Pos.Line > 0 {
				return s.explain(e), true
			}
			return nil, false // the module could not be read: the load is to blame
		case *policy.Error:
			return s.explain(e), true
		case interface{ Unwrap() []error }:
			if explained(err) {
				return s.explain(err), true
			}
			return nil, false
		}
	}
	return nil, false
}

// backtrace prints the Starlark frames of a stack.
func backtrace(stack starlark.CallStack) string {
	var b strings.Builder
	b.WriteString("Traceback (most recent call last):\n")
	for _, fr := range stack {
		if fr.Pos.Line > 0 {
			fmt.Fprintf(&b, "  %s: in %s\n", fr.Pos, fr.Name)
		}
	}
	return b.String()
}

// hintOf is the hint that an error carries.
func hintOf(err error) string {
	var c *args.Error
	if errors.As(err, &c) {
		return c.Hint
	}
	var p *policy.Error
	if errors.As(err, &p) {
		return p.Hint
	}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}
