package ebpf

import (
	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf/asm"
)

// IP protocol numbers.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoDestOpts = 60
)

func (p *parser) ipv4() {
	bad := p.reject(frame.MalformedIPv4)
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 20, bad)
	p.window(20)
	const total = asm.R2
	p.at(total, 2, 2)
	p.ifImm(total, asm.JLT, 20, bad)
	p.left(asm.R1)
	p.ifReg(total, asm.JGT, asm.R1, bad)
	p.trailing(total)
	p.at(asm.R3, 8, 2)
	p.at(asm.R4, 1, 1)
	p.add(asm.LSh.Imm(asm.R3, shiftProto), asm.RSh.Imm(asm.R4, 2), asm.LSh.Imm(asm.R4, shiftDSCP), asm.Or.Reg(asm.R3, asm.R4))
	p.meta(asm.R3)
	p.at(asm.R3, 12, 4)
	p.at(asm.R4, 16, 4)
	p.add(asm.LSh.Imm(asm.R3, 32), asm.Or.Reg(asm.R3, asm.R4))
	p.setLocal(word(frame.AddressWord), asm.R3)
	p.at(asm.R3, 9, 1)
	p.setLocal(workProto, asm.R3)
	p.add(asm.Mov.Reg(regEnd, regOff), asm.Add.Reg(regEnd, total))
	// Version 4, no options, no flag but "do not fragment".
	unusual, plain, later := p.newLabel(), p.newLabel(), p.newLabel()
	p.at(asm.R1, 0, 1)
	p.ifImm32(asm.R1, asm.JNE, 0x45, unusual)
	p.at(asm.R1, 6, 2)
	p.add(asm.And.Imm(asm.R1, 0xbfff))
	p.ifImm32(asm.R1, asm.JNE, 0, unusual)
	p.add(asm.Add.Imm(regOff, 20))
	p.jump(plain)
	p.place(unusual)
	p.unusual4(later)
	p.place(plain)
	p.local(asm.R1, workProto)
	tcp, udp, icmp := p.newLabel(), p.newLabel(), p.newLabel()
	p.ifImm(asm.R1, asm.JEq, protoTCP, tcp)
	p.ifImm(asm.R1, asm.JEq, protoUDP, udp)
	p.ifImm(asm.R1, asm.JEq, protoICMP, icmp)
	p.accepted(frame.ClassIPv4Other)
	p.place(later)
	p.accepted(frame.ClassIPv4Fragment)
	p.place(tcp)
	p.tcp(frame.ClassIPv4TCP)
	p.place(udp)
	p.udp(frame.ClassIPv4UDP)
	p.place(icmp)
	p.icmp(frame.ClassIPv4ICMP)
}

// unusual4 checks a header that is not the plain one. It ends behind it, with
// what it is to its datagram noted, or at later for a later fragment.
func (p *parser) unusual4(later label) {
	bad := p.reject(frame.MalformedIPv4)
	const ihl, flags = asm.R3, asm.R4
	p.at(asm.R1, 0, 1)
	p.add(asm.Mov.Reg(ihl, asm.R1), asm.RSh.Imm(asm.R1, 4), asm.And.Imm(ihl, 15), asm.LSh.Imm(ihl, 2))
	p.ifImm(asm.R1, asm.JNE, 4, bad)
	p.ifImm(ihl, asm.JLT, 20, bad)
	p.left(asm.R1)
	p.ifReg(ihl, asm.JGT, asm.R1, bad)
	p.at(flags, 6, 2)
	p.setLocal(workFirst, flags)
	p.add(asm.Mov.Reg(asm.R1, regOff), asm.Add.Imm(asm.R1, 20), asm.Add.Reg(regOff, ihl))
	none := p.newLabel()
	p.ifReg(asm.R1, asm.JGE, regOff, none)
	p.setLocal(workPos, asm.R1)
	p.setLocal(workEnd, regOff)
	p.walk(p.options4, 41, frame.MalformedIPv4)
	p.place(none)
	whole, first := p.newLabel(), p.newLabel()
	p.local(flags, workFirst)
	p.add(asm.Mov.Reg(asm.R1, flags), asm.And.Imm(asm.R1, 0x8000))
	p.ifImm(asm.R1, asm.JNE, 0, bad) // the reserved flag
	const offset, more = asm.R3, asm.R4
	p.add(asm.Mov.Reg(offset, flags), asm.And.Imm(offset, 0x1fff), asm.And.Imm(more, 0x2000))
	p.add(asm.Mov.Reg(asm.R1, offset), asm.Or.Reg(asm.R1, more))
	p.ifImm(asm.R1, asm.JEq, 0, whole)
	p.left(asm.R5)
	p.fragment(more, offset, asm.R5, 65535-20, frame.MalformedIPv4)
	p.add(asm.LoadImm(asm.R1, 1<<shiftFrag, asm.DWord))
	p.meta(asm.R1)
	p.ifImm(offset, asm.JEq, 0, first)
	p.jump(later)
	p.place(first)
	p.add(storeWord(regWork, workFrag, fragFirst))
	p.place(whole)
}

// fragment checks a fragment of n bytes, as checkFragment of package frame
// does. R1 and R2 are lost.
func (p *parser) fragment(more, offset, n asm.Register, most int32, malformed frame.Reason) {
	last, ok := p.newLabel(), p.newLabel()
	bad := p.reject(malformed)
	p.ifImm(more, asm.JEq, 0, last)
	p.ifImm(n, asm.JEq, 0, bad)
	p.add(asm.Mov.Reg(asm.R1, n), asm.And.Imm(asm.R1, 7))
	p.ifImm(asm.R1, asm.JNE, 0, bad)
	p.place(last)
	p.add(asm.Mov.Reg(asm.R1, offset), asm.LSh.Imm(asm.R1, 3), asm.Add.Reg(asm.R1, n))
	p.ifImm(asm.R1, asm.JGT, most, bad)
	p.ifImm(offset, asm.JEq, 0, ok)
	p.ifImm(offset, asm.JLT, 3, p.reject(frame.FragmentOverlap))
	p.place(ok)
}

func (p *parser) ipv6() {
	bad := p.reject(frame.MalformedIPv6)
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 40, bad)
	p.window(40)
	p.at(asm.R1, 0, 2)
	p.add(asm.Mov.Reg(asm.R3, asm.R1), asm.RSh.Imm(asm.R1, 12))
	p.ifImm(asm.R1, asm.JNE, 6, bad)
	const total = asm.R2
	p.at(total, 4, 2)
	p.add(asm.Add.Imm(total, 40))
	p.left(asm.R1)
	p.ifReg(total, asm.JGT, asm.R1, bad)
	p.trailing(total)
	p.add(asm.RSh.Imm(asm.R3, 6), asm.And.Imm(asm.R3, 63), asm.LSh.Imm(asm.R3, shiftDSCP))
	p.at(asm.R4, 7, 1)
	p.add(asm.LSh.Imm(asm.R4, shiftTTL), asm.Or.Reg(asm.R3, asm.R4))
	p.meta(asm.R3)
	for i := range int16(4) {
		p.at(asm.R3, 8+8*i, 8)
		p.setLocal(src6Word+8*i, asm.R3)
	}
	p.at(asm.R3, 6, 1)
	p.setLocal(workProto, asm.R3)
	p.add(asm.Mov.Reg(regEnd, regOff), asm.Add.Reg(regEnd, total), asm.Add.Imm(regOff, 40))
	plain := p.newLabel()
	p.unlessExtension(asm.R3, plain)
	p.setLocal(workPos, regOff)
	p.setLocal(workEnd, regEnd)
	p.walk(p.extensions, frame.MaxExtensionHeaders+1, frame.ExtensionHeaders)
	p.local(regOff, workPos)
	p.local(asm.R1, workFrag)
	p.ifImm(asm.R1, asm.JEq, fragNone, plain)
	p.add(asm.LoadImm(asm.R1, 1<<shiftFrag, asm.DWord))
	p.meta(asm.R1)
	p.place(plain)
	p.local(asm.R1, workProto)
	p.add(asm.Mov.Reg(asm.R2, asm.R1), asm.LSh.Imm(asm.R2, shiftProto))
	p.meta(asm.R2)
	tcp, udp, icmp, later := p.newLabel(), p.newLabel(), p.newLabel(), p.newLabel()
	p.local(asm.R2, workFrag)
	p.ifImm(asm.R2, asm.JEq, fragLater, later)
	p.ifImm(asm.R1, asm.JEq, protoTCP, tcp)
	p.ifImm(asm.R1, asm.JEq, protoUDP, udp)
	p.ifImm(asm.R1, asm.JEq, protoICMPv6, icmp)
	p.accepted(frame.ClassIPv6Other)
	p.place(later)
	p.accepted(frame.ClassIPv6Fragment)
	p.place(tcp)
	p.tcp(frame.ClassIPv6TCP)
	p.place(udp)
	p.udp(frame.ClassIPv6UDP)
	p.place(icmp)
	p.icmp(frame.ClassIPv6ICMP)
}

func (p *parser) unlessExtension(proto asm.Register, l label) {
	is := p.newLabel()
	for _, x := range []int32{protoHopByHop, protoRouting, protoDestOpts} {
		p.ifImm(proto, asm.JEq, x, is)
	}
	p.ifImm(proto, asm.JNE, protoFragment, l)
	p.place(is)
}

func (p *parser) tcp(c frame.Class) {
	cut := p.reject(frame.TruncatedHeaders)
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 20, cut)
	p.window(20)
	p.at(asm.R1, 12, 1)
	p.add(asm.RSh.Imm(asm.R1, 4), asm.LSh.Imm(asm.R1, 2))
	p.ifImm(asm.R1, asm.JLT, 20, p.reject(frame.MalformedTCP))
	p.left(asm.R2)
	p.ifReg(asm.R1, asm.JGT, asm.R2, cut)
	p.at(asm.R1, 0, 4)
	p.at(asm.R2, 13, 1)
	p.add(asm.LSh.Imm(asm.R1, 32), asm.And.Imm(asm.R2, 0x17), asm.Or.Reg(asm.R1, asm.R2)) // ACK, RST, SYN, FIN
	p.setLocal(word(frame.TransportWord), asm.R1)
	p.accepted(c)
}

func (p *parser) udp(c frame.Class) {
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 8, p.reject(frame.TruncatedHeaders))
	p.window(8)
	whole, bad := p.newLabel(), p.reject(frame.MalformedUDP)
	p.left(asm.R1)
	p.at(asm.R2, 4, 2)
	p.ifReg(asm.R1, asm.JEq, asm.R2, whole)
	p.local(asm.R3, workFrag)
	p.ifImm(asm.R3, asm.JNE, fragFirst, bad)
	p.ifReg(asm.R2, asm.JLE, asm.R1, bad) // the rest is still to come
	p.place(whole)
	p.at(asm.R1, 0, 4)
	p.add(asm.LSh.Imm(asm.R1, 32))
	p.setLocal(word(frame.TransportWord), asm.R1)
	p.at(asm.R1, 2, 2)
	dhcp, low := p.newLabel(), int32(67)
	if c == frame.ClassIPv6UDP {
		low = 546
	}
	p.add(asm.Sub.Imm(asm.R1, low))
	p.ifImm(asm.R1, asm.JLT, 2, dhcp)
	p.accepted(c)
	p.place(dhcp)
	p.local(asm.R1, workFrag)
	p.ifImm(asm.R1, asm.JEq, fragFirst, p.reject(frame.MalformedDHCP))
	p.add(asm.Add.Imm(regOff, 8))
	if c == frame.ClassIPv6UDP {
		p.messageDHCP6()
	} else {
		p.messageDHCP4()
	}
}

// icmp reads a message of either version. R3 and R4 keep its type and code.
func (p *parser) icmp(c frame.Class) {
	least := int32(8)
	if c == frame.ClassIPv6ICMP {
		least = 4
	}
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, least, p.reject(frame.TruncatedHeaders))
	p.window(4)
	const typ, code = asm.R3, asm.R4
	p.at(typ, 0, 1)
	p.at(code, 1, 1)
	p.add(asm.Mov.Reg(asm.R1, typ), asm.LSh.Imm(asm.R1, shiftICMPType), asm.Mov.Reg(asm.R2, code), asm.LSh.Imm(asm.R2, shiftICMPCode), asm.Or.Reg(asm.R1, asm.R2))
	p.setLocal(word(frame.TransportWord), asm.R1)
	p.add(storeWord(regWork, targetWord, 0), storeWord(regWork, targetWord+8, 0))
	quotes, ndp := p.newLabel(), p.newLabel()
	if c == frame.ClassIPv6ICMP {
		p.add(asm.Mov.Reg(asm.R1, typ), asm.Sub.Imm(asm.R1, 133))
		p.ifImm(asm.R1, asm.JLT, 5, ndp)
		p.ifImm(typ, asm.JLT, 128, quotes)
	} else {
		for _, t := range []int32{3, 4, 5, 11, 12} {
			p.ifImm(typ, asm.JEq, t, quotes)
		}
	}
	p.accepted(c)
	p.place(quotes)
	p.quoted(c)
	p.accepted(c)
	if c == frame.ClassIPv6ICMP {
		p.place(ndp)
		p.ndp()
	}
}

// quoted notes where the packet was going that an error message is about.
func (p *parser) quoted(c frame.Class) {
	bad := p.reject(frame.MalformedICMP)
	n, version := int32(20), int32(4)
	if c == frame.ClassIPv6ICMP {
		n, version = 40, 6
	}
	p.local(asm.R1, workFrag)
	p.ifImm(asm.R1, asm.JNE, fragNone, bad)
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 8+n, bad)
	p.read(regOff, 8, n, workWindow)
	p.at(asm.R1, 0, 1)
	p.add(asm.RSh.Imm(asm.R1, 4))
	p.ifImm(asm.R1, asm.JNE, version, bad)
	if c == frame.ClassIPv6ICMP {
		p.at(asm.R1, 24, 8)
		p.at(asm.R2, 32, 8)
		p.setLocal(targetWord+8, asm.R2)
		p.setLocal(targetWord, asm.R1)
		p.add(asm.Or.Reg(asm.R1, asm.R2))
	} else {
		p.at(asm.R1, 16, 4)
		p.setLocal(targetWord, asm.R1)
	}
	p.ifImm(asm.R1, asm.JEq, 0, bad)
}
