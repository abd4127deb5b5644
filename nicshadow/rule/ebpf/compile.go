package ebpf

import (
	"errors"
	"fmt"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf/asm"
)

// Unsupported says what the kernel cannot be made to do for a program.
type Unsupported struct {
	PC     int // of the instruction
	Op     rule.Op
	Reason string
}

func (e *Unsupported) Error() string {
	return fmt.Sprintf("ebpf: insn %d (%s): %s", e.PC, e.Op, e.Reason)
}

// maxBranches is how many conditional jumps the kernel's verifier follows on
// one path (BPF_COMPLEXITY_LIMIT_JMP_SEQ, kernel/bpf/verifier.c v6.18), less
// those before the first instruction.
const maxBranches = 8192 - 16

// The registers of the kernel's machine. R0 to R5 hold what one instruction
// of a program needs; nothing else is kept from one to the next.
const (
	regKey     = asm.R6 // the key
	regScratch = asm.R7 // what the verifier does not follow
)

// A compiler writes one program.
type compiler struct {
	emitter
	u     *rule.Unit
	maps  []mapDef
	uses  map[int]int // by instruction: the map whose address it loads
	table []int       // by table: 1 + its map
	need  need
	// Maps, where they are needed.
	buckets, flows, seeds, lease int
	// Functions that the program calls, and where it ends if it notes.
	take, seen, note, holds, talk, noting label
	noted                                 bool // it does note

	none   label // what answers a key of no class
	broken label // what answers a context that is none
	finish label // where a program goes on with its answer; 0 where it ends
	audit  bool  // what is dropped goes on as well
	memory *memory
	pcs    label // the label of rule instruction 0; the others follow it
}

// Compile translates p. The error is an [*Unsupported].
func Compile(p *rule.Program) (*Code, error) {
	u := p.Unit()
	for _, far := range []bool{false, true} {
		c := &compiler{u: u, uses: map[int]int{}, table: make([]int, len(u.Tables)), need: needsOf(u)}
		c.far = far
		c.program()
		if err := c.resolve(); errors.Is(err, errFar) {
			continue
		}
		if n, pc := c.deepest(); n > maxBranches {
			return nil, &Unsupported{pc, u.Insns[pc].Op, fmt.Sprintf("more than %d conditional jumps on the way to it, which the kernel's verifier does not follow", maxBranches)}
		}
		return c.code(), nil
	}
	return nil, errFar // not reached: with far, no conditional jump is long
}

// code is what was written.
func (c *compiler) code() *Code {
	code := &Code{insns: c.insns, maps: c.maps, uses: c.uses, buckets: c.buckets}
	if c.need.rates {
		code.limits = len(c.u.Limits)
	}
	if c.byAddress {
		for i, name := range c.names {
			c.insns[i] = named(c.insns[i], name)
		}
	}
	return code
}

func (c *compiler) program() {
	c.at = []int{-1} // label 0 is none
	c.pcs = label(len(c.at))
	for range c.u.Insns {
		c.newLabel()
	}
	c.none, c.broken = c.newLabel(), c.newLabel()
	c.beginState()
	c.begin()
	for pc, in := range c.u.Insns {
		c.now = pc
		c.place(c.insn(pc))
		c.write(pc, in)
	}
	c.place(c.none)
	c.answer(rule.Drop, 0)
	c.place(c.broken)
	c.add(asm.Mov.Imm32(asm.R0, noAnswer), asm.Return())
	c.writeState()
}

// insn is the label of the rule instruction at pc.
func (c *compiler) insn(pc int) label { return c.pcs + label(pc) }

// begin finds the key and goes where judging its class begins.
func (c *compiler) begin() {
	const data, dataEnd = 76, 80 // struct __sk_buff, include/uapi/linux/bpf.h v6.18
	c.add(
		asm.LoadMem(regKey, asm.R1, data, asm.Word),
		asm.LoadMem(asm.R2, asm.R1, dataEnd, asm.Word),
		asm.Mov.Reg(asm.R3, regKey),
		asm.Add.Imm(asm.R3, contextLen),
	)
	c.ifReg(asm.R3, asm.JGT, asm.R2, c.broken)
	if c.need != (need{}) {
		c.beginScratch()
	}
	egress := c.newLabel()
	c.add(asm.LoadMem(asm.R1, regKey, contextIngress, asm.DWord))
	c.ifImm(asm.R1, asm.JEq, 0, egress)
	if c.u.Ingress == nil {
		c.answer(rule.Forward, 0)
	} else {
		c.dispatch(c.u.Ingress)
	}
	c.place(egress)
	c.dispatch(c.u.Entries[:])
}

// dispatch goes to the entry of the key's class.
func (c *compiler) dispatch(entries []uint32) {
	c.add(asm.LoadMem(asm.R1, regKey, offset(frame.ClassWord, 0, 1), asm.Byte))
	c.ifImm32(asm.R1, asm.JEq, uint32(frame.ClassNone), c.none)
	c.ifImm32(asm.R1, asm.JGE, uint32(frame.NumClasses), c.none)
	c.choose(entries, 1, int(frame.NumClasses)-1)
}

// choose goes to the entry of the class in R1, one from lo to hi.
func (c *compiler) choose(entries []uint32, lo, hi int) {
	same := true
	for class := lo; class <= hi; class++ {
		same = same && entries[class] == entries[lo]
	}
	if same {
		c.jump(c.insn(int(entries[lo])))
		return
	}
	mid, above := (lo+hi)/2+1, c.newLabel()
	c.ifImm32(asm.R1, asm.JGE, uint32(mid), above)
	c.choose(entries, lo, mid-1)
	c.place(above)
	c.choose(entries, mid, hi)
}

// answer ends the program. What passes is noted before.
func (c *compiler) answer(v rule.Verdict, pc int) {
	c.add(asm.Mov.Imm32(asm.R0, int32(pc<<2|int(v))))
	switch {
	case (v.Passes() || c.audit) && (c.need.flows || c.need.lease):
		c.noted = true
		c.jump(c.noting)
	case c.finish != 0:
		c.jump(c.finish)
	default:
		c.add(asm.Return())
	}
}

// write writes the instruction in at pc. A test goes on behind it where it
// holds, and jumps to no where it does not.
func (c *compiler) write(pc int, in rule.Insn) {
	yes, no := c.insn(pc+1), c.insn(pc+1+int(in.Off))
	f := frame.Field(in.A)
	switch in.Op {
	case rule.OpRet:
		c.answer(rule.Verdict(in.A), pc)
	case rule.OpJmp:
		c.jump(no)
	case rule.OpTestEq, rule.OpTestNe:
		c.equal(appendMatch(nil, f, full(f), rule.Const{Lo: uint64(in.K)}), in.Op == rule.OpTestEq, yes, no)
	case rule.OpTestEqC, rule.OpTestNeC:
		c.equal(appendMatch(nil, f, full(f), c.u.Consts[in.K]), in.Op == rule.OpTestEqC, yes, no)
	case rule.OpTestMask, rule.OpTestNMask:
		c.equal(appendMatch(nil, f, c.u.Consts[in.K+1], c.u.Consts[in.K]), in.Op == rule.OpTestMask, yes, no)
	case rule.OpTestRow:
		var ps []part
		for _, m := range c.u.Rows[in.K] {
			ps = appendMatch(ps, m.Field, m.Mask, m.Value)
		}
		c.unless(ps, no)
	case rule.OpTestLt, rule.OpTestLe, rule.OpTestGt, rule.OpTestGe:
		c.loadField(asm.R1, f)
		c.ifImm32(asm.R1, opposite[compare[in.Op]], in.K, no)
	case rule.OpTestRange:
		c.loadField(asm.R1, f)
		c.ifImm32(asm.R1, asm.JLT, in.K&0xffff, no)
		c.ifImm32(asm.R1, asm.JGT, in.K>>16, no)
	case rule.OpTestEqF:
		c.unlessPeer(f, frame.Field(in.K), no)
	case rule.OpTestNeF:
		c.unlessPeer(f, frame.Field(in.K), yes)
		c.jump(no)
	case rule.OpTestIn:
		c.find(f, in.K, yes, no)
	case rule.OpTestNotI:
		c.find(f, in.K, no, yes)
	default:
		c.writeOther(pc, in, yes, no)
	}
}

// compare are the comparisons of fields, and of registers, with the kernel's.
var compare = map[rule.Op]asm.JumpOp{
	rule.OpTestLt: asm.JLT, rule.OpTestLe: asm.JLE, rule.OpTestGt: asm.JGT, rule.OpTestGe: asm.JGE,
	rule.OpTestREq: asm.JEq, rule.OpTestRNe: asm.JNE, rule.OpTestRLt: asm.JSLT, rule.OpTestRLe: asm.JSLE,
}

// equal goes on where the parts being equal is what is wanted.
func (c *compiler) equal(ps []part, want bool, yes, no label) {
	if want {
		c.unless(ps, no)
		return
	}
	c.unless(ps, yes)
	c.jump(no)
}

// writeOther writes what is of registers, and of what programs remember.
func (c *compiler) writeOther(pc int, in rule.Insn, yes, no label) {
	switch in.Op {
	case rule.OpLoadF:
		c.loadField(asm.R1, frame.Field(in.K))
		c.storeReg(in.A, asm.R1)
	case rule.OpLoadI:
		c.add(asm.Mov.Imm(asm.R1, int32(in.K)))
		c.storeReg(in.A, asm.R1)
	case rule.OpLoadC:
		c.add(asm.LoadImm(asm.R1, int64(c.u.Consts[in.K].Lo), asm.DWord))
		c.storeReg(in.A, asm.R1)
	case rule.OpTestREq, rule.OpTestRNe, rule.OpTestRLt, rule.OpTestRLe:
		c.loadReg(asm.R1, uint32(in.A))
		c.loadReg(asm.R2, in.K)
		c.ifReg(asm.R1, opposite[compare[in.Op]], asm.R2, no)
	case rule.OpTestRIn:
		c.loadReg(asm.R1, uint32(in.A))
		c.findNumber(in.K, yes, no)
	case rule.OpTestRate:
		c.rate(in.K, no)
	case rule.OpTestFlow:
		c.flow(questionFlow, roleEstablished, no)
	case rule.OpTestAnswered:
		c.flow(questionAnswered, roleAnswered, no)
	case rule.OpTestLease:
		c.leased(frame.Field(in.A), no)
	default:
		c.compute(pc, in)
	}
}
