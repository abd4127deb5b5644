package ebpf_test

import (
	"os"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ebpf"
	"sekimori/nicshadow/rule/ruletest"
)

func load(t testing.TB, p *rule.Program) *ebpf.Executor {
	t.Helper()
	x, err := ebpf.Load(p)
	if err != nil {
		t.Fatalf("Load: %+v\n%s", err, rule.Disassemble(p))
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// agree holds both to the same answers. A disagreement is shown as its
// smallest case.
func agree(t testing.TB, p *rule.Program, turns []ruletest.Turn) {
	t.Helper()
	first := ruletest.Disagree(p, turns, load(t, p).Judge)
	if first == nil {
		return
	}
	small := ruletest.Minimise(ruletest.Case{Unit: p.Unit(), Turns: turns}, func(p *rule.Program, turns []ruletest.Turn) bool {
		x, err := ebpf.Load(p)
		if err != nil {
			return false
		}
		defer x.Close()
		return ruletest.Disagree(p, turns, x.Judge) != nil
	})
	t.Fatalf("%v; the smallest case:\n%v", first, small)
}

// turns are random frames, most of class c, some of them answers to others.
func turns(g *ruletest.Generator, c frame.Class, n int) []ruletest.Turn {
	out, now := make([]ruletest.Turn, n), int64(1)
	for i := range out {
		class := c
		if g.R.IntN(8) == 0 {
			class = frame.Class(g.R.IntN(int(frame.NumClasses)))
		}
		now += []int64{0, 1, 3e5, 1e9, 2e9, 40e9}[g.R.IntN(6)]
		out[i] = ruletest.Turn{Key: *g.Key(class), Now: now, Ingress: g.R.IntN(3) == 0}
		if i > 0 && g.R.IntN(2) == 0 {
			earlier := out[max(0, i-1-g.R.IntN(4))]
			out[i].Key, out[i].Ingress = *ruletest.Reversed(&earlier.Key), !earlier.Ingress
		}
	}
	return out
}

func random(t testing.TB, seed uint64, class, n uint8) (verified bool) {
	g := ruletest.New(seed)
	c := 1 + frame.Class(class)%(frame.NumClasses-1)
	p, err := rule.New(g.Unit(c, 1+int(n%64)))
	if err != nil {
		return false
	}
	agree(t, p, turns(g, c, 40))
	return true
}

// Random programs: interpreter and kernel give the same verdict at the same
// instruction.
func TestRandomPrograms(t *testing.T) {
	require(t)
	seeds, verified := 1500, 0
	if testing.Short() {
		seeds = 300
	}
	for seed := range seeds {
		t.Run("", func(t *testing.T) {
			if random(t, uint64(seed), uint8(seed%15), uint8(2+seed%30)) {
				verified++
			}
		})
	}
	if verified < seeds/2 {
		t.Errorf("only %d of %d programs verified: the generator is of no use", verified, seeds)
	}
}

// FuzzRandomPrograms is TestRandomPrograms without end.
func FuzzRandomPrograms(f *testing.F) {
	require(f)
	f.Add(uint64(1), uint8(3), uint8(20))
	f.Fuzz(func(t *testing.T, seed uint64, class, n uint8) { random(t, seed, class, n) })
}

// FuzzDecode: whatever is a program, the kernel runs, and answers as the
// interpreter does.
func FuzzDecode(f *testing.F) {
	require(f)
	for seed := range uint64(30) {
		g := ruletest.New(seed)
		if p, err := rule.New(g.Unit(1+frame.Class(seed)%(frame.NumClasses-1), 12)); err == nil {
			f.Add(p.Bytes(), seed)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if p, err := rule.Decode(b); err == nil {
			g := ruletest.New(seed)
			agree(t, p, turns(g, 1+frame.Class(seed)%(frame.NumClasses-1), 20))
		}
	})
}

// Every program of testdata/rule, on random frames of each class.
func TestGoldenPrograms(t *testing.T) {
	require(t)
	for _, name := range []string{"bench.s", "all.s"} {
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile("../../../testdata/rule/" + name)
			if err != nil {
				t.Fatal(err)
			}
			u, err := rule.Assemble(string(src))
			if err != nil {
				t.Fatal(err)
			}
			p, err := rule.New(u)
			if err != nil {
				t.Fatal(err)
			}
			g := ruletest.New(1)
			for c := frame.ClassNone; c < frame.NumClasses; c++ {
				agree(t, p, turns(g, c, 60))
			}
		})
	}
}
