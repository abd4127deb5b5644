package ebpf

import (
	"crypto/rand"

	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Flows, as nicshadow/rule has them: sets of ways, the one not seen for longest
// put out. An element is a lock and its ways, a way the key of a flow and when
// each side was last seen:
//
//	 0  the key
//	40  when last seen from the container, 0 for never
//	48  when last seen on the way to it
const (
	flowSetBits = 10
	flowSets    = 1 << flowSetBits
	flowWays    = rule.MaxFlows / flowSets
	wayOut      = flowKeyLen
	wayIn       = wayOut + 8
	wayLen      = wayIn + 8
)

// wayAt is where way i of a set lies.
func wayAt(i int) int16 { return 8 + int16(i)*wayLen }

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

// writeSeen is the function seen(scratch): when the other side of the flow was
// last seen, 0 for never.
func (c *compiler) writeSeen() {
	const scratch, set, at = asm.R6, asm.R7, asm.R8
	none, found := c.newLabel(), c.newLabel()
	c.function(c.seen, "seen")
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
	c.function(c.note, "note")
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
