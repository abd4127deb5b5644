package ebpf

import (
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf/asm"
)

// The registers of the rule machine live in memory that the verifier does not
// follow (see scratch): R1 and R2 hold A and K while an instruction runs.

func regAt(r uint32) int16 { return int16(r%rule.NumRegs) * 8 }

func (c *compiler) loadReg(r asm.Register, n uint32) {
	c.add(asm.LoadMem(r, regScratch, regAt(n), asm.DWord))
}

func (c *compiler) storeReg(n uint8, r asm.Register) {
	c.add(asm.StoreMem(regScratch, regAt(uint32(n)), r, asm.DWord))
}

// plain are the operations that the kernel has as they are.
var plain = map[rule.Op]asm.ALUOp{
	rule.OpAdd: asm.Add, rule.OpSub: asm.Sub, rule.OpMul: asm.Mul,
	rule.OpAnd: asm.And, rule.OpOr: asm.Or, rule.OpXor: asm.Xor,
	rule.OpShl: asm.LSh, rule.OpShr: asm.ArSh,
}

// compute writes an instruction on registers that is no load and no test.
func (c *compiler) compute(pc int, in rule.Insn) {
	const a, b = asm.R1, asm.R2
	if in.Op == rule.OpMove {
		c.loadReg(a, in.K)
		c.storeReg(in.A, a)
		return
	}
	c.loadReg(a, uint32(in.A))
	switch in.Op {
	case rule.OpNeg:
		c.add(asm.Neg.Imm(a, 0))
	case rule.OpNot:
		c.add(asm.Xor.Imm(a, -1))
	case rule.OpDiv, rule.OpMod:
		c.loadReg(b, in.K)
		c.faultIf(pc, b, asm.JEq, 0)
		c.divide(in.Op)
	case rule.OpShl, rule.OpShr:
		c.loadReg(b, in.K)
		c.faultIf(pc, b, asm.JGT, 63) // unsigned: less than 0 as well
		c.add(plain[in.Op].Reg(a, b))
	default:
		c.loadReg(b, in.K)
		c.add(plain[in.Op].Reg(a, b))
	}
	c.storeReg(in.A, a)
}

// faultIf drops at pc where r op v.
func (c *compiler) faultIf(pc int, r asm.Register, op asm.JumpOp, v int32) {
	ok := c.newLabel()
	c.ifImm(r, opposite[op], v, ok)
	c.answer(rule.Drop, pc)
	c.place(ok)
}

// divide makes R1 floor(R1 / R2), or what is left of it. Kernels before 6.6
// divide unsigned numbers only, so signs are taken away and given back. The
// one quotient that does not fit wraps, as Go's does.
//
//	R1, R2  a, b
//	R3      |a|, then the remainder
//	R4      |b|
//	R5      |a| / |b|, then the quotient
//	R0      a xor b: negative where the signs differ
func (c *compiler) divide(op rule.Op) {
	const a, b, rest, div, quot, signs = asm.R1, asm.R2, asm.R3, asm.R4, asm.R5, asm.R0
	c.add(asm.Mov.Reg(signs, a), asm.Xor.Reg(signs, b))
	c.absolute(rest, a)
	c.absolute(div, b)
	c.add(asm.Mov.Reg(quot, rest), asm.Div.Reg(quot, div), asm.Mod.Reg(rest, div))
	same := c.newLabel()
	c.ifImm(signs, asm.JSGE, 0, same)
	// -q, and one less where something is left: rest is less than 2^63, so
	// the sign of -rest says whether it is 0.
	c.add(asm.Neg.Imm(quot, 0), asm.Neg.Imm(rest, 0), asm.ArSh.Imm(rest, 63), asm.Add.Reg(quot, rest))
	c.place(same)
	if op == rule.OpDiv {
		c.add(asm.Mov.Reg(a, quot))
		return
	}
	c.add(asm.Mul.Reg(quot, b), asm.Sub.Reg(a, quot))
}

// absolute makes to |from|, as an unsigned number: (x ^ s) - s where s is all
// sign bits. R0 is kept; the sign is shifted within R5.
func (c *compiler) absolute(to, from asm.Register) {
	c.add(asm.Mov.Reg(asm.R5, from), asm.ArSh.Imm(asm.R5, 63),
		asm.Mov.Reg(to, from), asm.Xor.Reg(to, asm.R5), asm.Sub.Reg(to, asm.R5))
}
