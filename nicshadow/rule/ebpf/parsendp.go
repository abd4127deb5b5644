package ebpf

import (
	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf/asm"
)

// Types of neighbour discovery (RFC 4861, 4).
const (
	typeRS       = 133
	typeRA       = 134
	typeNS       = 135
	typeNA       = 136
	typeRedirect = 137
)

// ndpForms says of each type, from RS on, how long the message is before its
// options, and which of these carries a link-layer address.
var ndpForms = [...][2]int32{{8, 1}, {16, 1}, {24, 1}, {24, 2}, {40, 2}}

// ndp reads a message of the type in R3 with the code in R4.
func (p *parser) ndp() {
	bad := p.reject(frame.MalformedNDP)
	const typ, code = asm.R3, asm.R4
	p.local(asm.R1, workFrag)
	p.ifImm(asm.R1, asm.JNE, fragNone, p.reject(frame.FragmentedNDP))
	p.local(asm.R1, workMeta)
	p.add(asm.RSh.Imm(asm.R1, shiftTTL), asm.And.Imm(asm.R1, 0xff))
	p.ifImm(asm.R1, asm.JNE, 255, bad)
	p.ifImm(code, asm.JNE, 0, bad)
	options, have := p.newLabel(), [len(ndpForms)]label{}
	for i := range ndpForms[1:] {
		have[i+1] = p.newLabel()
		p.ifImm(typ, asm.JEq, typeRS+1+int32(i), have[i+1])
	}
	for i, form := range ndpForms {
		if i > 0 {
			p.place(have[i])
		}
		p.fixedNDP(form)
		p.jump(options)
	}
	p.place(options)
	p.setLocal(workEnd, regEnd)
	p.add(storeWord(regWork, workMAC, 0))
	p.walk(p.optionsNDP, frame.MaxLength/8+1, frame.MalformedNDP)
	p.local(asm.R1, workMAC)
	p.setLocal(macWord, asm.R1)
	p.addressesNDP()
	p.accepted(frame.ClassIPv6NDP)
}

// fixedNDP reads what comes before the options.
func (p *parser) fixedNDP(form [2]int32) {
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, form[0], p.reject(frame.MalformedNDP))
	p.window(form[0])
	p.at(asm.R1, 0, 8)
	p.setLocal(workFirst, asm.R1)
	if form[0] >= 24 {
		p.at(asm.R1, 8, 8)
		p.at(asm.R2, 16, 8)
		p.setLocal(targetWord, asm.R1)
		p.setLocal(targetWord+8, asm.R2)
	}
	if form[0] == 40 {
		p.at(asm.R1, 24, 1)
		p.setLocal(workThere, asm.R1)
	}
	p.add(storeWord(regWork, workWant, form[1]))
	p.add(asm.Add.Imm(regOff, form[0]))
	p.setLocal(workPos, regOff)
}

// addressesNDP checks the rules about addresses.
func (p *parser) addressesNDP() {
	const typ, unspecified, mac = asm.R3, asm.R4, asm.R5
	bad, ok := p.reject(frame.MalformedNDP), p.newLabel()
	p.local(typ, workFirst)
	p.add(asm.RSh.Imm(typ, 56))
	p.local(unspecified, src6Word)
	p.local(asm.R1, src6Word+8)
	p.add(asm.Or.Reg(unspecified, asm.R1))
	p.local(mac, workMAC)
	ra, ns, na, redirect := p.newLabel(), p.newLabel(), p.newLabel(), p.newLabel()
	p.ifImm(typ, asm.JEq, typeRA, ra)
	p.ifImm(typ, asm.JEq, typeNS, ns)
	p.ifImm(typ, asm.JEq, typeNA, na)
	p.ifImm(typ, asm.JEq, typeRedirect, redirect)

	p.ifImm(unspecified, asm.JNE, 0, ok) // a solicitation of routers
	p.ifImm(mac, asm.JNE, 0, bad)
	p.jump(ok)

	p.place(redirect)
	p.local(asm.R1, workThere)
	p.ifImm(asm.R1, asm.JEq, 0xff, bad)
	p.place(ra)
	p.local(asm.R1, src6Word)
	p.add(asm.RSh.Imm(asm.R1, 54))
	p.ifImm(asm.R1, asm.JNE, 0xfe80>>6, bad)
	p.jump(ok)

	p.place(ns)
	p.high(asm.R1, targetWord)
	p.ifImm(asm.R1, asm.JEq, 0xff, bad)
	p.ifImm(unspecified, asm.JNE, 0, ok)
	// A probe goes to the solicited-node address, and names nobody.
	p.ifImm(mac, asm.JNE, 0, bad)
	p.local(asm.R1, dst6Word)
	p.add(asm.LoadImm(asm.R2, -0xfe<<48, asm.DWord)) // ff02::/64
	p.ifReg(asm.R1, asm.JNE, asm.R2, bad)
	p.local(asm.R1, dst6Word+8)
	p.add(asm.RSh.Imm(asm.R1, 24))
	p.ifImm(asm.R1, asm.JNE, 0x1ff, bad)
	p.jump(ok)

	p.place(na)
	p.high(asm.R1, targetWord)
	p.ifImm(asm.R1, asm.JEq, 0xff, bad)
	p.high(asm.R1, dst6Word)
	p.ifImm(asm.R1, asm.JNE, 0xff, ok)
	p.local(asm.R1, workFirst)
	p.add(asm.RSh.Imm(asm.R1, 30), asm.And.Imm(asm.R1, 1)) // solicited, yet to a group
	p.ifImm(asm.R1, asm.JNE, 0, bad)
	p.place(ok)
}

// high is the first octet of an address.
func (p *parser) high(r asm.Register, at int16) {
	p.local(r, at)
	p.add(asm.RSh.Imm(r, 56))
}
