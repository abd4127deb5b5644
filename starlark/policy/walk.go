package policy

import "go.starlark.net/syntax"

// MapChildren puts f(x) in the place of each expression x directly inside e. A
// part that is not there, as a slice's step, stays away.
func MapChildren(e syntax.Expr, f func(syntax.Expr) syntax.Expr) {
	all := func(xs []syntax.Expr) {
		for i := range xs {
			xs[i] = f(xs[i])
		}
	}
	switch e := e.(type) {
	case *syntax.BinaryExpr:
		e.X, e.Y = f(e.X), f(e.Y)
	case *syntax.CallExpr:
		e.Fn = f(e.Fn)
		all(e.Args)
	case *syntax.Comprehension:
		e.Body = f(e.Body)
		for _, c := range e.Clauses {
			switch c := c.(type) {
			case *syntax.ForClause:
				c.Vars, c.X = f(c.Vars), f(c.X)
			case *syntax.IfClause:
				c.Cond = f(c.Cond)
			}
		}
	case *syntax.CondExpr:
		e.Cond, e.True, e.False = f(e.Cond), f(e.True), f(e.False)
	case *syntax.DictEntry:
		e.Key, e.Value = f(e.Key), f(e.Value)
	case *syntax.DictExpr:
		all(e.List)
	case *syntax.DotExpr:
		e.X = f(e.X)
	case *syntax.IndexExpr:
		e.X, e.Y = f(e.X), f(e.Y)
	case *syntax.LambdaExpr:
		all(e.Params)
		e.Body = f(e.Body)
	case *syntax.ListExpr:
		all(e.List)
	case *syntax.ParenExpr:
		e.X = f(e.X)
	case *syntax.SliceExpr:
		e.X = f(e.X)
		for _, x := range []*syntax.Expr{&e.Lo, &e.Hi, &e.Step} {
			if *x != nil {
				*x = f(*x)
			}
		}
	case *syntax.TupleExpr:
		all(e.List)
	case *syntax.UnaryExpr:
		if e.X != nil { // nil: the bare * of a parameter list
			e.X = f(e.X)
		}
	}
}

// startOf is syntax.Start, which would find out where the node ends as well.
func startOf(n syntax.Node) syntax.Position {
	for {
		switch x := n.(type) {
		case *syntax.Ident:
			return x.NamePos
		case *syntax.Literal:
			return x.TokenPos
		case *syntax.ParenExpr:
			return x.Lparen
		case *syntax.ReturnStmt:
			return x.Return
		case *syntax.DefStmt:
			return x.Def
		case *syntax.IfStmt:
			return x.If
		case *syntax.ForStmt:
			return x.For
		case *syntax.CallExpr:
			n = x.Fn
		case *syntax.DotExpr:
			n = x.X
		case *syntax.IndexExpr:
			n = x.X
		case *syntax.BinaryExpr:
			n = x.X
		case *syntax.AssignStmt:
			n = x.LHS
		case *syntax.ExprStmt:
			n = x.X
		default:
			return syntax.Start(n)
		}
	}
}
