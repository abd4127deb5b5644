package rule_test

import (
	"bytes"
	"testing"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ruletest"
)

// check holds a program against everything that is true of all programs.
func check(t testing.TB, p *rule.Program, g *ruletest.Generator) {
	t.Helper()
	state, now := p.NewState(nil), int64(1)
	for c := frame.ClassNone; c < frame.NumClasses; c++ {
		for range 8 {
			k := g.Key(c)
			steps, last := 0, -1
			want := p.Trace(k, func(pc int, holds bool) {
				if pc <= last || pc >= p.Len() {
					t.Fatalf("Trace: pc %d behind %d, of %d", pc, last, p.Len())
				}
				steps, last = steps+1, pc
			})
			if steps > p.MaxSteps() || p.MaxSteps() > p.Len() {
				t.Fatalf("%d steps, MaxSteps %d, Len %d", steps, p.MaxSteps(), p.Len())
			}
			if got := p.Run(k); got != want {
				t.Fatalf("class %v: Run = %+v, Trace = %+v\n%s", c, got, want, rule.Disassemble(p))
			}
			for _, ingress := range []bool{false, true} {
				now += 3e5
				m := rule.Moment{State: state, Now: now, Ingress: ingress}
				got := p.RunAt(k, &m)
				if want := p.TraceAt(k, &m, func(int, bool) {}); got != want {
					t.Fatalf("class %v, ingress %v: RunAt = %+v, TraceAt = %+v\n%s", c, ingress, got, want, rule.Disassemble(p))
				}
				if got.Verdict.Passes() {
					m.Passed(k)
				}
			}
		}
	}
}

// same holds a program against its encoding and its text.
func same(t testing.TB, p *rule.Program) {
	t.Helper()
	b := p.Bytes()
	q, err := rule.Decode(b)
	if err != nil {
		t.Fatalf("Decode(Bytes): %v", err)
	}
	if !bytes.Equal(q.Bytes(), b) || q.Hash() != p.Hash() {
		t.Fatal("Decode(Bytes) has other bytes")
	}
	n, err := rule.New(p.Unit())
	if err != nil {
		t.Fatalf("New(Unit): %v", err)
	}
	if !bytes.Equal(n.Bytes(), b) {
		t.Fatal("New(Unit) has other bytes: two encodings of one program")
	}
	text := rule.Disassemble(p)
	u, err := rule.Assemble(text)
	if err != nil {
		t.Fatalf("Assemble(Disassemble): %v\n%s", err, text)
	}
	a, err := rule.New(u)
	if err != nil {
		t.Fatalf("New(Assemble(Disassemble)): %v\n%s", err, text)
	}
	if !bytes.Equal(a.Bytes(), b) {
		t.Fatalf("Assemble(Disassemble) has other bytes:\n%s\n%s", text, rule.Disassemble(a))
	}
}

// Random programs: Run agrees with Trace, and bytes and text read back.
func TestRandomPrograms(t *testing.T) {
	verified := 0
	for seed := range uint64(6000) {
		g := ruletest.New(seed)
		c := 1 + frame.Class(g.R.IntN(int(frame.NumClasses)-1))
		p, err := rule.New(g.Unit(c, 2+g.R.IntN(30)))
		if err != nil {
			continue
		}
		verified++
		check(t, p, g)
		if seed%16 == 0 {
			same(t, p)
		}
	}
	if verified < 1000 {
		t.Errorf("only %d of 6000 programs verified: the generator is of no use", verified)
	}
	t.Logf("%d programs verified", verified)
}

// FuzzDecode: an error or a program; a program ends within its length,
// whichever way it is run, and has one encoding.
func FuzzDecode(f *testing.F) {
	for seed := range uint64(40) {
		g := ruletest.New(seed)
		c := 1 + frame.Class(g.R.IntN(int(frame.NumClasses)-1))
		if p, err := rule.New(g.Unit(c, 2+g.R.IntN(12))); err == nil {
			f.Add(p.Bytes(), seed)
		}
	}
	f.Add(benchProgram(f).Bytes(), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		p, err := rule.Decode(b)
		if (p == nil) == (err == nil) {
			t.Fatalf("Decode = %v, %v", p, err)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(p.Bytes(), b) {
			t.Fatal("Bytes are not those decoded")
		}
		same(t, p)
		check(t, p, ruletest.New(seed))
	})
}

// FuzzRandomPrograms is TestRandomPrograms without end.
func FuzzRandomPrograms(f *testing.F) {
	f.Add(uint64(1), uint8(3), uint8(20))
	f.Fuzz(func(t *testing.T, seed uint64, class, n uint8) {
		g := ruletest.New(seed)
		c := 1 + frame.Class(class)%(frame.NumClasses-1)
		p, err := rule.New(g.Unit(c, 1+int(n%64)))
		if err != nil {
			return
		}
		check(t, p, g)
	})
}

func TestRunAllocatesNothing(t *testing.T) {
	g := ruletest.New(3)
	p := benchProgram(t)
	keys := []*frame.Key{g.Key(frame.ClassARP), g.Key(frame.ClassIPv4TCP), g.Key(frame.ClassOther)}
	if n := testing.AllocsPerRun(100, func() {
		for _, k := range keys {
			sink = p.Run(k)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for seed := range uint64(200) {
		g := ruletest.New(seed)
		p, err := rule.New(g.Unit(frame.ClassIPv6NDP, 20))
		if err != nil {
			continue
		}
		k := g.Key(frame.ClassIPv6NDP)
		if n := testing.AllocsPerRun(10, func() { sink = p.Run(k) }); n != 0 {
			t.Errorf("seed %d: %v allocations", seed, n)
		}
	}
}

// The key of a frame that was not parsed drops, whatever the program says.
func TestNoClassDrops(t *testing.T) {
	p := assemble(t, `.entry arp other ipv4-tcp ipv4-udp ipv4-dhcp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment
		ret forward, predicate "all"`)
	for _, word := range []uint64{0, uint64(frame.NumClasses), 17, 31, 255} {
		var k frame.Key
		k.Words[frame.ClassWord] = word
		if o := p.Run(&k); o.Verdict != rule.Drop {
			t.Errorf("class %d: Run = %v", word, o)
		}
		if o := p.Trace(&k, func(int, bool) {}); o.Verdict != rule.Drop {
			t.Errorf("class %d: Trace = %v", word, o)
		}
	}
	k := ruletest.New(1).Key(frame.ClassARP)
	if o := p.Run(k); o.Verdict != rule.Forward {
		t.Errorf("arp: %v", o)
	}
}

// The largest program is prepared in time that grows with its length, and
// runs through: every instruction of it is a test of its own that goes on,
// either with a test of registers behind every fourth or without.
func TestLargestProgram(t *testing.T) {
	for _, registers := range []bool{false, true} {
		var insns []rule.Insn
		if registers {
			insns = append(insns, rule.Insn{Op: rule.OpLoadI, A: 1, K: 1})
		}
		for i := len(insns); i < rule.MaxInsns-2; i++ {
			in := rule.Insn{Op: rule.OpTestNe, A: uint8(frame.Length), K: uint32(i), Off: uint16(rule.MaxInsns - 2 - i)}
			switch {
			case registers && i%4 == 1:
				in = rule.Insn{Op: rule.OpAdd, A: 1, K: 1}
			case i%3 == 0:
				in.Off = uint16(i % 7) // to somewhere near
			}
			if in.Op != rule.OpAdd {
				in.Off = min(in.Off, uint16(rule.MaxInsns-2-i))
			}
			insns = append(insns, in)
		}
		insns = append(insns, rule.Insn{Op: rule.OpRet, A: 1}, ret)
		start := time.Now()
		p, err := rule.New(everywhere(insns...))
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > 3*time.Second { // 0.1 s measured
			t.Errorf("New takes %v", d)
		}
		g := ruletest.New(1)
		for range 20 {
			k := g.Key(frame.ClassOther)
			if got, want := p.Run(k), p.Trace(k, func(int, bool) {}); got != want {
				t.Errorf("Run = %v, Trace = %v", got, want)
			}
		}
	}
}

// Arithmetic is that of Starlark: division and remainder round towards minus
// infinity, shifts are arithmetic; what has no answer drops where it stands.
func TestArithmetic(t *testing.T) {
	const fault = 1 << 40
	tests := []struct {
		op      rule.Op
		a, b, v int64
	}{
		{rule.OpMove, 1, 7, 7},
		{rule.OpAdd, 3, -5, -2},
		{rule.OpSub, 3, 5, -2},
		{rule.OpMul, -3, 5, -15},
		{rule.OpDiv, 7, 2, 3},
		{rule.OpDiv, -7, 2, -4},
		{rule.OpDiv, 7, -2, -4},
		{rule.OpDiv, -7, -2, 3},
		{rule.OpDiv, -8, 2, -4},
		{rule.OpDiv, 1, 0, fault},
		{rule.OpMod, 7, 3, 1},
		{rule.OpMod, -7, 3, 2},
		{rule.OpMod, 7, -3, -2},
		{rule.OpMod, -6, 3, 0},
		{rule.OpMod, 1, 0, fault},
		{rule.OpAnd, -1, 12, 12},
		{rule.OpOr, 8, 4, 12},
		{rule.OpXor, 12, -1, -13},
		{rule.OpShl, 3, 4, 48},
		{rule.OpShl, 1, 64, fault},
		{rule.OpShl, 1, -1, fault},
		{rule.OpShr, -16, 2, -4},
		{rule.OpShr, 1, 63, 0},
		{rule.OpShr, 1, 64, fault},
		{rule.OpShr, 1, -1, fault},
		{rule.OpNeg, 5, 0, -5},
		{rule.OpNot, 5, 0, -6},
	}
	for _, tt := range tests {
		b := rule.Insn{Op: tt.op, A: 0, K: 1}
		if tt.op == rule.OpNeg || tt.op == rule.OpNot {
			b.K = 0
		}
		u := everywhere(
			rule.Insn{Op: rule.OpLoadI, A: 0, K: uint32(tt.a)},
			rule.Insn{Op: rule.OpLoadI, A: 1, K: uint32(tt.b)},
			rule.Insn{Op: rule.OpLoadI, A: 2, K: uint32(tt.v)},
			b,
			rule.Insn{Op: rule.OpTestREq, A: 0, K: 2, Off: 1},
			rule.Insn{Op: rule.OpRet, A: 1},
			ret,
		)
		p, err := rule.New(u)
		if err != nil {
			t.Fatal(err)
		}
		want := rule.Outcome{Verdict: rule.Forward, PC: 5}
		if tt.v == fault {
			want = rule.Outcome{Verdict: rule.Drop, PC: 3}
		}
		k := ruletest.New(1).Key(frame.ClassOther)
		if got := p.Run(k); got != want {
			t.Errorf("%v %d %d: Run = %v, want %v", tt.op, tt.a, tt.b, got, want)
		}
		if got := p.Trace(k, func(int, bool) {}); got != want {
			t.Errorf("%v %d %d: Trace = %v, want %v", tt.op, tt.a, tt.b, got, want)
		}
	}
	// The one quotient that does not fit wraps, and does not panic.
	u := everywhere(
		rule.Insn{Op: rule.OpLoadC, A: 0, K: 4},
		rule.Insn{Op: rule.OpLoadI, A: 1, K: 0xffffffff},
		rule.Insn{Op: rule.OpDiv, A: 0, K: 1},
		rule.Insn{Op: rule.OpMod, A: 0, K: 1},
		ret,
	)
	u.Consts = append(u.Consts, rule.Const{Lo: 1 << 63})
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Run(ruletest.New(1).Key(frame.ClassOther)); got.PC != 4 {
		t.Errorf("Run = %v", got)
	}
}

// Values beyond the field they are looked up for do not matter, even where
// they make one range with values within.
func TestTableWiderThanItsField(t *testing.T) {
	u := only(frame.ClassIPv4TCP,
		rule.Insn{Op: rule.OpTestIn, A: uint8(frame.SrcPort), Off: 1},
		rule.Insn{Op: rule.OpRet, A: 1})
	u.Tables = []rule.Table{{Kind: rule.TableExact64, Values: []rule.Const{{Lo: 65534}, {Lo: 65535}, {Lo: 65536}, {Lo: 1 << 60}}}}
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint64]rule.Verdict{65535: rule.Forward, 65534: rule.Forward, 65533: rule.Drop, 0: rule.Drop, 1: rule.Drop} {
		k := new(frame.Key)
		i := frame.SrcPort.Info()
		k.Words[i.Word] = port<<i.Shift | 0xffff // other bits of the word
		k.Words[frame.ClassWord] = uint64(frame.ClassIPv4TCP)
		if got := p.Run(k); got.Verdict != want {
			t.Errorf("port %d: %v, want %v", port, got, want)
		}
	}
}
