package starlark

import (
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/syntax"

	"sekimori/starlark/config"
	"sekimori/starlark/dotload"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"
)

// misspelt finds, in the callbacks of the pod's containers, attributes of ctx
// that it does not have. They run when something has happened already, which is
// late to learn of a misspelt word; what the function does with ctx otherwise,
// handing it on or giving the name to something else, is left to that time.
func (p *Pod) misspelt() []error {
	var errs []error
	seen := map[syntax.Position]bool{}
	for _, c := range p.Containers {
		for _, cb := range c.Callbacks {
			if !seen[cb.Pos] {
				seen[cb.Pos] = true
				errs = append(errs, p.misspeltIn(cb.Pos)...)
			}
		}
	}
	return errs
}

// misspeltIn looks at the function defined at pos.
func (p *Pod) misspeltIn(pos syntax.Position) (errs []error) {
	text, ok := p.Text(pos.Filename())
	if !ok {
		return nil
	}
	f, err := policy.Options.Parse(pos.Filename(), dotload.Allow(pos.Filename(), text), 0)
	if err != nil {
		return nil
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.DefStmt:
			if n.Def.Line == pos.Line && n.Def.Col == pos.Col {
				for _, stmt := range n.Body {
					errs = append(errs, p.attributes(n.Params, stmt)...)
				}
			}
		case *syntax.LambdaExpr:
			if n.Lambda.Line == pos.Line && n.Lambda.Col == pos.Col {
				errs = append(errs, p.attributes(n.Params, n.Body)...)
			}
		}
		return true
	})
	return errs
}

// attributes are the unknown attributes of the only parameter in body.
func (p *Pod) attributes(params []syntax.Expr, body syntax.Node) (errs []error) {
	if len(params) != 1 {
		return nil
	}
	ctx, ok := params[0].(*syntax.Ident)
	if !ok {
		return nil
	}
	syntax.Walk(body, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.DefStmt, *syntax.LambdaExpr, *syntax.Comprehension:
			return false // may have a name ctx of its own
		case *syntax.DotExpr:
			x, isName := n.X.(*syntax.Ident)
			if !isName || x.Name != ctx.Name {
				return true
			}
			known := config.ContextAttributes()
			if name := strings.Replace(n.Name.Name, dotload.Word, "load", 1); !slices.Contains(known, name) {
				msg := fmt.Sprintf("%s has no .%s", ctx.Name, name)
				if near := value.Suggest(name, known); near != "" {
					msg += fmt.Sprintf(" (did you mean .%s?)", near)
				}
				errs = append(errs, &Error{Pos: n.Name.NamePos, Msg: msg, Hint: "it has " + strings.Join(known, ", ")})
			}
		}
		return true
	})
	return errs
}
