package policy

import (
	"fmt"

	"sekimori/nicshadow/rule"
)

// overBudget is the error of a policy whose program may take more steps than
// its budget, at the predicate that takes the most.
func (c *compiler) overBudget(p *Policy, id Identity, steps int) error {
	e := &Error{Pos: p.callPos, Name: "policy", Hint: "search collections with `in`, or raise the budget", Arg: "budget"}
	most := 0
	for w := range p.ways {
		for q, r := range p.ways[w].preds {
			if r.fn == nil {
				continue
			}
			if n := c.stepsAlone(p, way(w), pred(q), id); n > most {
				most = n
				e.Pos, e.Name, e.Arg = r.fn.Position(), pred(q).String(), ""
			}
		}
	}
	e.Msg = fmt.Sprintf("a frame may take %d steps, the budget is %d", steps, p.budget)
	if most > 0 {
		e.Msg += fmt.Sprintf("; this alone takes %d", most)
	}
	return e
}

// stepsAlone is how many steps a predicate takes by itself.
func (c *compiler) stepsAlone(p *Policy, w way, q pred, id Identity) int {
	one := Policy{sources: p.sources, judgeIn: w == ingress, off: allGuards, pos: p.pos, callPos: p.callPos}
	one.ways[w].preds[q], one.ways[w].present = p.ways[w].preds[q], 1<<q
	c.reset(&one)
	u, err := c.unit(&one, id)
	if err != nil {
		return 0
	}
	prog, err := rule.New(u)
	if err != nil {
		return 0
	}
	return prog.MaxSteps()
}
