package lint

import (
	"slices"
	"strings"

	"go.starlark.net/syntax"
)

// given are parameters that whoever calls the function gives it, wanted or not.
var given = []string{"ctx", "t"}

// names finds names of a file that nothing uses: loads, and parameters. What
// begins with _ says itself that it is not used.
func names(f *syntax.File) []Finding {
	var out []Finding
	used := identifiers(f)
	for _, s := range f.Stmts {
		load, ok := s.(*syntax.LoadStmt)
		if !ok {
			continue
		}
		for i, to := range load.To {
			if !used[to.Name] && !strings.HasPrefix(to.Name, "_") {
				out = append(out, at(load.From[i].NamePos, "unused-load", "take it out of the load()", "%s is loaded and not used", to.Name))
			}
		}
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.DefStmt:
			out = append(out, unusedParams(n.Name.Name, n.Params, bodyNames(n.Body))...)
		case *syntax.LambdaExpr:
			out = append(out, unusedParams("lambda", n.Params, identifiersOf(n.Body))...)
		}
		return true
	})
	return out
}

// unusedParams are the parameters that are not among the names of the body.
func unusedParams(fn string, params []syntax.Expr, used map[string]bool) []Finding {
	var out []Finding
	for _, p := range params {
		id := paramName(p)
		if id == nil || used[id.Name] || strings.HasPrefix(id.Name, "_") || slices.Contains(given, id.Name) {
			continue
		}
		hint := "take it away, or call it _" + id.Name
		if strings.HasPrefix(fn, "allow_") {
			hint = "take it away: a predicate asks for the fields that it looks at"
		}
		out = append(out, at(id.NamePos, "unused-parameter", hint, "%s: %s is not used", fn, id.Name))
	}
	return out
}

func paramName(p syntax.Expr) *syntax.Ident {
	switch p := p.(type) {
	case *syntax.Ident:
		return p
	case *syntax.BinaryExpr:
		id, _ := p.X.(*syntax.Ident)
		return id
	case *syntax.UnaryExpr:
		id, _ := p.X.(*syntax.Ident)
		return id
	}
	return nil
}

// identifiers are the names that a file uses. A name that is given a value, or
// that names an argument or a parameter, is not used by that.
func identifiers(f *syntax.File) map[string]bool { return bodyNames(f.Stmts) }

func bodyNames(stmts []syntax.Stmt) map[string]bool {
	used := map[string]bool{}
	for _, s := range stmts {
		if _, ok := s.(*syntax.LoadStmt); !ok {
			collect(s, used)
		}
	}
	return used
}

func identifiersOf(e syntax.Expr) map[string]bool {
	used := map[string]bool{}
	collect(e, used)
	return used
}

// collect adds the names that n uses.
func collect(n syntax.Node, used map[string]bool) {
	syntax.Walk(n, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Ident:
			used[n.Name] = true
		case *syntax.DotExpr:
			collect(n.X, used)
			return false
		case *syntax.AssignStmt:
			if _, plain := n.LHS.(*syntax.Ident); plain && n.Op == syntax.EQ {
				collect(n.RHS, used)
				return false
			}
		case *syntax.CallExpr:
			collect(n.Fn, used)
			for _, a := range n.Args {
				if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ { // name = value
					a = b.Y
				}
				collect(a, used)
			}
			return false
		case *syntax.DefStmt:
			params(n.Params, used)
			for _, s := range n.Body {
				collect(s, used)
			}
			return false
		case *syntax.LambdaExpr:
			params(n.Params, used)
			collect(n.Body, used)
			return false
		}
		return true
	})
}

// params adds the names that the defaults of parameters use.
func params(ps []syntax.Expr, used map[string]bool) {
	for _, p := range ps {
		if b, ok := p.(*syntax.BinaryExpr); ok {
			collect(b.Y, used)
		}
	}
}
