package ebpf

import (
	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf/asm"
)

// The strict parser, as package frame has it: the same checks in the same
// order, the same reason for each frame it refuses, the same key. It is a
// function parse(skb, work, at) that returns a [frame.Reason]; the frame begins
// at the byte at, and the key is written to the beginning of work.
//
// Of a frame it reads copies (bpf_skb_load_bytes), each once, into a window of
// its work: what is compared there is what is written to the key.

// Fields of struct __sk_buff, include/uapi/linux/bpf.h v6.18.
const (
	skbLen         = 0
	skbVLANPresent = 20
	skbVLANTCI     = 24
)

// Work is an element of a map, of which each processor has its own: see
// scratch.
const (
	workKey    = 0
	workMeta   = contextLen + 8*iota // what wordMeta will be
	workType                         // EtherType so far
	workTags                         // VLAN tags so far
	workProto                        // IP protocol
	workFrag                         // what the packet is to its datagram: see fragNone
	workPos                          // where a walk is
	workEnd                          // where it ends
	workResult                       // what it found
	workWant                         // of NDP: the option that is wanted
	workMAC                          // and what it held
	workFirst                        // of NDP: the first 8 bytes of the message
	workThere                        // of a redirect: the first octet of its destination
	workOp                           // of DHCP
	workOption                       // 50, and the four behind it: what options said
	_
	_
	_
	_
	workSeen  // which options were there
	workInner // where the options inside an option end; 0 for none
	workEther // the Ethernet header, 2 bytes in, so that its fields are aligned
	_
	_
	workWindow // what was read last
	workLen    = workWindow + windowLen
)

// windowLen is the most that is read at once: 44 bytes of DHCP.
const windowLen = 48

// The kinds of fragments, as in package frame.
const (
	fragNone = iota
	fragAtomic
	fragFirst
	fragLater
)

// The registers of the parser and of its walks.
const (
	regSkb  = asm.R6
	regWork = asm.R7
	regOff  = asm.R8 // where the header at hand begins
	regEnd  = asm.R9 // where the packet ends
)

// A parser writes the function. Its walks are functions that bpf_loop calls.
type parser struct {
	*emitter
	entry                    label
	accept                   label // takes the class in R1
	rejects                  [frame.NumReasons]label
	options4, extensions     label
	optionsNDP, dhcp4, dhcp6 label
	stop                     label // ends a walk with the result in R1
	more                     label // goes on with it
}

// writeParser writes the function and what it calls, behind what is there, and
// returns its label.
func (e *emitter) writeParser() label {
	p := &parser{emitter: e}
	for _, l := range []*label{&p.entry, &p.accept, &p.options4, &p.extensions, &p.optionsNDP, &p.dhcp4, &p.dhcp6} {
		*l = e.newLabel()
	}
	e.function(p.entry, "parse")
	p.ethernet()
	p.place(p.accept)
	p.add(
		asm.LoadMem(asm.R2, regWork, workMeta, asm.DWord), asm.Or.Reg(asm.R2, asm.R1),
		asm.StoreMem(regWork, word(frame.ClassWord), asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, int32(frame.OK)), asm.Return(),
	)
	for r, l := range p.rejects {
		if l != 0 {
			p.place(l)
			p.add(asm.Mov.Imm(asm.R0, int32(r)), asm.Return())
		}
	}
	p.walks()
	return p.entry
}

// word is where a word of the key lies.
func word(n uint8) int16 { return workKey + 8*int16(n) }

// reject is where the parser ends that refuses a frame; in a walk, where the
// walk does.
func (p *parser) reject(r frame.Reason) label {
	if p.rejects[r] == 0 {
		p.rejects[r] = p.newLabel()
	}
	return p.rejects[r]
}

// read reads n bytes of the frame, from those at the place in off on, into
// work at to. That they are there was checked before; R0 to R5 are lost.
func (p *parser) read(off asm.Register, plus, n int32, to int16) {
	p.add(
		asm.Mov.Reg(asm.R1, regSkb), asm.Mov.Reg(asm.R2, off), asm.Add.Imm(asm.R2, plus),
		asm.Mov.Reg(asm.R3, regWork), asm.Add.Imm(asm.R3, int32(to)),
		asm.Mov.Imm(asm.R4, n), asm.FnSkbLoadBytes.Call(),
	)
	p.ifImm(asm.R0, asm.JNE, 0, p.reject(frame.Truncated))
}

// window reads n bytes of the header at hand.
func (p *parser) window(n int32) { p.read(regOff, 0, n, workWindow) }

// get makes r the number of n bytes, big-endian, at a place of work. Places are
// aligned or taken in pieces; R0 is lost then.
func (p *parser) get(r asm.Register, at int16, n int16) {
	switch {
	case n == 1:
		p.add(asm.LoadMem(r, regWork, at, asm.Byte))
	case at%n == 0:
		size := map[int16]asm.Size{2: asm.Half, 4: asm.Word, 8: asm.DWord}[n]
		p.add(asm.LoadMem(r, regWork, at, size), asm.HostTo(asm.BE, r, size))
	default:
		half := n / 2
		p.get(r, at, half)
		p.add(asm.LSh.Imm(r, int32(8*half)))
		switch {
		case (at+half)%half == 0:
			p.get(asm.R0, at+half, half)
			p.add(asm.Or.Reg(r, asm.R0))
		default: // 4 bytes at an even place
			p.get(asm.R0, at+half, 2)
			p.add(asm.LSh.Imm(asm.R0, 16), asm.Or.Reg(r, asm.R0))
			p.get(asm.R0, at+half+2, 2)
			p.add(asm.Or.Reg(r, asm.R0))
		}
	}
}

// at gets n bytes of the window.
func (p *parser) at(r asm.Register, at, n int16) { p.get(r, workWindow+at, n) }

func (p *parser) local(r asm.Register, at int16) {
	p.add(asm.LoadMem(r, regWork, at, asm.DWord))
}

func (p *parser) setLocal(at int16, r asm.Register) {
	p.add(asm.StoreMem(regWork, at, r, asm.DWord))
}

// meta adds r to what wordMeta will be. R0 is lost.
func (p *parser) meta(r asm.Register) {
	p.local(asm.R0, workMeta)
	p.add(asm.Or.Reg(asm.R0, r))
	p.setLocal(workMeta, asm.R0)
}

// left makes r how many bytes there are from the header at hand on.
func (p *parser) left(r asm.Register) {
	p.add(asm.Mov.Reg(r, regEnd), asm.Sub.Reg(r, regOff))
}

// accepted ends with a frame of class c.
func (p *parser) accepted(c frame.Class) {
	p.add(asm.Mov.Imm(asm.R1, int32(c)))
	p.jump(p.accept)
}

// Numbers of package frame, which keeps them to itself.
const (
	headerLen  = 14
	minPayload = 46
	minType    = 0x0600
	typeIPv4   = 0x0800
	typeARP    = 0x0806
	typeIPv6   = 0x86dd

	shiftLength   = 8
	shiftProto    = 24
	shiftTTL      = 32
	shiftFrag     = 40
	shiftDSCP     = 50
	shiftICMPType = 24
	shiftICMPCode = 16
)

// ethernet reads the header and its tags. The kernel takes the outer tag out of
// a frame before programs of a card see it, and keeps it beside: it is a part
// of the frame all the same.
func (p *parser) ethernet() {
	bare := p.newLabel()
	p.add(asm.Mov.Reg(regSkb, asm.R1), asm.Mov.Reg(regWork, asm.R2), asm.Mov.Reg(regOff, asm.R3))
	p.add(storeWord(regWork, word(frame.ClassWord), 0), storeWord(regWork, workTags, 0), storeWord(regWork, workFrag, 0))
	p.add(asm.LoadMem(regEnd, regSkb, skbLen, asm.Word))
	p.left(asm.R2)
	p.ifImm(asm.R2, asm.JLT, headerLen, p.reject(frame.Truncated))
	p.add(asm.LoadMem(asm.R1, regSkb, skbVLANPresent, asm.Word))
	p.ifImm(asm.R1, asm.JEq, 0, bare)
	p.add(asm.Add.Imm(asm.R2, 4))
	p.place(bare)
	p.ifImm(asm.R2, asm.JGT, frame.MaxLength, p.reject(frame.TooLong))
	p.add(asm.LSh.Imm(asm.R2, shiftLength))
	p.setLocal(workMeta, asm.R2)
	p.read(regOff, 0, headerLen, workEther+2)
	p.add(asm.Add.Imm(regOff, headerLen))

	const src, typ = asm.R3, asm.R4
	p.get(src, workEther+8, 8)
	p.add(asm.Mov.Reg(typ, src), asm.And.Imm(typ, 0xffff), asm.Xor.Reg(src, typ))
	p.setLocal(workType, typ)
	p.add(asm.Mov.Reg(asm.R1, src), asm.RSh.Imm(asm.R1, 56), asm.And.Imm(asm.R1, 1))
	p.ifImm(asm.R1, asm.JNE, 0, p.reject(frame.GroupSource))
	p.ifImm(src, asm.JEq, 0, p.reject(frame.ZeroSource))
	beside := p.newLabel()
	p.add(asm.LoadMem(asm.R1, regSkb, skbVLANPresent, asm.Word))
	p.ifImm(asm.R1, asm.JEq, 0, beside)
	p.add(asm.LoadMem(asm.R1, regSkb, skbVLANTCI, asm.Word), asm.And.Imm(asm.R1, 0xfff), asm.LSh.Imm(asm.R1, 4), asm.Or.Reg(src, asm.R1))
	p.add(storeWord(regWork, workTags, 1))
	p.place(beside)
	p.add(asm.StoreMem(regWork, word(frame.SourceWord), src, asm.DWord))
	for range frame.MaxTags + 1 {
		next := p.newLabel()
		p.tag(next)
		p.place(next)
	}
	p.local(asm.R1, workTags)
	p.local(asm.R2, word(frame.SourceWord))
	p.add(asm.Or.Reg(asm.R2, asm.R1))
	p.setLocal(word(frame.SourceWord), asm.R2)
	p.get(asm.R2, workEther+2, 4)
	p.get(asm.R3, workEther+6, 2)
	p.add(asm.LSh.Imm(asm.R2, 32), asm.LSh.Imm(asm.R3, 16), asm.Or.Reg(asm.R2, asm.R3))
	p.local(asm.R1, workType)
	p.add(asm.Or.Reg(asm.R2, asm.R1))
	p.setLocal(word(0), asm.R2)

	ipv4, ipv6, arp := p.newLabel(), p.newLabel(), p.newLabel()
	p.ifImm(asm.R1, asm.JEq, typeIPv4, ipv4)
	p.ifImm(asm.R1, asm.JEq, typeIPv6, ipv6)
	p.ifImm(asm.R1, asm.JEq, typeARP, arp)
	p.ifImm(asm.R1, asm.JLT, minType, p.reject(frame.LLC))
	p.accepted(frame.ClassOther)
	p.place(ipv4)
	p.ipv4()
	p.place(arp)
	p.arp()
	p.place(ipv6)
	p.ipv6()
}

// tag reads one tag, if there is one.
func (p *parser) tag(next label) {
	tagged, more := p.newLabel(), p.newLabel()
	p.local(asm.R1, workType)
	p.ifImm(asm.R1, asm.JEq, 0x8100, tagged) // 802.1Q
	p.ifImm(asm.R1, asm.JEq, 0x88a8, tagged) // 802.1ad
	p.ifImm(asm.R1, asm.JNE, 0x9100, next)   // before 802.1ad
	p.place(tagged)
	p.local(asm.R1, workTags)
	p.ifImm(asm.R1, asm.JEq, frame.MaxTags, p.reject(frame.TooManyTags))
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 4, p.reject(frame.Truncated))
	p.window(4)
	p.local(asm.R1, workTags)
	p.add(asm.Mov.Reg(asm.R2, asm.R1), asm.Add.Imm(asm.R2, 1))
	p.setLocal(workTags, asm.R2)
	p.ifImm(asm.R1, asm.JNE, 0, more)
	p.at(asm.R1, 0, 2)
	p.add(asm.And.Imm(asm.R1, 0xfff), asm.LSh.Imm(asm.R1, 4))
	p.local(asm.R2, word(frame.SourceWord))
	p.add(asm.Or.Reg(asm.R2, asm.R1))
	p.setLocal(word(frame.SourceWord), asm.R2)
	p.place(more)
	p.at(asm.R1, 2, 2)
	p.setLocal(workType, asm.R1)
	p.add(asm.Add.Imm(regOff, 4))
}

// trailing refuses a frame that goes on behind the n bytes of its packet by
// more than padding. R1 is lost.
func (p *parser) trailing(n asm.Register) {
	ok := p.newLabel()
	p.left(asm.R1)
	p.ifReg(asm.R1, asm.JLE, n, ok)
	p.ifImm(asm.R1, asm.JGT, minPayload, p.reject(frame.TrailingBytes))
	p.place(ok)
}

func (p *parser) arp() {
	bad := p.reject(frame.MalformedARP)
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 28, bad)
	p.window(28)
	p.at(asm.R1, 0, 4)
	p.ifImm32(asm.R1, asm.JNE, 0x0001_0800, bad) // Ethernet, IPv4
	p.at(asm.R1, 4, 2)
	p.ifImm32(asm.R1, asm.JNE, 0x0604, bad) // 6 and 4 bytes
	p.at(asm.R3, 6, 2)
	p.add(asm.Mov.Reg(asm.R1, asm.R3), asm.Sub.Imm(asm.R1, 1))
	p.ifImm(asm.R1, asm.JGT, 1, bad) // request or reply
	p.add(asm.Mov.Imm(asm.R2, 28))
	p.trailing(asm.R2)
	p.at(asm.R1, 8, 4)
	p.at(asm.R2, 12, 2)
	p.add(asm.LSh.Imm(asm.R1, 32), asm.LSh.Imm(asm.R2, 16), asm.Or.Reg(asm.R1, asm.R2), asm.Or.Reg(asm.R1, asm.R3))
	p.setLocal(word(frame.TransportWord), asm.R1)
	p.at(asm.R1, 14, 4)
	p.at(asm.R2, 24, 4)
	p.add(asm.LSh.Imm(asm.R1, 32), asm.Or.Reg(asm.R1, asm.R2))
	p.setLocal(word(frame.AddressWord), asm.R1)
	p.at(asm.R1, 18, 2)
	p.at(asm.R2, 20, 4)
	p.add(asm.LSh.Imm(asm.R1, 48), asm.LSh.Imm(asm.R2, 16), asm.Or.Reg(asm.R1, asm.R2))
	p.setLocal(macWord, asm.R1)
	p.accepted(frame.ClassARP)
}

// The words of a key by what they hold.
var (
	macWord    = word(frame.ARPTargetMAC.Info().Word)
	targetWord = word(frame.NDPTarget.Info().Word)
	serverWord = word(frame.DHCPServer6.Info().Word)
	leaseWord  = word(frame.DHCPLeaseTime.Info().Word)
	src6Word   = word(frame.IPv6Src.Info().Word)
	dst6Word   = word(frame.IPv6Dst.Info().Word)
)
