package ruletest_test

import (
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ruletest"
)

// Of a random program, a dozen frames and an executor that takes <= for < that
// one test is left, and returns, and a frame. Where only arithmetic on
// registers tells the two apart, a little more is.
func TestMinimise(t *testing.T) {
	wrong := func(p *rule.Program, turns []ruletest.Turn) bool {
		u := p.Unit()
		for i := range u.Insns {
			if u.Insns[i].Op == rule.OpTestLe {
				u.Insns[i].Op = rule.OpTestLt
			}
		}
		q, err := rule.New(u)
		if err != nil {
			t.Fatal(err)
		}
		for i := range turns {
			if q.Run(&turns[i].Key) != p.Run(&turns[i].Key) {
				return true
			}
		}
		return false
	}
	cases, least := 0, 0
	for seed := range uint64(400) {
		g := ruletest.New(seed)
		c := 1 + frame.Class(g.R.IntN(int(frame.NumClasses)-1))
		u := g.Unit(c, 30)
		p, err := rule.New(u)
		if err != nil {
			continue
		}
		var turns []ruletest.Turn
		for range 12 {
			turns = append(turns, ruletest.Turn{Key: *g.Key(c)})
		}
		if !wrong(p, turns) {
			continue
		}
		cases++
		small := ruletest.Minimise(ruletest.Case{Unit: p.Unit(), Turns: turns}, wrong)
		q, err := rule.New(small.Unit)
		if err != nil {
			t.Fatal(err)
		}
		if !wrong(q, small.Turns) {
			t.Errorf("seed %d: the smallest case is none:\n%v", seed, small)
		}
		if len(small.Turns) != 1 || q.Len() > 10 {
			t.Errorf("seed %d: %d frames, %d instructions; want 1 and 10 at most:\n%v", seed, len(small.Turns), q.Len(), small)
		}
		if q.Len() <= 5 {
			least++
		}
	}
	if cases < 10 || least < cases*3/4 {
		t.Errorf("%d cases, of which %d became five instructions or less", cases, least)
	}
}
