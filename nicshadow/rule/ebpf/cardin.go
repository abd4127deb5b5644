package ebpf

import (
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf/asm"
)

// fromCard drops what no program of a card handed on: the host's end of a pair
// has a network stack behind it, of which nothing may reach the container. Who
// sent the frame is in its mark, which nobody outside the switch's namespace can
// set: a mark does not go from one namespace to another.
func (c *card) fromCard() {
	c.add(asm.LoadMem(asm.R1, regFrame, skbMark, asm.Word))
	c.ifImm(asm.R1, asm.JEq, 0, c.drop)
	c.add(asm.Sub.Imm(asm.R1, 1), asm.StoreMem(regKey, workSender, asm.R1, asm.DWord))
}

// arrive is the program for what a container is sent that has no say in it.
func (c *card) arrive() {
	c.fromCard()
	c.arrived()
}

// arrived lets a frame in.
func (c *card) arrived() {
	c.count(CountDelivered)
	c.add(asm.Mov.Imm(asm.R0, tcxPass), asm.Return())
}

// judgeIn is the program for what a container is sent whose policy judges that,
// or remembers it.
func (c *card) judgeIn(p *rule.Program) {
	r := c.cfg.reasons
	parsed, pass, admitted, told := c.newLabel(), c.newLabel(), c.newLabel(), c.newLabel()
	c.fromCard()
	c.callParse()
	c.ifImm(asm.R0, asm.JEq, int32(frame.OK), parsed)
	if !p.JudgesIngress() {
		c.jump(pass)
	} else {
		c.add(asm.Add.Imm(asm.R0, int32(r.Frame)))
		c.admits()
		c.eventFor(eventArrived, asm.R0, c.cfg.audit)
		c.admitted(pass)
	}
	c.place(parsed)
	c.beginRule(true)
	if c.u.Ingress == nil {
		c.answer(rule.Forward, 0)
		c.rest()
	} else {
		c.dispatch(c.u.Ingress)
		c.rule(c.u.Ingress)
	}
	c.add(asm.LoadMem(asm.R0, regKey, workOutcome, asm.DWord), asm.And.Imm(asm.R0, 3))
	if p.JudgesIngress() {
		refused := c.newLabel()
		c.ifImm(asm.R0, asm.JNE, int32(rule.Forward), refused)
		c.jump(told)
		c.place(refused)
		c.hit()
		c.add(asm.LoadMem(asm.R1, regKey, workOutcome, asm.DWord), asm.And.Imm(asm.R1, 3))
		c.ifImm(asm.R1, asm.JEq, int32(rule.Audit), admitted)
		c.admits()
		c.event(eventArrived, r.Ingress, c.cfg.audit)
		c.admitted(pass)
		c.place(admitted)
		c.count(CountWould + int(r.Ingress))
		c.event(eventArrived, r.Ingress, true)
		c.jump(pass)
	}
	c.place(told)
	c.event(eventArrived, r.Allowed, true)
	c.place(pass)
	c.arrived()
}

// rest writes what is left of rule where there is no rule program: its
// instructions judge what is sent.
func (c *card) rest() {
	if c.noted {
		c.place(c.noting)
		c.writeNotes()
	}
	c.place(c.compiler.finish)
	c.add(asm.StoreMem(regKey, workOutcome, asm.R0, asm.DWord))
}

// admits counts a frame that the policy refuses, or would in audit mode. R1 is
// lost.
func (c *card) admits() {
	if c.cfg.audit {
		c.count(CountWould + int(c.cfg.reasons.Ingress))
		return
	}
	c.count(CountDropped + int(c.cfg.reasons.Ingress))
}

// admitted goes to pass in audit mode; otherwise the frame drops, and its
// sender has it counted.
func (c *card) admitted(pass label) {
	if c.cfg.audit {
		c.jump(pass)
		return
	}
	c.add(asm.LoadMem(asm.R1, regKey, workSender, asm.DWord), asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word))
	c.lookup(c.counters, -4)
	c.ifImm(asm.R0, asm.JEq, 0, c.drop)
	c.countAt(asm.R0, CountDropped+int(c.cfg.reasons.ReceiverRefuses))
	c.dropped()
}
