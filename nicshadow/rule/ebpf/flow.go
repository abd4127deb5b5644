package ebpf

import (
	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf/asm"
)

// flowKeyLen is the size of the key of a flow:
//
//	 0  the container's address, high half first
//	16  the other side's
//	32  kind << 32 | ports, IPv6 in bit 40
const flowKeyLen = 40

// What a frame may be to its flow: one that an answer follows, an answer to
// established(), an answer to answered().
const (
	roleAsk = 1 << iota
	roleEstablished
	roleAnswered
)

// How long flows are remembered, in nanoseconds: see nicshadow/rule.
const (
	ttlTCP  = 7200e9
	ttlUDP  = 180e9
	ttlEcho = 30e9
	ttlAsk  = 3e9
	ttlRS   = 10e9
)

// The kinds of flows. They are told apart here only.
const (
	kindTCP = 1 + iota
	kindUDP
	kindEcho
	kindARP
	kindNeighbor
	kindRouter
)

// beginFlow writes the flow of the frame to scratch. It is found for every
// frame, not where it is asked for: then it is found in one place.
func (c *compiler) beginFlow() {
	done := c.newLabel()
	c.add(storeWord(regScratch, scratchTTL, 0), storeWord(regScratch, scratchRoles, 0))
	for off := int16(0); off < flowKeyLen; off += 8 {
		c.add(storeWord(regScratch, scratchFlow+off, 0))
	}
	of := func(write func(), classes ...frame.Class) {
		here, next := c.newLabel(), c.newLabel()
		c.add(asm.LoadMem(asm.R1, regKey, offset(frame.ClassWord, 0, 1), asm.Byte))
		for _, class := range classes {
			c.ifImm32(asm.R1, asm.JEq, uint32(class), here)
		}
		c.jump(next)
		c.place(here)
		write()
		c.jump(done)
		c.place(next)
	}
	for _, six := range []bool{false, true} {
		tcp, udp, dhcp, icmp, request, reply := frame.ClassIPv4TCP, frame.ClassIPv4UDP, frame.ClassIPv4DHCP, frame.ClassIPv4ICMP, uint32(8), uint32(0)
		if six {
			tcp, udp, dhcp, icmp, request, reply = frame.ClassIPv6TCP, frame.ClassIPv6UDP, frame.ClassIPv6DHCP, frame.ClassIPv6ICMP, 128, 129
		}
		of(func() { c.connection(kindTCP, ttlTCP, six) }, tcp)
		of(func() { c.connection(kindUDP, ttlUDP, six) }, udp, dhcp)
		of(func() {
			c.roles(kindEcho, ttlEcho, frame.ICMPType, request, reply, roleEstablished, done)
			c.addresses(kindEcho, six)
		}, icmp)
	}
	of(func() { c.askARP(done) }, frame.ClassARP)
	of(func() { c.askNDP(done) }, frame.ClassIPv6NDP)
	c.place(done)
}

// connection is the flow of a frame with ports.
func (c *compiler) connection(kind, ttl int64, six bool) {
	c.setFlow(ttl, roleAsk|roleEstablished)
	c.addresses(kind, six)
	straight := c.newLabel()
	c.add(asm.LoadMem(asm.R1, regKey, offset(frame.TransportWord, 32, 4), asm.Word)) // source << 16 | destination
	c.ifImm(asm.R0, asm.JEq, 0, straight)
	c.add(asm.Mov.Reg(asm.R2, asm.R1), asm.RSh.Imm(asm.R2, 16), asm.And.Imm(asm.R1, 0xffff), asm.LSh.Imm(asm.R1, 16), asm.Or.Reg(asm.R1, asm.R2))
	c.place(straight)
	c.add(asm.StoreMem(regScratch, scratchFlow+32+lowHalf(), asm.R1, asm.Word))
}

// lowHalf is where in a word its low 32 bits lie.
func lowHalf() int16 { return offset(0, 0, 4) }

// addresses writes both, the container's first, and the kind. It leaves the
// side in R0.
func (c *compiler) addresses(kind int64, six bool) {
	word := kind << 32
	if six {
		word |= 1 << 40
		for i := range int16(4) {
			c.loadWord(asm.R2+asm.Register(i), frame.Source6Word+uint8(i))
		}
	} else {
		c.add(asm.Mov.Imm(asm.R2, 0), asm.Mov.Imm(asm.R4, 0))
		c.loadField(asm.R3, frame.IPv4Src)
		c.loadField(asm.R5, frame.IPv4Dst)
	}
	in, done := c.newLabel(), c.newLabel()
	c.add(asm.LoadMem(asm.R0, regScratch, scratchSide, asm.DWord))
	c.ifImm(asm.R0, asm.JNE, 0, in)
	c.storeFlow(0, asm.R2, asm.R3, asm.R4, asm.R5)
	c.jump(done)
	c.place(in)
	c.storeFlow(0, asm.R4, asm.R5, asm.R2, asm.R3)
	c.place(done)
	c.setWord(word)
}

func (c *compiler) storeFlow(off int16, rs ...asm.Register) {
	for i, r := range rs {
		c.add(asm.StoreMem(regScratch, scratchFlow+off+8*int16(i), r, asm.DWord))
	}
}

func (c *compiler) setWord(word int64) {
	c.add(asm.LoadImm(asm.R1, word, asm.DWord))
	c.storeFlow(32, asm.R1)
}

func (c *compiler) setFlow(ttl int64, roles int32) {
	c.add(asm.LoadImm(asm.R1, ttl, asm.DWord), asm.StoreMem(regScratch, scratchTTL, asm.R1, asm.DWord),
		storeWord(regScratch, scratchRoles, roles))
}

// whatever is the answer where all that is no question is one.
const whatever = 1 << 16

// roles tells a question from its answer by a field; what is neither is of no
// flow. R2 is 0 for a question.
func (c *compiler) roles(kind, ttl int64, f frame.Field, question, answer uint32, as int32, done label) {
	asks, both := c.newLabel(), c.newLabel()
	c.loadField(asm.R2, f)
	c.ifImm32(asm.R2, asm.JEq, question, asks)
	if answer != whatever {
		c.ifImm32(asm.R2, asm.JNE, answer, done)
	}
	c.setFlow(ttl, as)
	c.add(asm.Mov.Imm(asm.R2, 1))
	c.jump(both)
	c.place(asks)
	c.setFlow(ttl, roleAsk)
	c.add(asm.Mov.Imm(asm.R2, 0))
	c.place(both)
	c.setWord(kind << 32)
}

// askARP: who asks, and who is asked for.
func (c *compiler) askARP(done label) {
	asks := c.newLabel()
	c.roles(kindARP, ttlAsk, frame.ARPOp, 1, whatever, roleAnswered, done)
	c.loadField(asm.R3, frame.ARPSenderIP)
	c.loadField(asm.R4, frame.ARPTargetIP)
	c.storeFlow(8, asm.R3)
	c.storeFlow(24, asm.R4)
	c.ifImm(asm.R2, asm.JEq, 0, asks)
	c.storeFlow(8, asm.R4)
	c.storeFlow(24, asm.R3)
	c.place(asks)
}

// askNDP: a router is asked for by nobody in particular; of a neighbour the
// answer goes to who asked, or to all nodes where that had no address (RFC
// 4861, 7.2.4).
func (c *compiler) askNDP(done label) {
	neighbor, asks, own := c.newLabel(), c.newLabel(), c.newLabel()
	c.loadField(asm.R2, frame.ICMPType)
	c.ifImm32(asm.R2, asm.JGE, 135, neighbor)
	c.roles(kindRouter, ttlRS, frame.ICMPType, 133, 134, roleAnswered, done)
	c.jump(done)
	c.place(neighbor)
	c.roles(kindNeighbor, ttlAsk, frame.ICMPType, 135, 136, roleAnswered, done)
	target, src, dst := frame.NDPTarget.Info().Word, frame.IPv6Src.Info().Word, frame.IPv6Dst.Info().Word
	c.loadWord(asm.R3, target)
	c.loadWord(asm.R4, target+1)
	c.storeFlow(16, asm.R3, asm.R4)
	c.ifImm(asm.R2, asm.JEq, 0, asks)
	c.loadWord(asm.R3, dst)
	c.loadWord(asm.R4, dst+1)
	c.add(asm.Mov.Reg(asm.R5, asm.R3), asm.RSh.Imm(asm.R5, 56))
	c.ifImm32(asm.R5, asm.JNE, 0xff, own)
	c.jump(done) // :: is there already
	c.place(asks)
	c.loadWord(asm.R3, src)
	c.loadWord(asm.R4, src+1)
	c.place(own)
	c.storeFlow(0, asm.R3, asm.R4)
}
