package lint

import (
	"strings"

	gostarlark "go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/starlark"
	"sekimori/starlark/policy"
)

// A judged function is a predicate as all policies of the pod know it.
type judged struct {
	name    string
	fn      *gostarlark.Function
	yes, no bool // some frame gets this answer
	lines   map[int]bool
}

// predicates finds, for each predicate that is a function, returns that no frame
// gets to and answers that are always the same.
func predicates(p *starlark.Pod, trees map[string]*syntax.File) ([]Finding, error) {
	all := map[syntax.Position]*judged{}
	var order []syntax.Position
	for _, pol := range policies(p) {
		js, err := pol.policy.Judgings(pol.card)
		if err != nil {
			return nil, err
		}
		for _, j := range js {
			if j.Fn == nil {
				continue
			}
			pos := j.Fn.Position()
			fn := all[pos]
			if fn == nil {
				fn = &judged{name: j.Name, fn: j.Fn, lines: map[int]bool{}}
				all[pos], order = fn, append(order, pos)
			}
			fn.add(&j)
		}
	}
	var out []Finding
	for _, pos := range order {
		if f := trees[pos.Filename()]; f != nil {
			out = append(out, all[pos].findings(f)...)
		}
	}
	return out, nil
}

// A carded policy is one and a card that it is for.
type carded struct {
	policy *policy.Policy
	card   policy.Identity
}

// policies are those of the containers and those that callbacks can load.
func policies(p *starlark.Pod) []carded {
	var out []carded
	card := policy.Identity{MAC: frame.MAC{2, 0, 0, 0, 0, 2}}
	for _, c := range p.Containers {
		if c.Policy != nil && c.Spec.NIC != nil {
			card = c.Identity()
			out = append(out, carded{c.Policy, card})
		}
	}
	for _, pol := range p.Policies {
		out = append(out, carded{pol, card})
	}
	return out
}

func (j *judged) add(from *policy.Judging) {
	for _, e := range from.Endings {
		if e.Kind == rule.WhyFragment { // for want of a field, not an answer
			continue
		}
		if e.Verdict == rule.Forward {
			j.yes = true
		} else {
			j.no = true
		}
		if e.File == j.fn.Position().Filename() {
			j.lines[e.Line] = true
		}
	}
}

// findings are what is to be said of one function.
func (j *judged) findings(f *syntax.File) []Finding {
	pos := j.fn.Position()
	body, params := functionAt(f, pos)
	if body == nil {
		return nil
	}
	var out []Finding
	returns := returnsOf(body, params)
	dead := 0
	for _, r := range returns {
		if r.configured || j.reached(r.stmt) {
			continue
		}
		dead++
		out = append(out, at(r.stmt.Return, "dead-branch", "what stands before it decides every frame that gets here", "%s: no frame gets to this return", j.name))
	}
	if dead == 0 && !configuredAnywhere(returns) && j.yes != j.no && len(params) > 0 {
		answer := "False"
		if j.yes {
			answer = "True"
		}
		out = append(out, at(pos, "constant-predicate", "if that is meant, write "+j.name+" = "+answer, "%s is %s for every frame", j.name, answer))
	}
	return out
}

func (j *judged) reached(r *syntax.ReturnStmt) bool {
	start, end := r.Span()
	for line := int(start.Line); line <= int(end.Line); line++ {
		if j.lines[line] {
			return true
		}
	}
	return false
}

func configuredAnywhere(rs []returned) bool {
	for _, r := range rs {
		if r.configured {
			return true
		}
	}
	return false
}

// A returned is a return statement of a predicate.
type returned struct {
	stmt *syntax.ReturnStmt
	// configured is set where it hangs on a condition without a field: on what
	// the file is configured to, not on the frame.
	configured bool
}

// functionAt finds the body and the names of the parameters of the function
// defined at pos; a lambda's body is nil: it is one expression.
func functionAt(f *syntax.File, pos syntax.Position) (body []syntax.Stmt, params map[string]bool) {
	syntax.Walk(f, func(n syntax.Node) bool {
		def, ok := n.(*syntax.DefStmt)
		if !ok || def.Def.Line != pos.Line && def.Name.NamePos.Line != pos.Line {
			return true
		}
		body, params = def.Body, map[string]bool{}
		for _, p := range def.Params {
			if id, ok := p.(*syntax.Ident); ok { // with a default it is a constant, most likely
				params[id.Name] = true
			}
		}
		return false
	})
	return body, params
}

// returnsOf lists the returns of a body, not those of functions inside it.
func returnsOf(body []syntax.Stmt, params map[string]bool) []returned {
	w := &walker{frame: map[string]bool{}}
	for name := range params {
		w.frame[name] = true
	}
	w.stmts(body, false)
	return w.out
}

// A walker follows which names depend on the frame.
type walker struct {
	frame map[string]bool
	out   []returned
}

// stmts walks statements; it returns whether what follows them hangs on a
// condition without a field.
func (w *walker) stmts(stmts []syntax.Stmt, configured bool) bool {
	for _, s := range stmts {
		switch s := s.(type) {
		case *syntax.ReturnStmt:
			w.out = append(w.out, returned{s, configured})
		case *syntax.AssignStmt:
			w.assign(s.LHS, w.depends(s.RHS) || s.Op != syntax.EQ && w.depends(s.LHS))
		case *syntax.IfStmt:
			config := configured || !w.depends(s.Cond)
			a, b := w.stmts(s.True, config), w.stmts(s.False, config)
			configured = configured || a || b || config
		case *syntax.ForStmt:
			w.assign(s.Vars, w.depends(s.X))
			// How often it runs is a matter of the constant it runs over.
			w.stmts(s.Body, true)
		}
	}
	return configured
}

// assign notes whether the names of a target depend on the frame.
func (w *walker) assign(target syntax.Expr, depends bool) {
	for name := range identifiersOf(target) {
		w.frame[name] = w.frame[name] || depends
	}
}

func (w *walker) depends(e syntax.Expr) bool {
	for name := range identifiersOf(e) {
		if w.frame[name] || strings.HasPrefix(name, "allow_") || name == "rate" || name == "established" || name == "answered" {
			return true
		}
	}
	return false
}
