package starlark

import (
	"go.starlark.net/syntax"

	"sekimori/starlark/dotload"
	"sekimori/starlark/policy"
)

// measureFile puts the measured operations of budget.go in the place of
// operators and methods, all over the file. Positions stay those of the source.
func measureFile(f *syntax.File) { rewriteStmts(f.Stmts) }

func rewriteStmts(stmts []syntax.Stmt) {
	for _, s := range stmts {
		rewriteStmt(s)
	}
}

func rewriteStmt(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.AssignStmt:
		rewriteAssign(s)
	case *syntax.DefStmt:
		rewriteExprs(s.Params)
		rewriteStmts(s.Body)
	case *syntax.ExprStmt:
		s.X = rewrite(s.X)
	case *syntax.ForStmt:
		rewriteTarget(s.Vars)
		s.X = rewrite(s.X)
		rewriteStmts(s.Body)
	case *syntax.WhileStmt:
		s.Cond = rewrite(s.Cond)
		rewriteStmts(s.Body)
	case *syntax.IfStmt:
		s.Cond = rewrite(s.Cond)
		rewriteStmts(s.True)
		rewriteStmts(s.False)
	case *syntax.ReturnStmt:
		if s.Result != nil {
			s.Result = rewrite(s.Result)
		}
	}
}

// rewriteAssign leaves assignments to their own evaluation order: only a plain
// name may be evaluated twice.
func rewriteAssign(s *syntax.AssignStmt) {
	rewriteTarget(s.LHS)
	s.RHS = rewrite(s.RHS)
	if s.Op == syntax.PLUS_EQ {
		rewriteAppend(s)
		return
	}
	fn := map[syntax.Token]string{syntax.STAR_EQ: "*", syntax.PERCENT_EQ: "%"}[s.Op]
	if fn == "" {
		return
	}
	if id, ok := s.LHS.(*syntax.Ident); ok {
		s.RHS = call(fn, s.OpPos, &syntax.Ident{NamePos: id.NamePos, Name: id.Name}, s.RHS)
		s.Op = syntax.EQ
	} else if fn == "*" {
		s.RHS = call("*=", s.OpPos, s.RHS)
	}
}

// rewriteAppend leaves x += y to extend the list x in place.
func rewriteAppend(s *syntax.AssignStmt) {
	if id, ok := s.LHS.(*syntax.Ident); ok {
		s.RHS = call("+=", s.OpPos, &syntax.Ident{NamePos: id.NamePos, Name: id.Name}, s.RHS)
	} else {
		s.RHS = call("+=", s.OpPos, s.RHS)
	}
}

// rewriteTarget rewrites what is evaluated inside the target of an assignment.
func rewriteTarget(e syntax.Expr) {
	switch e := e.(type) {
	case *syntax.DotExpr:
		e.X = rewrite(e.X)
	case *syntax.IndexExpr:
		e.X, e.Y = rewrite(e.X), rewrite(e.Y)
	case *syntax.ParenExpr:
		rewriteTarget(e.X)
	case *syntax.ListExpr:
		for _, x := range e.List {
			rewriteTarget(x)
		}
	case *syntax.TupleExpr:
		for _, x := range e.List {
			rewriteTarget(x)
		}
	}
}

func rewriteExprs(es []syntax.Expr) {
	for i := range es {
		es[i] = rewrite(es[i])
	}
}

// rewrite is e with its measured operations in place.
func rewrite(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.BinaryExpr:
		return rewriteBinary(e)
	case *syntax.DotExpr:
		e.X = rewrite(e.X)
		if e.Name.Name == dotload.Word {
			e.Name.Name = "load"
		}
		if measuredMethods[e.Name.Name] {
			name := &syntax.Literal{Token: syntax.STRING, TokenPos: e.NamePos, Raw: `"` + e.Name.Name + `"`, Value: e.Name.Name}
			return call(".", e.Dot, e.X, name)
		}
	case *syntax.Comprehension:
		e.Body = rewrite(e.Body)
		for _, c := range e.Clauses {
			switch c := c.(type) {
			case *syntax.ForClause:
				rewriteTarget(c.Vars)
				c.X = rewrite(c.X)
			case *syntax.IfClause:
				c.Cond = rewrite(c.Cond)
			}
		}
	default:
		policy.MapChildren(e, rewrite)
	}
	return e
}

// rewriteBinary goes down the left spine in a loop: a+a+a+... nests as deep
// as the file is long, and the parser does not bound that.
func rewriteBinary(e *syntax.BinaryExpr) syntax.Expr {
	var spine []*syntax.BinaryExpr
	left := syntax.Expr(e)
	for {
		b, ok := left.(*syntax.BinaryExpr)
		if !ok {
			break
		}
		spine = append(spine, b)
		left = b.X
	}
	// NAME = value in calls and parameter lists is a BinaryExpr too.
	out := rewrite(left)
	for i := len(spine) - 1; i >= 0; i-- {
		b := spine[i]
		b.X, b.Y = out, rewrite(b.Y)
		switch b.Op {
		case syntax.PLUS:
			out = call("+", b.OpPos, b.X, b.Y)
		case syntax.STAR:
			out = call("*", b.OpPos, b.X, b.Y)
		case syntax.PERCENT:
			out = call("%", b.OpPos, b.X, b.Y)
		default:
			out = b
		}
	}
	return out
}

// call is a call of a measured operation at the operator's position.
func call(fn string, pos syntax.Position, args ...syntax.Expr) *syntax.CallExpr {
	return &syntax.CallExpr{Fn: &syntax.Ident{NamePos: pos, Name: fn}, Lparen: pos, Args: args, Rparen: pos}
}
