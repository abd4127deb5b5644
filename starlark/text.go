package starlark

import (
	"strings"

	"go.starlark.net/syntax"

	"sekimori/starlark/dotload"
	"sekimori/starlark/policy"
)

// Text is the source of an evaluated file, by the name its positions show.
func (s *Session) Text(filename string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.texts[filename]
	return data, ok
}

// Know takes over the texts of a pod's files, so that Line finds the lines that
// decided in its policies.
func (s *Session) Know(p *Pod) {
	for _, name := range p.Files() {
		text, _ := p.Text(name)
		s.mu.Lock()
		if _, known := s.texts[name]; !known {
			s.texts[name] = text
		}
		s.mu.Unlock()
	}
}

// Line is one line of an evaluated file, without surrounding space.
func (s *Session) Line(filename string, line int) string {
	data, _ := s.Text(filename)
	for i, l := range strings.Split(string(data), "\n") {
		if i == line-1 {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

// argument is the position of the argument name of the call at pos.
func (s *Session) argument(pos syntax.Position, name string) (found syntax.Position, ok bool) {
	data, known := s.Text(pos.Filename())
	if name == "" || !known {
		return pos, false
	}
	f, err := policy.Options.Parse(pos.Filename(), dotload.Allow(pos.Filename(), data), 0)
	if err != nil {
		return pos, false
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		c, isCall := n.(*syntax.CallExpr)
		if isCall && c.Lparen.Line == pos.Line && c.Lparen.Col == pos.Col {
			for _, a := range c.Args {
				if b, isNamed := a.(*syntax.BinaryExpr); isNamed && b.Op == syntax.EQ {
					if id, isName := b.X.(*syntax.Ident); isName && id.Name == name {
						found, ok = id.NamePos, true
					}
				}
			}
		}
		return !ok
	})
	return found, ok
}
