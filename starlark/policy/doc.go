// Package policy compiles the predicates of a .star file into programs of the
// rule machine.
//
//	src := policy.NewSources(value.Builtins())
//	globals, err := src.Exec(thread, "web.star", data) // runs policy(...)
//	prog, err := globals["POLICY"].(*policy.Policy).Compile(id)
//
// A predicate is an ordinary Starlark function whose parameters are fields of
// the frame, bound by name. It is compiled by evaluating it symbolically: what
// does not depend on the frame is computed by Starlark itself, what does is a
// decision tree (graph.go). The road is
//
//	Sources.Exec   parse, put our comparisons in the operators' place, resolve, run
//	policy()       check names and parameters, freeze what is captured
//	Compile        per predicate and family: evaluate (compiler, expr, relation,
//	               members, seq, call, stmt); per class: guards and layers
//	               (compile), take out known tests (simplify), instructions
//	               (plan, lower)
//
// [Policy.Judge] answers the same questions without any of this, by calling
// the predicates in the interpreter; tests hold the two equal.
package policy
