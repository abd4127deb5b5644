package starlark

import (
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Predeclared are the names that every file of the session sees.
func (s *Session) Predeclared() starlark.StringDict { return s.sources.Predeclared() }

// ExecChunk runs a piece of an interactive session: see
// [policy.Sources.ExecChunk]. text is its source, for errors to quote.
func (s *Session) ExecChunk(th *starlark.Thread, f *syntax.File, text []byte, globals starlark.StringDict) error {
	s.mu.Lock()
	s.texts[f.Path] = text
	s.mu.Unlock()
	return s.Explain(s.sources.ExecChunk(th, f, globals))
}
