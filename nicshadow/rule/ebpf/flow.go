package ebpf

import (
	"crypto/rand"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Flows, as nicshadow/rule has them: sets of ways, the one not seen for longest
// put out. A way is the key of a flow and when each side was last seen:
//
//	 0  the container's address, high half first
//	16  the other side's
//	32  kind << 32 | ports, IPv6 in bit 40
//	40  when last seen from the container, 0 for never
//	48  when last seen on the way to it
const (
	flowSetBits = 10
	flowSets    = 1 << flowSetBits
	flowWays    = rule.MaxFlows / flowSets
	flowKeyLen  = 40
	wayLen      = flowKeyLen + 16
)

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

// flow answers whether the other side of the frame's flow was seen.
func (c *compiler) flow(question int, role int32, no label) {
	c.ask(question, no, func() {
		never, late, done := c.newLabel(), c.newLabel(), c.newLabel()
		c.add(asm.LoadMem(asm.R0, regScratch, scratchRoles, asm.DWord), asm.And.Imm(asm.R0, role))
		c.ifImm(asm.R0, asm.JEq, 0, done)
		c.add(asm.Mov.Reg(asm.R1, regScratch))
		c.call(c.seen)
		c.ifImm(asm.R0, asm.JEq, 0, never)
		c.add(
			asm.LoadMem(asm.R1, regScratch, scratchNow, asm.DWord), asm.Sub.Reg(asm.R1, asm.R0),
			asm.LoadMem(asm.R2, regScratch, scratchTTL, asm.DWord),
		)
		c.ifReg(asm.R1, asm.JSGE, asm.R2, late)
		c.add(asm.Mov.Imm(asm.R0, 1))
		c.jump(done)
		c.place(never)
		c.place(late)
		c.add(asm.Mov.Imm(asm.R0, 0))
		c.place(done)
	})
}

// seedMap holds the secrets of the hash, so that nobody outside knows which
// flows share a set.
func seedMap() mapDef {
	return mapDef{
		typ: ebpf.Array, name: "seeds", key: 4, value: flowKeyLen, size: 1, flags: readOnly,
		keys: []uint32{0},
		values: func() any {
			var seeds [1][flowKeyLen]byte
			rand.Read(seeds[0][:])
			return seeds[:]
		},
	}
}

// set makes R0 the set of the flow in scratch, for a function whose R6 is
// scratch. The hash is NH (RFC 4418, 5.2.2), of which two keys collide once in
// 2^32 whoever chooses them. It is linear where only one word changes, as port
// numbers that are counted up do, and ten bits of that filled the sets so
// unevenly now and then that 2,581 of 4,096 ways were in use; so it is mixed
// (MurmurHash3's fmix64) before.
func (c *compiler) set(l label) {
	const scratch, seed, sum = asm.R6, asm.R0, asm.R1
	c.find1(c.seeds, 0, l)
	c.add(asm.Mov.Imm(sum, 0))
	for i := int16(0); i < flowKeyLen; i += 4 {
		r := asm.R2 + asm.Register(i/4%2)
		c.add(
			asm.LoadMem(r, scratch, scratchFlow+i, asm.Word),
			asm.LoadMem(asm.R4, seed, i, asm.Word),
			asm.Add.Reg32(r, asm.R4),
		)
		if i%8 == 4 {
			c.add(asm.Mul.Reg(asm.R2, asm.R3), asm.Add.Reg(sum, asm.R2))
		}
	}
	for _, factor := range []uint64{0xff51afd7ed558ccd, 0xc4ceb9fe1a85ec53} {
		c.add(
			asm.Mov.Reg(asm.R2, sum), asm.RSh.Imm(asm.R2, 33), asm.Xor.Reg(sum, asm.R2),
			asm.LoadImm(asm.R2, int64(factor), asm.DWord), asm.Mul.Reg(sum, asm.R2),
		)
	}
	c.add(asm.RSh.Imm(sum, 64-flowSetBits), asm.StoreMem(asm.RFP, -4, sum, asm.Word))
	c.lookup(c.flows, -4)
	c.ifImm(asm.R0, asm.JEq, 0, l)
}

// unlessWay jumps to l unless way i of the set in R7 is of the flow in scratch,
// R6. R1 to R3 are lost.
func (c *compiler) unlessWay(i int, l label) {
	for off := int16(0); off < flowKeyLen; off += 8 {
		r := asm.R1
		if off > 0 {
			r = asm.R2
		}
		c.add(
			asm.LoadMem(r, asm.R6, scratchFlow+off, asm.DWord),
			asm.LoadMem(asm.R3, asm.R7, wayAt(i)+off, asm.DWord),
			asm.Xor.Reg(r, asm.R3),
		)
		if off > 0 {
			c.add(asm.Or.Reg(asm.R1, asm.R2))
		}
	}
	c.ifImm(asm.R1, asm.JNE, 0, l)
}

func wayAt(i int) int16 { return 8 + int16(i)*wayLen }

const (
	wayOut = flowKeyLen
	wayIn  = flowKeyLen + 8
)

// writeSeen is the function seen(scratch): when the other side of the flow was
// last seen, 0 for never.
func (c *compiler) writeSeen() {
	const scratch, set, at = asm.R6, asm.R7, asm.R8
	none, found := c.newLabel(), c.newLabel()
	c.place(c.seen)
	c.add(asm.Mov.Reg(scratch, asm.R1), asm.Mov.Imm(at, 0))
	c.set(none)
	c.add(asm.Mov.Reg(set, asm.R0))
	c.lock(set)
	for i := range flowWays {
		next, out := c.newLabel(), c.newLabel()
		c.unlessWay(i, next)
		c.add(asm.LoadMem(at, set, wayAt(i)+wayOut, asm.DWord), asm.LoadMem(asm.R1, scratch, scratchSide, asm.DWord))
		c.ifImm(asm.R1, asm.JNE, 0, out)
		c.add(asm.LoadMem(at, set, wayAt(i)+wayIn, asm.DWord))
		c.place(out)
		c.jump(found)
		c.place(next)
	}
	c.place(found)
	c.unlock(set)
	c.place(none)
	c.add(asm.Mov.Reg(asm.R0, at), asm.Return())
}

// writeNote is the function note(scratch): a frame that an answer may follow
// is remembered, in the place of the flow that was not seen for longest if
// there is none of its own.
func (c *compiler) writeNote() {
	const scratch, set, oldest, way = asm.R6, asm.R7, asm.R8, asm.R9
	const last, other = asm.R1, asm.R2
	none, found := c.newLabel(), c.newLabel()
	c.place(c.note)
	c.add(asm.Mov.Reg(scratch, asm.R1), asm.LoadMem(asm.R0, scratch, scratchRoles, asm.DWord), asm.And.Imm(asm.R0, roleAsk))
	c.ifImm(asm.R0, asm.JEq, 0, none)
	c.set(none)
	c.add(asm.Mov.Reg(set, asm.R0), asm.Mov.Reg(way, set))
	c.lock(set)
	for i := range flowWays {
		next := c.newLabel()
		c.unlessWay(i, next)
		c.add(asm.Mov.Reg(way, set), asm.Add.Imm(way, int32(wayAt(i))))
		c.jump(found)
		c.place(next)
	}
	for i := range flowWays {
		in, next := c.newLabel(), c.newLabel()
		c.add(asm.LoadMem(last, set, wayAt(i)+wayOut, asm.DWord), asm.LoadMem(other, set, wayAt(i)+wayIn, asm.DWord))
		c.ifReg(last, asm.JSGE, other, in)
		c.add(asm.Mov.Reg(last, other))
		c.place(in)
		if i > 0 {
			c.ifReg(last, asm.JSGE, oldest, next)
		}
		c.add(asm.Mov.Reg(oldest, last), asm.Mov.Reg(way, set), asm.Add.Imm(way, int32(wayAt(i))))
		c.place(next)
	}
	for off := int16(0); off < flowKeyLen; off += 8 {
		c.add(asm.LoadMem(asm.R1, scratch, scratchFlow+off, asm.DWord), asm.StoreMem(way, off, asm.R1, asm.DWord))
	}
	c.add(storeWord(way, wayOut, 0), storeWord(way, wayIn, 0))
	c.place(found)
	in, done := c.newLabel(), c.newLabel()
	c.add(asm.LoadMem(asm.R1, scratch, scratchNow, asm.DWord), asm.LoadMem(asm.R2, scratch, scratchSide, asm.DWord))
	c.ifImm(asm.R2, asm.JNE, 0, in)
	c.add(asm.StoreMem(way, wayOut, asm.R1, asm.DWord))
	c.jump(done)
	c.place(in)
	c.add(asm.StoreMem(way, wayIn, asm.R1, asm.DWord))
	c.place(done)
	c.unlock(set)
	c.place(none)
	c.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
}
