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
const (
	scratchRegs   = 0                            // registers of the rule machine
	scratchAsked  = scratchRegs + 8*rule.NumRegs // one byte a question: see ask
	scratchFlow   = scratchAsked + questionsLen  // the flow of the frame: see beginFlow
	scratchTTL    = scratchFlow + flowKeyLen     // how long it is remembered; 0 where there is none
	scratchRoles  = scratchTTL + 8               // what the frame may be to its flow
	scratchNow    = scratchRoles + 8             // the time
	scratchSide   = scratchNow + 8               // 1 on the way to the container, else 0
	scratchAnswer = scratchSide + 8              // what is returned behind the notes
	scratchLen    = scratchAnswer + 8
)

// A need says what the instructions of a program need.
type need struct{ regs, rates, flows, lease bool }

func needsOf(u *rule.Unit) (n need) {
	for _, in := range u.Insns {
		switch op := in.Op; {
		case op == rule.OpTestRate:
			n.rates = true
		case op == rule.OpTestFlow, op == rule.OpTestAnswered:
			n.flows = true
		case op == rule.OpTestLease:
			n.lease = true
		case op >= rule.OpLoadF && op <= rule.OpTestRIn:
			n.regs = true
		}
	}
	return n
}

// beginScratch finds this processor's, and makes ready what is not written
// before it is read.
func (c *compiler) beginScratch() {
	m := c.addMap(mapDef{typ: ebpf.PerCPUArray, name: "scratch", key: 4, value: scratchLen, size: 1})
	c.find1(m, 0, c.broken)
	c.add(asm.Mov.Reg(regScratch, asm.R0))
	if n := c.need; !n.rates && !n.flows && !n.lease {
		return
	}
	c.beginAsked()
	c.add(
		asm.LoadMem(asm.R1, regKey, contextNow, asm.DWord), asm.StoreMem(regScratch, scratchNow, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, regKey, contextIngress, asm.DWord), asm.StoreMem(regScratch, scratchSide, asm.R1, asm.DWord),
	)
	if c.need.flows {
		c.beginFlow()
	}
}

// beginAsked says that nothing was asked yet.
func (c *compiler) beginAsked() {
	for q := 0; q < questionsLen; q += 8 {
		if q < len(c.u.Limits) || c.need.flows && q == questionFlow&^7 {
			c.add(storeWord(regScratch, scratchAsked+int16(q), 0))
		}
	}
}

// find1 makes R0 the address of element i of an array, and jumps to l where
// there is none, which the verifier wants looked at.
func (c *compiler) find1(m, i int, l label) {
	c.add(asm.StoreImm(asm.RFP, -4, int64(i), asm.Word))
	c.lookup(m, -4)
	c.ifImm(asm.R0, asm.JEq, 0, l)
}
