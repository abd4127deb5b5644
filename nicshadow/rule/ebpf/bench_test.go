package ebpf_test

import (
	"math/rand/v2"
	"os"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ebpf"
	"sekimori/nicshadow/rule/ruletest"
)

var sink rule.Outcome

// benchProgram is the policy of the interpreter's benchmarks.
func benchProgram(b *testing.B) *rule.Program {
	b.Helper()
	src, err := os.ReadFile("../../../testdata/rule/bench.s")
	if err != nil {
		b.Fatal(err)
	}
	u, err := rule.Assemble(string(src))
	if err != nil {
		b.Fatal(err)
	}
	return program(b, u)
}

// side measures a judgement of k in the kernel beside one of the interpreter.
func side(b *testing.B, name string, p *rule.Program, x *ebpf.Executor, k *frame.Key) {
	b.Run(name+"/kernel", func(b *testing.B) {
		o, each, err := x.Repeat(k, 1, false, b.N)
		if err != nil || o != p.Run(k) {
			b.Fatalf("%v, %v; want %v", o, err, p.Run(k))
		}
		b.ReportMetric(float64(each.Nanoseconds()), "ns/op")
	})
	b.Run(name+"/interpreter", func(b *testing.B) {
		for b.Loop() {
			sink = p.Run(k)
		}
	})
}

// BenchmarkJudge is a judgement of a parsed frame: of no class, which is what
// the kernel's loop costs by itself; of a class whose first test decides; and
// by the longest way of the policy.
func BenchmarkJudge(b *testing.B) {
	require(b)
	p := benchProgram(b)
	x := load(b, p)
	g, longest, k := ruletest.New(1), 0, new(frame.Key)
	for range 2000 {
		steps, try := 0, g.Key(frame.ClassIPv4TCP)
		if p.Trace(try, func(int, bool) { steps++ }); steps > longest {
			longest, k = steps, try
		}
	}
	side(b, "none", p, x, new(frame.Key))
	side(b, "first", p, x, ruletest.New(1).Key(frame.ClassOther))
	side(b, "tcp", p, x, k)
}

// BenchmarkTable is a search among 100,000 entries, for one that is there.
func BenchmarkTable(b *testing.B) {
	require(b)
	for name, kind := range kinds {
		r := rand.New(rand.NewPCG(1, uint64(kind)))
		p := program(b, tableOf(r, kind, 100_000))
		side(b, name, p, load(b, p), &probes(r, &p.Unit().Tables[0], 4)[3])
	}
}

// BenchmarkLoad is translating, verifying and compiling the policy.
func BenchmarkLoad(b *testing.B) {
	require(b)
	p := benchProgram(b)
	for b.Loop() {
		x, err := ebpf.Load(p)
		if err != nil {
			b.Fatal(err)
		}
		x.Close()
	}
}
