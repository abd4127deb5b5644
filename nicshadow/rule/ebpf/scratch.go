package ebpf

import (
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// scratch is memory of one run: an element of a map, of which each processor
// has its own. It could lie on the stack, but the verifier follows what is
// there: a number counted up on one path and not on the other is two states to
// it, and twenty such are a million. What comes from a map is any number, so
// each instruction is looked at about once. A program of a card runs with
// softirqs off, so nothing else runs it on the processor meanwhile.
//
//	0  registers of the rule machine
const scratchLen = 8 * rule.NumRegs

// remembers reports whether an instruction needs scratch.
func (c *compiler) remembers() bool {
	for _, in := range c.u.Insns {
		if in.Op >= rule.OpLoadF && in.Op <= rule.OpTestRIn {
			return true
		}
	}
	return false
}

// beginScratch finds this processor's.
func (c *compiler) beginScratch() {
	m := c.addMap(mapDef{typ: ebpf.PerCPUArray, name: "scratch", key: 4, value: scratchLen, size: 1})
	c.add(asm.StoreImm(asm.RFP, -4, 0, asm.Word))
	c.lookup(m, -4)
	c.ifImm(asm.R0, asm.JEq, 0, c.broken)
	c.add(asm.Mov.Reg(regScratch, asm.R0))
}
