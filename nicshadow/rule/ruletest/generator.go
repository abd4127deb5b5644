// Package ruletest makes programs and frames for tests of what runs programs,
// and finds the smallest case of a disagreement.
package ruletest

import (
	"math/rand/v2"
	"slices"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A Generator writes random units. Most verify; they use every operation, and
// values that random keys hit often.
type Generator struct {
	// R is where all choices come from.
	R *rand.Rand
	u rule.Unit
	// written are the registers written on every path: a generator sets some
	// of them first and then only those.
	regs []uint8
}

// New is a generator that makes the same for the same seed.
func New(seed uint64) *Generator {
	return &Generator{R: rand.New(rand.NewPCG(seed, 7))}
}

// few numbers, so that equalities hold now and then
func (g *Generator) value() uint64 {
	switch g.R.IntN(4) {
	case 0:
		return g.R.Uint64()
	case 1:
		return uint64(g.R.IntN(300))
	default:
		return uint64(g.R.IntN(4))
	}
}

func (g *Generator) constant(width int) rule.Const {
	c := rule.Const{Lo: g.value()}
	if width == 128 {
		c.Hi = g.value()
	} else if width < 64 {
		c.Lo &= 1<<width - 1
	}
	return c
}

func (g *Generator) mask(width int) rule.Const {
	m := g.constant(width)
	if g.R.IntN(3) > 0 { // a prefix
		n := g.R.IntN(width + 1)
		m = rule.Const{Lo: ^uint64(0), Hi: ^uint64(0)}
		if width == 128 {
			if n < 64 {
				m = rule.Const{Hi: ^uint64(0) << (64 - n)}
			} else {
				m.Lo <<= 128 - n
			}
		} else {
			m = rule.Const{Lo: ^uint64(0) << (width - n) & (1<<width - 1)}
		}
	}
	return m
}

// field is a field that all classes have, or, where one is given, that it has.
func (g *Generator) field(c frame.Class, fits func(frame.Field) bool) frame.Field {
	for {
		f := frame.Field(1 + g.R.IntN(int(frame.NumFields)-1))
		if fits(f) && c.Has(f) {
			return f
		}
	}
}

func and(a, b rule.Const) rule.Const { return rule.Const{Hi: a.Hi & b.Hi, Lo: a.Lo & b.Lo} }

// Unit is a random unit for frames of class c, of about n instructions.
func (g *Generator) Unit(c frame.Class, n int) *rule.Unit {
	g.u = rule.Unit{
		Whys: []rule.Why{{Kind: rule.WhyGuard, Name: "guard"}, {Kind: rule.WhyPredicate, Name: "allow"}},
	}
	g.tables()
	g.u.Limits = []rule.Limit{{Name: "a 1/s", Period: 1e9, Burst: 1}, {Name: "b", Period: 1e6, Burst: 3}}
	for r := range rule.NumRegs {
		if g.R.IntN(2) == 0 {
			g.u.Insns = append(g.u.Insns, rule.Insn{Op: rule.OpLoadI, A: uint8(r), K: uint32(g.R.IntN(9) - 4)})
			g.regs = append(g.regs, uint8(r))
		}
	}
	for range n {
		g.u.Insns = append(g.u.Insns, g.insn(c))
	}
	// Returns in between and at the end; jumps to anywhere ahead.
	for range 3 {
		g.u.Insns = append(g.u.Insns, rule.Insn{Op: rule.OpRet, A: uint8(g.R.IntN(3)), K: uint32(g.R.IntN(2))})
	}
	for pc := range g.u.Insns {
		in := &g.u.Insns[pc]
		if left := len(g.u.Insns) - 1 - (pc + 1); in.Op.IsTest() && left > 0 {
			in.Off = uint16(g.R.IntN(min(left+1, 12)))
			if g.R.IntN(3) == 0 { // to the returns
				in.Off = uint16(left - g.R.IntN(3))
			}
		}
	}
	return g.connect(c)
}

// connect sends class c to the first instruction and all others to the last,
// and makes the middle return reachable.
func (g *Generator) connect(c frame.Class) *rule.Unit {
	n := len(g.u.Insns)
	for i := frame.ClassNone + 1; i < frame.NumClasses; i++ {
		g.u.Entries[i] = uint32(n - 1)
	}
	g.u.Entries[c] = 0
	g.u.Entries[(c+1)%frame.NumClasses] = uint32(n - 2)
	g.u.Entries[(c+2)%frame.NumClasses] = uint32(n - 3)
	g.u.Entries[frame.ClassNone] = 0
	g.u.Entries[c] = 0
	if g.R.IntN(3) == 0 {
		g.u.Ingress = slices.Clone(g.u.Entries[:])
		g.u.Ingress[(c+3)%frame.NumClasses] = uint32(n - 3)
		g.u.Ingress[frame.ClassNone] = 0
	}
	return &g.u
}

func (g *Generator) tables() {
	for k := rule.TableExact64; k <= rule.TablePrefix128; k++ {
		for _, n := range []int{g.R.IntN(6), 40} {
			t := rule.Table{Kind: k}
			for range n {
				switch k {
				case rule.TableExact64:
					t.Values = append(t.Values, g.constant(64))
				case rule.TableExact128:
					t.Values = append(t.Values, g.constant(128))
				case rule.TablePrefix32:
					t.Prefixes = append(t.Prefixes, rule.Prefix{Value: g.constant(32), Bits: uint8(g.R.IntN(33))})
				case rule.TablePrefix128:
					t.Prefixes = append(t.Prefixes, rule.Prefix{Value: g.constant(128), Bits: uint8(g.R.IntN(129))})
				}
			}
			g.u.Tables = append(g.u.Tables, t)
		}
	}
}

// push adds constants and returns the index of the first.
func (g *Generator) push(cs ...rule.Const) uint32 {
	g.u.Consts = append(g.u.Consts, cs...)
	return uint32(len(g.u.Consts) - len(cs))
}

func (g *Generator) insn(c frame.Class) rule.Insn {
	any := func(frame.Field) bool { return true }
	width := func(least, most int) func(frame.Field) bool {
		return func(f frame.Field) bool { return f.Width() >= least && f.Width() <= most }
	}
	if len(g.regs) > 0 && g.R.IntN(4) == 0 {
		return g.register(c, width)
	}
	if g.R.IntN(6) == 0 {
		switch op := rule.OpTestRate + rule.Op(g.R.IntN(4)); op {
		case rule.OpTestRate:
			return rule.Insn{Op: op, K: uint32(g.R.IntN(2))}
		case rule.OpTestLease:
			return rule.Insn{Op: op, A: uint8(g.field(c, func(f frame.Field) bool {
				return f.Kind() == frame.KindIPv4 || f.Kind() == frame.KindIPv6 || !c.Has(frame.IPv4Src) && !c.Has(frame.IPv6Src) && c != frame.ClassARP
			}))}
		default:
			return rule.Insn{Op: op}
		}
	}
	op := rule.OpTestEq + rule.Op(g.R.IntN(int(rule.OpTestNotI-rule.OpTestEq)+1))
	in := rule.Insn{Op: op}
	f := g.field(c, any)
	switch op {
	case rule.OpTestEq, rule.OpTestNe, rule.OpTestLt, rule.OpTestLe, rule.OpTestGt, rule.OpTestGe:
		f = g.field(c, width(1, 32))
		in.K = uint32(g.constant(f.Width()).Lo)
	case rule.OpTestRange:
		f = g.field(c, width(1, 16))
		lo, hi := uint32(g.constant(f.Width()).Lo), uint32(g.constant(f.Width()).Lo)
		in.K = min(lo, hi) | max(lo, hi)<<16
	case rule.OpTestEqC, rule.OpTestNeC:
		in.K = g.push(g.constant(f.Width()))
	case rule.OpTestMask, rule.OpTestNMask:
		m := g.mask(f.Width())
		in.K = g.push(and(g.constant(f.Width()), m), m)
	case rule.OpTestEqF, rule.OpTestNeF:
		in.K = uint32(g.field(c, width(f.Width(), f.Width())))
	case rule.OpTestRow:
		var row rule.Row
		for range 1 + g.R.IntN(rule.MaxRow) {
			f := g.field(c, any)
			m := g.mask(f.Width())
			row = append(row, rule.Match{Field: f, Mask: m, Value: and(g.constant(f.Width()), m)})
		}
		g.u.Rows = append(g.u.Rows, row)
		in.K = uint32(len(g.u.Rows) - 1)
		return in
	case rule.OpTestIn, rule.OpTestNotI:
		in.K = g.table(f)
	}
	in.A = uint8(f)
	return in
}

// table is the index of a table that suits f.
func (g *Generator) table(f frame.Field) uint32 {
	pick := uint32(g.R.IntN(2))
	switch {
	case f.Width() == 128:
		return 2 + uint32(g.R.IntN(2))*4 + pick
	case f.Kind() == frame.KindIPv4 && g.R.IntN(2) == 0:
		return 4 + pick
	}
	return pick
}

func (g *Generator) register(c frame.Class, width func(int, int) func(frame.Field) bool) rule.Insn {
	reg := func() uint8 { return g.regs[g.R.IntN(len(g.regs))] }
	in := rule.Insn{Op: rule.OpLoadF + rule.Op(g.R.IntN(int(rule.OpTestRIn-rule.OpLoadF+1))), A: reg()}
	switch in.Op {
	case rule.OpLoadF:
		in.K = uint32(g.field(c, width(1, 48)))
	case rule.OpLoadI:
		in.K = uint32(g.value())
	case rule.OpLoadC:
		in.K = g.push(g.constant(64))
	case rule.OpNeg, rule.OpNot:
	case rule.OpTestRIn:
		in.K = uint32(g.R.IntN(2))
	default:
		in.K = uint32(reg())
	}
	return in
}

// Key is a random key of class c, with values as the generator's constants.
func (g *Generator) Key(c frame.Class) *frame.Key {
	k := new(frame.Key)
	for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
		if !c.Has(f) {
			continue
		}
		v := g.constant(f.Width())
		Set(k, f, v.Hi, v.Lo)
	}
	k.Words[frame.ClassWord] |= uint64(c)
	return k
}
