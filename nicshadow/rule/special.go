package rule

import "sekimori/nicshadow/frame"

// A special is what no lane can test.
type special struct {
	kind    specialKind
	field   place
	peer    place
	table   *searcher
	ops     []microOp
	op      Op    // of specialState
	bit     uint8 // likewise: what the answer is remembered as
	yes, no int32
}

type specialKind uint8

const (
	specialInvalid specialKind = iota
	specialTable               // field is in table
	specialPeer                // field equals peer
	specialRegs                // ops, the last of which may be a test
	specialState               // op, of what the program remembers
)

// A place is where a field lies in a key: (words[word]>>shift)&mask, or two
// whole words.
type place struct {
	word, shift uint8
	wide        bool
	mask        uint64
}

func placeOf(f frame.Field) place {
	i := f.Info()
	if i.Width == 128 {
		return place{word: i.Word, wide: true, mask: ^uint64(0)}
	}
	return place{word: i.Word, shift: i.Shift, mask: 1<<i.Width - 1}
}

// A microOp is an instruction on registers with what it reads at hand.
type microOp struct {
	op    Op
	a, b  uint8
	pc    int32
	imm   int64
	field place
	table *searcher
}

// fillSpecial makes special n of the instruction at pc.
func (p *preparer) fillSpecial(n, pc int) {
	in := p.u.Insns[pc]
	s := special{field: placeOf(frame.Field(in.A))}
	yes, no := pc+1, pc+1+int(in.Off)
	switch in.Op {
	case OpTestIn, OpTestNotI:
		s.kind, s.table = specialTable, p.searcher(in.K)
	case OpTestEqF, OpTestNeF:
		s.kind, s.peer = specialPeer, placeOf(frame.Field(in.K))
	case OpTestRate, OpTestFlow, OpTestAnswered, OpTestLease:
		s.kind, s.op, s.bit = specialState, in.Op, stateBit(in)
	default:
		s.kind = specialRegs
		s.ops, yes, no = p.microOps(pc)
	}
	if in.Op == OpTestNotI || in.Op == OpTestNeF {
		yes, no = no, yes
	}
	s.yes, s.no = p.number(yes), p.number(no)
	p.out.specials[n] = s
}

// maxMicroOps bounds a stretch, as maxTests does a node.
const maxMicroOps = 8

// microOps are the instructions on registers from pc up to the first test,
// that test included if it is one of registers.
func (p *preparer) microOps(pc int) (ops []microOp, yes, no int) {
	for range maxMicroOps {
		in := p.u.Insns[pc]
		op := microOp{op: in.Op, a: in.A & (NumRegs - 1), b: uint8(in.K) & (NumRegs - 1), pc: int32(pc)}
		switch in.Op {
		case OpLoadF:
			op.field = placeOf(frame.Field(in.K))
		case OpLoadI:
			op.imm = int64(int32(in.K))
		case OpLoadC:
			op.imm = int64(p.u.Consts[in.K].Lo)
		case OpTestRIn:
			op.table = p.searcher(in.K)
		}
		ops = append(ops, op)
		if opDefs[in.Op].flow == flowTest {
			return ops, pc + 1, pc + 1 + int(in.Off)
		}
		pc = p.thread(pc + 1)
		if next := p.u.Insns[pc].Op; next < OpLoadF || next > OpTestRIn {
			break
		}
	}
	return ops, pc, pc
}

func (p *preparer) searcher(table uint32) *searcher {
	if p.tables[table] == nil {
		p.tables[table] = newSearcher(&p.u.Tables[table])
	}
	return p.tables[table]
}

// no allocation, no lock, no log below this line

func (f *place) read(k *frame.Key) Const {
	if f.wide {
		return Const{k.Words[f.word&15], k.Words[(f.word+1)&15]}
	}
	return Const{Lo: k.Words[f.word&15] >> (f.shift & 63) & f.mask}
}

// step runs the special and says where to go.
func (s *special) step(k *frame.Key, regs *[NumRegs]int64, m *Moment) int {
	holds := true
	switch s.kind {
	case specialTable:
		holds = s.table.contains(s.field.read(k))
	case specialPeer:
		holds = s.field.read(k) == s.peer.read(k)
	case specialState:
		holds = m.ask(s.op, s.bit, s.field.read(k), k)
	case specialRegs:
		return s.registers(k, regs)
	}
	if holds {
		return int(s.yes)
	}
	return int(s.no)
}

func (s *special) registers(k *frame.Key, regs *[NumRegs]int64) int {
	for i := range s.ops {
		op := &s.ops[i]
		a, b := &regs[op.a&(NumRegs-1)], regs[op.b&(NumRegs-1)]
		holds := true
		switch op.op {
		case OpLoadF:
			*a = int64(op.field.read(k).Lo)
		case OpLoadI, OpLoadC:
			*a = op.imm
		case OpTestREq:
			holds = *a == b
		case OpTestRNe:
			holds = *a != b
		case OpTestRLt:
			holds = *a < b
		case OpTestRLe:
			holds = *a <= b
		case OpTestRIn:
			holds = op.table.contains(Const{Lo: uint64(*a)})
		default:
			v, ok := arith(op.op, *a, b)
			if !ok {
				return int(leaf(Drop, int(op.pc)))
			}
			*a = v
		}
		if !holds {
			return int(s.no)
		}
	}
	return int(s.yes)
}
