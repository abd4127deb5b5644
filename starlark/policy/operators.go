package policy

import (
	"sekimori/starlark/value"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Starlark asks no type what it thinks of `==` with another type, it just says
// False. So, before a file is resolved, each comparison, `in` and `not`
// becomes a call of a builtin whose name is the operator: no file can spell
// such a name, and the builtins know our types (package value).
//
//	dst_ip == "10.0.0.1"   becomes   ==(dst_ip, "10.0.0.1")
//
// The compiler reads such a call as the operator it stands for.

// operators are the builtins by name.
var operators = starlark.StringDict{
	"==": comparison(syntax.EQL), "!=": comparison(syntax.NEQ),
	"<": comparison(syntax.LT), "<=": comparison(syntax.LE),
	">": comparison(syntax.GT), ">=": comparison(syntax.GE),
	"in": membership(syntax.IN), "not in": membership(syntax.NOT_IN),
}

// operatorTokens gives the token of each replaced operator.
var operatorTokens = map[string]syntax.Token{
	"==": syntax.EQL, "!=": syntax.NEQ, "<": syntax.LT, "<=": syntax.LE, ">": syntax.GT, ">=": syntax.GE,
	"in": syntax.IN, "not in": syntax.NOT_IN,
}

func comparison(op syntax.Token) *starlark.Builtin {
	return starlark.NewBuiltin(op.String(), func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		if err := absentOf(args...); err != nil {
			return nil, err
		}
		holds, err := value.Compare(op, args[0], args[1])
		return starlark.Bool(holds), err
	})
}

func membership(op syntax.Token) *starlark.Builtin {
	return starlark.NewBuiltin(op.String(), func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		if err := absentOf(args[0]); err != nil {
			return nil, err
		}
		found, err := value.Contains(args[0], args[1])
		return starlark.Bool(found == (op == syntax.IN)), err
	})
}

// asOperator reads a replaced operator back: ok is false for other calls.
func asOperator(call *syntax.CallExpr) (op syntax.Token, ok bool) {
	id, isIdent := call.Fn.(*syntax.Ident)
	if !isIdent || len(call.Args) != 2 {
		return 0, false
	}
	switch id.Name[0] {
	case '=', '!', '<', '>', 'i', 'n':
		op, ok = operatorTokens[id.Name]
	}
	return op, ok
}

// measured evaluates what the loader's Rewrite made of operators whose result
// can be large, to bound it: "*"(x, y) is x * y, "."(x, "join") is x.join, and
// "*="(..., y) is the y of x[i] *= y. ok is false for other calls.
func (c *compiler) measured(sc *scope, call *syntax.CallExpr) (n nid, ok bool) {
	id, isIdent := call.Fn.(*syntax.Ident)
	if !isIdent {
		return 0, false
	}
	op := syntax.PLUS
	switch id.Name {
	case "+":
	case "*":
		op = syntax.STAR
	case "%":
		op = syntax.PERCENT
	case "+=", "*=":
		return c.expr(sc, call.Args[len(call.Args)-1]), true
	case ".":
		name := call.Args[1].(*syntax.Literal)
		return c.values(c.expr(sc, call.Args[0]), func(l nid) nid { return c.attr(l, name.Value.(string), name.TokenPos) }), true
	default:
		return 0, false
	}
	return c.binary(op, c.expr(sc, call.Args[0]), c.expr(sc, call.Args[1]), call.Lparen), true
}

// A rewriting replaces operators in the statements of a parsed file, in place,
// and collects the functions that it meets.
type rewriting []syntax.Node // *syntax.DefStmt and *syntax.LambdaExpr

func (r *rewriting) stmts(stmts []syntax.Stmt) {
	for _, s := range stmts {
		switch s := s.(type) {
		case *syntax.AssignStmt:
			s.LHS, s.RHS = r.expr(s.LHS), r.expr(s.RHS)
		case *syntax.DefStmt:
			*r = append(*r, s)
			r.all(s.Params)
			r.stmts(s.Body)
		case *syntax.ExprStmt:
			s.X = r.expr(s.X)
		case *syntax.ForStmt:
			s.Vars, s.X = r.expr(s.Vars), r.expr(s.X)
			r.stmts(s.Body)
		case *syntax.WhileStmt:
			s.Cond = r.expr(s.Cond)
			r.stmts(s.Body)
		case *syntax.IfStmt:
			s.Cond = r.expr(s.Cond)
			r.stmts(s.True)
			r.stmts(s.False)
		case *syntax.ReturnStmt:
			s.Result = r.expr(s.Result)
		}
	}
}

func (r *rewriting) all(xs []syntax.Expr) {
	for i := range xs {
		xs[i] = r.expr(xs[i])
	}
}

// expr returns e with the operators in it replaced; nil is nil.
func (r *rewriting) expr(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.Ident, *syntax.Literal: // most of all
	case *syntax.BinaryExpr:
		return r.binary(e)
	case *syntax.CallExpr:
		e.Fn = r.expr(e.Fn)
		r.all(e.Args)
	case *syntax.LambdaExpr:
		*r = append(*r, e)
		MapChildren(e, r.expr)
	default:
		MapChildren(e, r.expr)
	}
	return e
}

func (r *rewriting) binary(e *syntax.BinaryExpr) syntax.Expr {
	e.X, e.Y = r.expr(e.X), r.expr(e.Y)
	switch e.Op {
	case syntax.EQL, syntax.NEQ, syntax.LT, syntax.LE, syntax.GT, syntax.GE, syntax.IN, syntax.NOT_IN:
		_, end := e.Y.Span()
		n := &operatorCall{name: syntax.Ident{NamePos: startOf(e.X), Name: e.Op.String()}, args: [2]syntax.Expr{e.X, e.Y}}
		n.call = syntax.CallExpr{Fn: &n.name, Lparen: e.OpPos, Args: n.args[:], Rparen: end}
		return &n.call
	}
	return e
}

// An operatorCall is the parts of a call, allocated at once.
type operatorCall struct {
	call syntax.CallExpr
	name syntax.Ident
	args [2]syntax.Expr
}
