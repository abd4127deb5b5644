package policy

import (
	"maps"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Options is the dialect of .star files: Starlark as specified, with sets, and with
// for and if at the top of a file.
var Options = &syntax.FileOptions{Set: true, TopLevelControl: true}

// Sources holds the syntax trees of the files of one pod, resolved: what the
// interpreter ran is what the compiler reads. It is filled by one goroutine
// and read only after that.
type Sources struct {
	predeclared starlark.StringDict
	functions   map[position]*resolve.Function

	// Rewrite, if set, changes each tree before it is resolved: the loader
	// bounds the memory of operators with it (see measured).
	Rewrite func(*syntax.File)
}

// A position is where a function begins; Starlark functions know no more of
// their syntax than this.
type position struct {
	file      string
	line, col int32
}

func positionOf(p syntax.Position) position { return position{p.Filename(), p.Line, p.Col} }

// NewSources returns an empty collection for files that see predeclared,
// policy() and nothing else beside the universe.
func NewSources(predeclared starlark.StringDict) *Sources {
	s := &Sources{
		predeclared: make(starlark.StringDict, len(predeclared)+1+len(operators)+len(questions)),
		functions:   make(map[position]*resolve.Function),
	}
	maps.Copy(s.predeclared, predeclared)
	maps.Copy(s.predeclared, operators)
	maps.Copy(s.predeclared, questions)
	s.predeclared["policy"] = starlark.NewBuiltin("policy", s.makePolicy)
	return s
}

// Predeclared are the names that files see: what NewSources got, policy, and
// the operators, whose names no file can spell.
func (s *Sources) Predeclared() starlark.StringDict { return s.predeclared }

// Program parses and resolves a file. The file's name is what positions and
// errors show; src is as for syntax.Parse.
func (s *Sources) Program(filename string, src any) (*starlark.Program, error) {
	f, err := Options.Parse(filename, src, 0)
	if err != nil {
		return nil, err
	}
	var functions rewriting
	functions.stmts(f.Stmts)
	if s.Rewrite != nil {
		s.Rewrite(f)
	}
	p, err := starlark.FileProgram(f, s.predeclared.Has)
	if err != nil {
		return nil, err
	}
	s.remember(functions)
	return p, nil
}

// Exec runs a file and returns its globals, frozen.
func (s *Sources) Exec(thread *starlark.Thread, filename string, src any) (starlark.StringDict, error) {
	p, err := s.Program(filename, src)
	if err != nil {
		return nil, err
	}
	g, err := p.Init(thread, s.predeclared)
	g.Freeze()
	return g, err
}

// remember notes the functions of a resolved file.
func (s *Sources) remember(functions rewriting) {
	for _, n := range functions {
		var fn any
		switch n := n.(type) {
		case *syntax.DefStmt:
			fn = n.Function
		case *syntax.LambdaExpr:
			fn = n.Function
		}
		if fn, ok := fn.(*resolve.Function); ok {
			s.functions[positionOf(fn.Pos)] = fn
		}
	}
}
