package ebpf

import (
	"errors"
	"math"

	"github.com/cilium/ebpf/asm"
)

// A label is a place in the code that jumps go to; 0 is none.
type label int

// An emitter writes instructions of the kernel. Jumps go to labels, which may
// be placed later, and always forward.
type emitter struct {
	insns asm.Instructions
	to    []label // by instruction: where it jumps, or what it calls
	pc    []int   // by instruction: the rule instruction it is part of
	at    []int   // by label: the instruction it stands before
	// far says that conditional jumps, which reach 2^15 instructions, are
	// written as the opposite jump over one that reaches any.
	far bool
	now int // rule instruction being written
	// names are those of functions, by their first instruction. They are
	// needed where one is called by its address.
	names     map[int]string
	byAddress bool
}

var errFar = errors.New("a conditional jump does not reach")

// newLabel makes a label.
func (e *emitter) newLabel() label {
	e.at = append(e.at, -1)
	return label(len(e.at) - 1)
}

// place puts l before the next instruction.
func (e *emitter) place(l label) { e.at[l] = len(e.insns) }

func (e *emitter) add(insns ...asm.Instruction) {
	for _, in := range insns {
		e.addTo(in, 0)
	}
}

func (e *emitter) addTo(in asm.Instruction, to label) {
	e.insns = append(e.insns, in)
	e.to = append(e.to, to)
	e.pc = append(e.pc, e.now)
}

// jump goes to l.
func (e *emitter) jump(l label) {
	e.addTo(asm.Instruction{OpCode: asm.Ja.Op(asm.ImmSource)}, l)
}

// call calls the function that begins at l.
func (e *emitter) call(l label) {
	e.addTo(asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoCall}, l)
}

// opposite holds the jump that is taken when the other is not.
var opposite = map[asm.JumpOp]asm.JumpOp{
	asm.JEq: asm.JNE, asm.JNE: asm.JEq,
	asm.JGT: asm.JLE, asm.JLE: asm.JGT,
	asm.JGE: asm.JLT, asm.JLT: asm.JGE,
	asm.JSGT: asm.JSLE, asm.JSLE: asm.JSGT,
	asm.JSGE: asm.JSLT, asm.JSLT: asm.JSGE,
}

// storeWord writes a word of 64 bits, sign-extended.
func storeWord(to asm.Register, off int16, v int32) asm.Instruction {
	return asm.Instruction{OpCode: asm.StoreImmOp(asm.DWord), Dst: to, Offset: off, Constant: int64(v)}
}

// ifImm jumps to l where a op v, of 64 bits; v is sign-extended.
func (e *emitter) ifImm(a asm.Register, op asm.JumpOp, v int32, l label) {
	e.branch(asm.Instruction{Dst: a, Constant: int64(v)}, asm.JumpClass, op, asm.ImmSource, l)
}

// ifImm32 jumps to l where the low 32 bits of a op v.
func (e *emitter) ifImm32(a asm.Register, op asm.JumpOp, v uint32, l label) {
	e.branch(asm.Instruction{Dst: a, Constant: int64(int32(v))}, asm.Jump32Class, op, asm.ImmSource, l)
}

// ifReg jumps to l where a op b, of 64 bits.
func (e *emitter) ifReg(a asm.Register, op asm.JumpOp, b asm.Register, l label) {
	e.branch(asm.Instruction{Dst: a, Src: b}, asm.JumpClass, op, asm.RegSource, l)
}

func (e *emitter) branch(in asm.Instruction, class asm.Class, op asm.JumpOp, src asm.Source, l label) {
	if e.far {
		in.OpCode, in.Offset = asm.OpCode(class).SetJumpOp(opposite[op]).SetSource(src), 1
		e.add(in)
		e.jump(l)
		return
	}
	in.OpCode = asm.OpCode(class).SetJumpOp(op).SetSource(src)
	e.addTo(in, l)
}

// never jumps to l in the eyes of who only looks at where control can go: the
// kernel refuses code that nothing leads to, and a test that always holds
// would leave its other side so.
func (e *emitter) never(l label) {
	e.add(asm.Mov.Imm32(asm.R0, 0))
	e.ifImm32(asm.R0, asm.JNE, 0, l)
}

// resolve fills in where jumps go. The error is errFar.
func (e *emitter) resolve() error {
	slot := make([]int, len(e.insns)+1) // where each instruction begins
	for i := range e.insns {
		slot[i+1] = slot[i] + 1
		if e.insns[i].OpCode.IsDWordLoad() {
			slot[i+1]++
		}
	}
	for i := range e.insns {
		if e.to[i] == 0 {
			continue
		}
		in, off := &e.insns[i], slot[e.at[e.to[i]]]-slot[i]-1
		switch {
		case in.IsFunctionReference():
			in.Constant = int64(off)
		case off <= math.MaxInt16:
			in.Offset = int16(off)
		case in.OpCode == asm.Ja.Op(asm.ImmSource):
			in.OpCode, in.Constant = asm.LongJump("").OpCode, int64(off)
		default:
			return errFar
		}
	}
	return nil
}

// callBranches is more than the conditional jumps on a path of any function.
const callBranches = 48

// deepest is the largest number of conditional jumps on a path, and the rule
// instruction at its end.
func (e *emitter) deepest() (n, pc int) {
	depth := make([]int, len(e.insns)+2)
	for i := range e.insns {
		in, d := &e.insns[i], depth[i]
		op := in.OpCode.JumpOp()
		jumps := in.OpCode.Class().IsJump() && op != asm.Call && op != asm.Exit
		switch {
		case in.IsFunctionCall():
			d += callBranches
		case jumps && op != asm.Ja:
			d++
		}
		if d > n {
			n, pc = d, e.pc[i]
		}
		switch {
		case jumps && e.to[i] != 0:
			t := e.at[e.to[i]]
			depth[t] = max(depth[t], d)
		case jumps: // over the next one
			depth[i+2] = max(depth[i+2], d)
		}
		if !jumps || op != asm.Ja {
			if op != asm.Exit || !in.OpCode.Class().IsJump() {
				depth[i+1] = max(depth[i+1], d)
			}
		}
	}
	return n, pc
}
