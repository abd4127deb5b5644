package main

import (
	_ "embed"
	"fmt"
	"net/netip"

	"go.starlark.net/starlark"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"
)

//go:embed policy.star
var policySource []byte

// identity is the card of the measurement.
var identity = policy.Identity{MAC: ownMAC, Addrs: []netip.Addr{own}}

// evaluate runs policy.star and returns the policy of that name.
func evaluate(source []byte, name string) (*policy.Policy, error) {
	src := policy.NewSources(value.Builtins())
	globals, err := src.Exec(&starlark.Thread{Name: "bench"}, "policy.star", source)
	if err != nil {
		return nil, err
	}
	p, ok := globals[name].(*policy.Policy)
	if !ok {
		return nil, fmt.Errorf("policy.star: %s is no policy", name)
	}
	return p, nil
}

// compile is all of the way from Starlark source to verified program.
func compile(source []byte, name string) (*rule.Program, error) {
	p, err := evaluate(source, name)
	if err != nil {
		return nil, err
	}
	return p.Compile(identity)
}

// sekiEngines are ours: the policy as the peers have it, the same behind the
// default guards, and that within the table of the data path, which counts.
func sekiEngines() ([]engine, error) {
	bare, err := compile(policySource, "bare")
	if err != nil {
		return nil, err
	}
	guarded, err := compile(policySource, "guarded")
	if err != nil {
		return nil, err
	}
	table, err := tableWith(guarded)
	if err != nil {
		return nil, err
	}
	judgement := new(nicshadow.Judgement)
	return []engine{
		{ours, parseAndRun(bare)},
		{"seki, guards on", parseAndRun(guarded)},
		{"seki, guards, counters", func(b []byte) bool { return table.Judge(1, b, judgement) }},
	}, nil
}

func parseAndRun(p *rule.Program) func([]byte) bool {
	k := new(frame.Key)
	return func(b []byte) bool {
		return frame.Parse(b, k) == frame.OK && p.Run(k).Verdict == rule.Forward
	}
}

// tableWith is a table where sender 1 is judged by p.
func tableWith(p *rule.Program) (*nicshadow.Table, error) {
	t := nicshadow.NewTable()
	if err := t.Register(1, "bench"); err != nil {
		return nil, err
	}
	hash, err := t.Load(1, p.Bytes())
	if err != nil {
		return nil, err
	}
	return t, t.Swap(1, hash, nicshadow.Enforce)
}
