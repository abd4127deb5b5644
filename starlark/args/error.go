package args

import (
	"errors"
	"fmt"

	"go.starlark.net/syntax"
)

// An Error says what is wrong with a description, and where.
type Error struct {
	// Pos is the call that was wrong, or the zero Position where the position
	// is that of the running call (the loader knows it).
	Pos syntax.Position
	// Arg is the name of the keyword argument that is wrong, or empty. The
	// loader narrows the position down to that argument.
	Arg string
	// Msg says what and why, in one line without a position.
	Msg string
	// Hint says what to write instead, or is empty.
	Hint string
}

// Error is the message, behind its position where that is known.
func (e *Error) Error() string {
	if e.Pos.Line == 0 {
		return e.Msg
	}
	return fmt.Sprintf("%s: %s", e.Pos, e.Msg)
}

// Hinted makes an error with a hint and without a position.
func Hinted(hint, format string, args ...any) *Error {
	return &Error{Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// HintOf is the hint an error carries, ours or of another package.
func HintOf(err error) string {
	var ours *Error
	if errors.As(err, &ours) {
		return ours.Hint
	}
	var other interface{ Hint() string }
	if errors.As(err, &other) {
		return other.Hint()
	}
	return ""
}
