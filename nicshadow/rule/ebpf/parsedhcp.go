package ebpf

import (
	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf/asm"
)

// Numbers of DHCP (RFC 2131, RFC 2132) and DHCPv6 (RFC 8415, 7.3 and 24).
const (
	dhcpFixed    = 240
	dhcpCookie   = 0x63825363
	dhcpEthernet = 0x0106

	optPad       = 0
	optRequested = 50
	optLease     = 51
	optOverload  = 52
	optType      = 53
	optServer    = 54
	optEnd       = 255

	opt6IANA    = 3
	opt6IATA    = 4
	opt6Address = 5
	opt6Unicast = 12

	shiftDHCPOp    = 8
	shiftDHCPRelay = 10
)

// Types of messages that servers send, one bit each; the last types there are.
const (
	dhcpFromServer  = 1<<2 | 1<<5 | 1<<6 | 1<<9
	dhcp6FromServer = 1<<2 | 1<<7 | 1<<10 | 1<<13
	dhcpLast        = 9
	dhcp6Last       = 13
	dhcp6Relays     = 12 // and above
)

// option is where what the option of that code said is kept.
func option(code int16) int16 { return workOption + 8*(code-optRequested) }

// messageDHCP4 reads the message at hand, all of a datagram.
func (p *parser) messageDHCP4() {
	bad := p.reject(frame.MalformedDHCP)
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, dhcpFixed, bad)
	p.read(regOff, 236, 4, workWindow)
	p.at(asm.R1, 0, 4)
	p.ifImm32(asm.R1, asm.JNE, dhcpCookie, bad)
	p.window(44)
	p.at(asm.R1, 0, 1)
	p.setLocal(workOp, asm.R1)
	p.add(asm.Sub.Imm(asm.R1, 1))
	p.ifImm(asm.R1, asm.JGT, 1, bad)
	p.at(asm.R1, 1, 1)
	p.at(asm.R2, 2, 1)
	p.add(asm.LSh.Imm(asm.R1, 8), asm.Or.Reg(asm.R1, asm.R2))
	p.ifImm(asm.R1, asm.JNE, dhcpEthernet, bad)
	p.walkDHCP4()
	const typ, op = asm.R3, asm.R4
	p.local(typ, option(optType))
	p.local(op, workOp)
	p.ifImm(typ, asm.JEq, 0, bad)
	p.ifImm(typ, asm.JGT, dhcpLast, bad)
	p.add(asm.Mov.Imm(asm.R1, dhcpFromServer), asm.RSh.Reg(asm.R1, typ), asm.And.Imm(asm.R1, 1), asm.Add.Imm(asm.R1, 1))
	p.ifReg(asm.R1, asm.JNE, op, bad)
	// The window is a walk's by now.
	p.window(44)
	p.local(typ, option(optType))
	p.local(op, workOp)
	own, done := p.newLabel(), p.newLabel()
	p.at(asm.R1, 16, 4) // yiaddr
	p.ifImm(op, asm.JEq, 2, done)
	p.local(asm.R1, option(optRequested))
	p.ifImm(asm.R1, asm.JNE, 0, own)
	p.at(asm.R1, 12, 4) // ciaddr
	p.place(own)
	p.place(done)
	p.local(asm.R2, option(optServer))
	p.add(asm.LSh.Imm(asm.R1, 32), asm.Or.Reg(asm.R1, asm.R2))
	p.setLocal(targetWord, asm.R1)
	p.at(asm.R1, 28, 4) // chaddr
	p.at(asm.R2, 32, 2)
	p.add(asm.LSh.Imm(asm.R1, 32), asm.LSh.Imm(asm.R2, 16), asm.Or.Reg(asm.R1, asm.R2))
	p.add(asm.LSh.Imm(op, shiftDHCPOp), asm.Or.Reg(asm.R1, op), asm.Or.Reg(asm.R1, typ))
	direct := p.newLabel()
	p.at(asm.R2, 24, 4) // giaddr
	p.ifImm(asm.R2, asm.JEq, 0, direct)
	p.add(asm.Or.Imm(asm.R1, 1<<shiftDHCPRelay))
	p.place(direct)
	p.setLocal(macWord, asm.R1)
	p.at(asm.R1, 4, 4) // transaction
	p.local(asm.R2, option(optLease))
	p.add(asm.LSh.Imm(asm.R1, 32), asm.Or.Reg(asm.R1, asm.R2))
	p.setLocal(leaseWord, asm.R1)
	p.accepted(frame.ClassIPv4DHCP)
}

// walkDHCP4 walks the options.
func (p *parser) walkDHCP4() {
	for code := int16(optRequested); code <= optServer; code++ {
		p.add(storeWord(regWork, option(code), 0))
	}
	p.add(storeWord(regWork, workSeen, 0), asm.Mov.Reg(asm.R1, regOff), asm.Add.Imm(asm.R1, dhcpFixed))
	p.setLocal(workPos, asm.R1)
	p.setLocal(workEnd, regEnd)
	p.walk(p.dhcp4, frame.MaxLength, frame.MalformedDHCP)
}

// messageDHCP6 reads the message at hand, all of a datagram.
func (p *parser) messageDHCP6() {
	bad := p.reject(frame.MalformedDHCP)
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 4, bad)
	p.window(4)
	const typ = asm.R3
	p.at(typ, 0, 1)
	p.ifImm(typ, asm.JEq, 0, bad)
	p.ifImm(typ, asm.JGT, dhcp6Last, bad)
	p.add(asm.Mov.Imm(asm.R1, dhcp6FromServer), asm.RSh.Reg(asm.R1, typ), asm.And.Imm(asm.R1, 1), asm.Add.Imm(asm.R1, 1),
		asm.LSh.Imm(asm.R1, shiftDHCPOp), asm.Or.Reg(asm.R1, typ))
	p.at(asm.R2, 0, 4)
	p.add(asm.And.Imm(asm.R2, 0xffffff))
	relay, both := p.newLabel(), p.newLabel()
	p.ifImm(typ, asm.JGE, dhcp6Relays, relay)
	p.add(storeWord(regWork, workWant, 0), asm.Add.Imm(regOff, 4))
	p.jump(both)
	p.place(relay)
	p.left(asm.R2)
	p.ifImm(asm.R2, asm.JLT, 34, bad)
	p.add(storeWord(regWork, workWant, 1), asm.Add.Imm(regOff, 34), asm.Or.Imm(asm.R1, 1<<shiftDHCPRelay), asm.Mov.Imm(asm.R2, 0))
	p.place(both)
	p.setLocal(macWord, asm.R1)
	p.add(asm.LSh.Imm(asm.R2, 32))
	p.setLocal(leaseWord, asm.R2)
	for i := range int16(4) {
		p.add(storeWord(regWork, targetWord+8*i, 0))
	}
	p.add(storeWord(regWork, workInner, 0))
	p.setLocal(workPos, regOff)
	p.setLocal(workEnd, regEnd)
	p.walk(p.dhcp6, frame.MaxLength/2, frame.MalformedDHCP)
	p.accepted(frame.ClassIPv6DHCP)
}

// optionDHCP4 is one turn of the walk.
func (p *parser) optionDHCP4() {
	bad, end, pad := p.stopWith(frame.MalformedDHCP), p.stopWith(frame.OK), p.newLabel()
	p.ifReg(regOff, asm.JGE, regEnd, bad)
	p.window(1)
	p.at(asm.R1, 0, 1)
	p.ifImm(asm.R1, asm.JEq, optEnd, end)
	p.ifImm(asm.R1, asm.JEq, optPad, pad)
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 2, bad)
	p.window(2)
	const code, n, bit = asm.R3, asm.R4, asm.R5
	p.at(code, 0, 1)
	p.at(n, 1, 1)
	p.left(asm.R1)
	p.add(asm.Sub.Imm(asm.R1, 2))
	p.ifReg(n, asm.JGT, asm.R1, bad)
	p.add(asm.Mov.Reg(asm.R1, regOff), asm.Add.Imm(asm.R1, 2), asm.Add.Reg(asm.R1, n))
	p.setLocal(workPos, asm.R1)
	p.add(asm.Sub.Imm(code, optRequested))
	p.ifImm(code, asm.JGT, optServer-optRequested, p.more)
	p.add(asm.Mov.Imm(bit, 1), asm.LSh.Reg(bit, code))
	p.local(asm.R1, workSeen)
	p.add(asm.Mov.Reg(asm.R2, asm.R1), asm.And.Reg(asm.R2, bit), asm.Or.Reg(asm.R1, bit))
	p.ifImm(asm.R2, asm.JNE, 0, bad)
	p.setLocal(workSeen, asm.R1)
	p.ifImm(code, asm.JEq, optOverload-optRequested, bad)
	typ := p.newLabel()
	p.ifImm(code, asm.JEq, optType-optRequested, typ)
	p.ifImm(n, asm.JNE, 4, bad)
	p.setLocal(workFirst, code)
	p.read(regOff, 2, 4, workWindow)
	p.local(code, workFirst)
	p.at(asm.R1, 0, 4)
	for _, c := range []int16{optRequested, optLease, optServer} {
		next := p.newLabel()
		p.ifImm(code, asm.JNE, int32(c-optRequested), next)
		p.setLocal(option(c), asm.R1)
		p.place(next)
	}
	p.jump(p.more)
	p.place(typ)
	p.ifImm(n, asm.JNE, 1, bad)
	p.read(regOff, 2, 1, workWindow)
	p.at(asm.R1, 0, 1)
	p.setLocal(option(optType), asm.R1)
	p.jump(p.more)
	p.place(pad)
	p.add(asm.Add.Imm(regOff, 1))
	p.setLocal(workPos, regOff)
}

// optionDHCP6 is one turn of the walk: an option of the message, or one inside
// an identity association.
func (p *parser) optionDHCP6() {
	bad, end := p.stopWith(frame.MalformedDHCP), p.stopWith(frame.OK)
	const code, n, next = asm.R3, asm.R4, asm.R5
	outer, inner, last, some := p.newLabel(), p.newLabel(), p.newLabel(), p.newLabel()
	p.local(asm.R1, workInner)
	p.ifImm(asm.R1, asm.JEq, 0, outer)
	p.add(asm.Mov.Reg(regEnd, asm.R1))
	p.place(outer)
	p.left(asm.R2)
	p.ifImm(asm.R2, asm.JNE, 0, some)
	p.ifImm(asm.R1, asm.JNE, 0, last)
	p.jump(end)
	p.place(last) // the walk goes on behind the association
	p.add(storeWord(regWork, workInner, 0))
	p.jump(p.more)
	p.place(some)
	p.ifImm(asm.R2, asm.JLT, 4, bad)
	p.window(4)
	p.at(code, 0, 2)
	p.at(n, 2, 2)
	p.left(asm.R1)
	p.add(asm.Sub.Imm(asm.R1, 4))
	p.ifReg(n, asm.JGT, asm.R1, bad)
	p.add(asm.Add.Imm(regOff, 4), asm.Mov.Reg(next, regOff), asm.Add.Reg(next, n))
	p.setLocal(workPos, next)
	p.local(asm.R1, workWant)
	p.ifImm(asm.R1, asm.JNE, 0, p.more) // a relay's: not looked into
	p.local(asm.R1, workInner)
	p.ifImm(asm.R1, asm.JNE, 0, inner)
	p.messageOption6(code, n, next, bad)
	p.place(inner)
	p.ifImm(code, asm.JNE, opt6Address, p.more)
	p.ifImm(n, asm.JLT, 24, bad)
	p.local(asm.R1, targetWord)
	p.local(asm.R2, targetWord+8)
	p.add(asm.Or.Reg(asm.R1, asm.R2))
	p.ifImm(asm.R1, asm.JNE, 0, p.more)
	p.window(24)
	p.at(asm.R1, 0, 8)
	p.at(asm.R2, 8, 8)
	p.setLocal(targetWord, asm.R1)
	p.setLocal(targetWord+8, asm.R2)
	p.at(asm.R1, 20, 4)
	p.local(asm.R2, leaseWord)
	p.add(asm.Or.Reg(asm.R1, asm.R2))
	p.setLocal(leaseWord, asm.R1)
}

// messageOption6 looks at an option of the message itself.
func (p *parser) messageOption6(code, n, next asm.Register, bad label) {
	unicast, temporary, association := p.newLabel(), p.newLabel(), p.newLabel()
	p.ifImm(code, asm.JEq, opt6Unicast, unicast)
	p.ifImm(code, asm.JEq, opt6IATA, temporary)
	p.ifImm(code, asm.JNE, opt6IANA, p.more)
	p.ifImm(n, asm.JLT, 12, bad) // IAID, T1, T2
	p.add(asm.Add.Imm(regOff, 12))
	p.jump(association)
	p.place(temporary)
	p.ifImm(n, asm.JLT, 4, bad) // IAID
	p.add(asm.Add.Imm(regOff, 4))
	p.place(association)
	p.setLocal(workPos, regOff)
	p.setLocal(workInner, next)
	p.jump(p.more)
	p.place(unicast)
	p.ifImm(n, asm.JNE, 16, bad)
	p.window(16)
	p.at(asm.R1, 0, 8)
	p.at(asm.R2, 8, 8)
	p.setLocal(serverWord, asm.R1)
	p.setLocal(serverWord+8, asm.R2)
	p.jump(p.more)
}
