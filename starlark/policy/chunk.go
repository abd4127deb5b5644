package policy

import (
	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// ExecChunk runs a piece of an interactive session, whose globals are also all
// that it sees. Its functions can be compiled from then on: the name of f must
// be new.
func (s *Sources) ExecChunk(thread *starlark.Thread, f *syntax.File, globals starlark.StringDict) error {
	var functions rewriting
	functions.stmts(f.Stmts)
	if s.Rewrite != nil {
		s.Rewrite(f)
	}
	// The interpreter resolves it once more; but it runs it at once, and what
	// runs may ask for the functions in it.
	if err := resolve.REPLChunk(f, globals.Has, func(string) bool { return false }, starlark.Universe.Has); err != nil {
		return err
	}
	s.remember(functions)
	return starlark.ExecREPLChunk(f, thread, globals)
}
