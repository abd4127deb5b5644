package ebpf

import (
	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// A walk looks at one thing a turn: an option, an extension header. It is a
// function that bpf_loop calls, so that the verifier looks at one turn and not
// at each: where the walk is lies in work. A turn gets the skb and its work by
// a context on the stack, 8 bytes each.
const (
	walkSkb  = -16
	walkWork = -8
)

// walk calls turn so many times at most, and refuses the frame where it ends
// with another result than OK, or has not ended. R0 to R5 are lost.
func (p *parser) walk(turn label, most int32, endless frame.Reason) {
	p.add(
		storeWord(regWork, workResult, int32(endless)),
		asm.StoreMem(asm.RFP, walkSkb, regSkb, asm.DWord), asm.StoreMem(asm.RFP, walkWork, regWork, asm.DWord),
		asm.Mov.Imm(asm.R1, most),
	)
	p.function1(asm.R2, turn)
	p.add(asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, walkSkb), asm.Mov.Imm(asm.R4, 0), asm.FnLoop.Call())
	ok := p.newLabel()
	p.local(asm.R0, workResult)
	p.ifImm(asm.R0, asm.JEq, int32(frame.OK), ok)
	p.add(asm.Return())
	p.place(ok)
}

// walks writes the functions.
func (p *parser) walks() {
	p.turn(p.options4, "options4", p.option4)
	p.turn(p.extensions, "extensions", p.extension)
	p.turn(p.optionsNDP, "options_ndp", p.optionNDP)
	p.turn(p.dhcp4, "options_dhcp", p.optionDHCP4)
	p.turn(p.dhcp6, "options_dhcp6", p.optionDHCP6)
}

// turn writes one function: body looks at what is at regOff, has the next place
// stored in workPos, and goes on to p.more or behind itself; or it jumps to what
// stopWith returns.
func (p *parser) turn(at label, name string, body func()) {
	p.function(at, name)
	p.more, p.stop = p.newLabel(), p.newLabel()
	p.rejects = [frame.NumReasons]label{}
	p.add(
		asm.LoadMem(regSkb, asm.R2, 0, asm.DWord), asm.LoadMem(regWork, asm.R2, walkWork-walkSkb, asm.DWord),
		asm.LoadMem(regOff, regWork, workPos, asm.DWord), asm.LoadMem(regEnd, regWork, workEnd, asm.DWord),
	)
	if name == "extensions" {
		p.add(asm.StoreMem(regWork, workFirst, asm.R1, asm.DWord)) // which turn it is
	}
	body()
	p.place(p.more)
	p.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
	for r, l := range p.rejects {
		if l != 0 {
			p.place(l)
			p.add(asm.Mov.Imm(asm.R1, int32(r)))
			p.jump(p.stop)
		}
	}
	p.place(p.stop)
	p.setLocal(workResult, asm.R1)
	p.add(asm.Mov.Imm(asm.R0, 1), asm.Return())
}

// stopWith is where a turn ends that is the last, with that result.
func (p *parser) stopWith(r frame.Reason) label { return p.reject(r) }

// option4 is an option of an IPv4 header (RFC 791, 3.1).
func (p *parser) option4() {
	bad, end, pad := p.stopWith(frame.MalformedIPv4), p.stopWith(frame.OK), p.newLabel()
	p.ifReg(regOff, asm.JGE, regEnd, end)
	p.window(1)
	p.at(asm.R1, 0, 1)
	p.ifImm(asm.R1, asm.JEq, 0, end)
	p.ifImm(asm.R1, asm.JEq, 1, pad)
	for _, route := range []int32{131, 137} {
		p.ifImm(asm.R1, asm.JEq, route, p.stopWith(frame.SourceRoute))
	}
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 2, bad)
	p.window(2)
	p.at(asm.R2, 1, 1)
	p.ifImm(asm.R2, asm.JLT, 2, bad)
	p.left(asm.R1)
	p.ifReg(asm.R2, asm.JGT, asm.R1, bad)
	p.add(asm.Add.Reg(regOff, asm.R2))
	p.setLocal(workPos, regOff)
	p.jump(p.more)
	p.place(pad)
	p.add(asm.Add.Imm(regOff, 1))
	p.setLocal(workPos, regOff)
}

// extension is an extension header of IPv6.
func (p *parser) extension() {
	malformed, cut, end := p.stopWith(frame.MalformedIPv6), p.stopWith(frame.TruncatedHeaders), p.stopWith(frame.OK)
	p.local(asm.R1, workProto)
	p.unlessExtension(asm.R1, end)
	p.local(asm.R1, workFirst)
	p.ifImm(asm.R1, asm.JEq, frame.MaxExtensionHeaders, p.stopWith(frame.ExtensionHeaders))
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JLT, 8, cut)
	p.window(8)
	const n = asm.R3
	p.at(n, 1, 1)
	p.add(asm.Add.Imm(n, 1), asm.LSh.Imm(n, 3))
	hop, routing, fragment, both := p.newLabel(), p.newLabel(), p.newLabel(), p.newLabel()
	p.local(asm.R1, workProto)
	p.ifImm(asm.R1, asm.JEq, protoHopByHop, hop)
	p.ifImm(asm.R1, asm.JEq, protoRouting, routing)
	p.ifImm(asm.R1, asm.JEq, protoFragment, fragment)
	p.jump(both)
	p.place(hop) // only right behind the IPv6 header
	p.local(asm.R1, workFirst)
	p.ifImm(asm.R1, asm.JNE, 0, malformed)
	p.jump(both)
	p.place(routing)
	route := p.stopWith(frame.SourceRoute)
	p.at(asm.R1, 2, 1)
	p.ifImm(asm.R1, asm.JEq, 0, route)
	p.at(asm.R1, 3, 1)
	p.ifImm(asm.R1, asm.JNE, 0, route)
	p.jump(both)
	p.place(fragment)
	p.fragmentHeader()
	p.add(asm.Mov.Imm(n, 8))
	p.place(both)
	p.left(asm.R1)
	p.ifReg(n, asm.JGT, asm.R1, cut)
	p.at(asm.R1, 0, 1)
	p.setLocal(workProto, asm.R1)
	p.add(asm.Add.Reg(regOff, n))
	p.setLocal(workPos, regOff)
	// Behind a later fragment's header is the middle of a datagram.
	p.local(asm.R1, workFrag)
	p.ifImm(asm.R1, asm.JEq, fragLater, end)
}

// fragmentHeader reads a Fragment header (RFC 8200, 4.5).
func (p *parser) fragmentHeader() {
	malformed := p.stopWith(frame.MalformedIPv6)
	p.local(asm.R1, workFrag)
	p.ifImm(asm.R1, asm.JNE, fragNone, malformed)
	p.at(asm.R1, 1, 1)
	p.ifImm(asm.R1, asm.JNE, 0, malformed)
	const offset, more, n, kind = asm.R3, asm.R4, asm.R5, asm.R2
	p.at(more, 2, 2)
	p.add(asm.Mov.Reg(asm.R1, more), asm.And.Imm(asm.R1, 6))
	p.ifImm(asm.R1, asm.JNE, 0, malformed)
	p.add(asm.Mov.Reg(offset, more), asm.RSh.Imm(offset, 3), asm.And.Imm(more, 1))
	p.left(n)
	p.add(asm.Sub.Imm(n, 8))
	p.fragment(more, offset, n, 65535, frame.MalformedIPv6)
	known := p.newLabel()
	p.add(asm.Mov.Imm(kind, fragLater))
	p.ifImm(offset, asm.JNE, 0, known)
	p.add(asm.Mov.Imm(kind, fragFirst))
	p.ifImm(more, asm.JNE, 0, known)
	p.add(asm.Mov.Imm(kind, fragAtomic))
	p.place(known)
	p.setLocal(workFrag, kind)
}

// optionNDP is an option of neighbour discovery: type, length in 8-byte units,
// value.
func (p *parser) optionNDP() {
	bad, other := p.stopWith(frame.MalformedNDP), p.newLabel()
	address := p.newLabel()
	p.left(asm.R1)
	p.ifImm(asm.R1, asm.JEq, 0, p.stopWith(frame.OK))
	p.ifImm(asm.R1, asm.JLT, 8, bad)
	p.window(8)
	const typ, n = asm.R3, asm.R4
	p.at(typ, 0, 1)
	p.at(n, 1, 1)
	p.ifImm(n, asm.JEq, 0, bad)
	p.add(asm.LSh.Imm(n, 3))
	p.left(asm.R1)
	p.ifReg(n, asm.JGT, asm.R1, bad)
	p.ifImm(typ, asm.JEq, 1, address)
	p.ifImm(typ, asm.JNE, 2, other)
	p.place(address)
	p.local(asm.R1, workWant)
	p.ifReg(typ, asm.JNE, asm.R1, bad)
	p.local(asm.R1, workMAC)
	p.ifImm(asm.R1, asm.JNE, 0, bad)
	p.ifImm(n, asm.JNE, 8, bad)
	p.at(asm.R1, 0, 8)
	p.add(asm.LSh.Imm(asm.R1, 16))
	p.ifImm(asm.R1, asm.JEq, 0, bad)
	p.setLocal(workMAC, asm.R1)
	p.place(other)
	p.add(asm.Add.Reg(regOff, n))
	p.setLocal(workPos, regOff)
}

// Functions that are called by address must be named to the kernel (BTF), and
// so must all others of their program then.

// function places l, where a function begins.
func (e *emitter) function(l label, name string) {
	e.place(l)
	if e.names == nil {
		e.names = map[int]string{}
	}
	e.names[len(e.insns)] = name
}

// function1 makes r the address of the function that begins at l.
func (e *emitter) function1(r asm.Register, l label) {
	e.byAddress = true
	e.addTo(asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: r, Src: asm.PseudoFunc}, l)
}

// named is the instruction that begins a function of that name.
func named(in asm.Instruction, name string) asm.Instruction {
	return btf.WithFuncMetadata(in, &btf.Func{
		Name: name, Linkage: btf.StaticFunc,
		Type: &btf.FuncProto{Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}},
	})
}
