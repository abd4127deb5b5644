package reference

import (
	"fmt"
	"strings"

	"go.starlark.net/syntax"

	"sekimori/starlark/dotload"
	"sekimori/starlark/policy"
)

// Module documents a module from its docstrings: its own, and those of its
// functions. Names that begin with _ are private.
func Module(filename string, src []byte) (Section, error) {
	f, err := policy.Options.Parse(filename, dotload.Allow(filename, src), syntax.RetainComments)
	if err != nil {
		return Section{}, err
	}
	s := Section{Title: filename, Doc: docstring(f.Stmts)}
	for _, stmt := range f.Stmts {
		switch stmt := stmt.(type) {
		case *syntax.DefStmt:
			if !strings.HasPrefix(stmt.Name.Name, "_") {
				s.Entries = append(s.Entries, function(stmt))
			}
		case *syntax.AssignStmt:
			if id, ok := stmt.LHS.(*syntax.Ident); ok && stmt.Op == syntax.EQ && !strings.HasPrefix(id.Name, "_") {
				s.Entries = append(s.Entries, Entry{Name: id.Name, Signature: id.Name + " = " + text(stmt.RHS), Doc: commentsBefore(stmt)})
			}
		}
	}
	return s, nil
}

// function documents a def: its docstring, with the arguments that its Args:
// section names.
func function(def *syntax.DefStmt) Entry {
	e := Entry{Name: def.Name.Name}
	doc, described, result := arguments(docstring(def.Body))
	e.Doc, e.Result = doc, result
	var words []string
	for _, p := range def.Params {
		name, def := parameter(p)
		if name == "" {
			words = append(words, "*")
			continue
		}
		word := name
		if def != "" {
			word += " = " + def
		}
		words = append(words, word)
		e.Params = append(e.Params, Param{Name: name, Default: def, Doc: described[strings.TrimLeft(name, "*")]})
	}
	e.Signature = e.Name + "(" + strings.Join(words, ", ") + ")"
	return e
}

// parameter is the name and the default of a parameter.
func parameter(p syntax.Expr) (name, def string) {
	switch p := p.(type) {
	case *syntax.Ident:
		return p.Name, ""
	case *syntax.BinaryExpr:
		if id, ok := p.X.(*syntax.Ident); ok {
			return id.Name, text(p.Y)
		}
	case *syntax.UnaryExpr:
		if id, ok := p.X.(*syntax.Ident); ok {
			return p.Op.String() + id.Name, ""
		}
	}
	return "", ""
}

// text is a short expression as written; longer ones are "...".
func text(e syntax.Expr) string {
	switch e := e.(type) {
	case *syntax.Ident:
		return e.Name
	case *syntax.Literal:
		return e.Raw
	case *syntax.ListExpr:
		if len(e.List) == 0 {
			return "[]"
		}
	case *syntax.TupleExpr:
		if len(e.List) == 0 {
			return "()"
		}
	case *syntax.UnaryExpr:
		if e.X != nil {
			return e.Op.String() + text(e.X)
		}
	case *syntax.DotExpr:
		return text(e.X) + "." + e.Name.Name
	case *syntax.CallExpr:
		var words []string
		for _, a := range e.Args {
			words = append(words, text(a))
		}
		if s := fmt.Sprintf("%s(%s)", text(e.Fn), strings.Join(words, ", ")); len(s) <= 60 && !strings.Contains(s, "...") {
			return s
		}
	}
	return "..."
}

// docstring is the string that begins a file or a function, its common
// indentation taken away.
func docstring(body []syntax.Stmt) string {
	if len(body) == 0 {
		return ""
	}
	s, ok := body[0].(*syntax.ExprStmt)
	if !ok {
		return ""
	}
	lit, ok := s.X.(*syntax.Literal)
	if !ok || lit.Token != syntax.STRING {
		return ""
	}
	return dedent(lit.Value.(string))
}

// dedent takes the indentation that all lines but the first share away.
func dedent(s string) string {
	lines := strings.Split(s, "\n")
	least := -1
	for _, l := range lines[1:] {
		if t := strings.TrimLeft(l, " "); t != "" && (least < 0 || len(l)-len(t) < least) {
			least = len(l) - len(t)
		}
	}
	for i, l := range lines {
		if i > 0 && least > 0 {
			l = l[min(least, len(l)):]
		}
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// arguments splits the sections Args: and Returns: off a docstring, as
// buildifier knows them.
func arguments(doc string) (rest string, described map[string]string, result string) {
	described = map[string]string{}
	var out []string
	section, name := "", ""
	for _, line := range strings.Split(doc, "\n") {
		body := strings.TrimSpace(line)
		indented := strings.HasPrefix(line, " ")
		switch {
		case !indented && (body == "Args:" || body == "Returns:"):
			section, name = body, ""
		case section == "" || !indented && body != "":
			section = ""
			out = append(out, line)
		case section == "Returns:":
			result = strings.TrimSpace(result + " " + body)
		case body == "":
		default:
			if n, d, ok := strings.Cut(body, ":"); ok && !strings.Contains(strings.TrimLeft(n, "*"), " ") {
				name = strings.TrimLeft(n, "*")
				described[name] = strings.TrimSpace(d)
			} else if name != "" {
				described[name] += " " + body
			}
		}
	}
	return strings.TrimSpace(strings.Join(out, "\n")), described, strings.TrimSuffix(result, ".")
}

// commentsBefore are the comment lines right above a statement.
func commentsBefore(s syntax.Stmt) string {
	c := s.Comments()
	if c == nil {
		return ""
	}
	var lines []string
	for _, l := range c.Before {
		lines = append(lines, strings.TrimSpace(strings.TrimPrefix(l.Text, "#")))
	}
	return strings.Join(lines, "\n")
}
