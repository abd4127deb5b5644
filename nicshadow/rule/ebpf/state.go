package ebpf

import (
	"math"

	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// What programs remember. Every element of these maps begins with a lock,
// under which it is read and changed: an array's elements are never used for
// something else meanwhile, as those of the kernel's hash maps are, which
// would let a note about one flow land in another.

// The questions, by their byte in scratch: the limits, and these.
const (
	questionFlow     = rule.MaxLimits
	questionAnswered = rule.MaxLimits + 1
	questionsLen     = 64
)

// ask writes a question that has one answer a frame. Its byte is 0 before, then
// 1 for no and 2 for yes. answer leaves 0 or 1 in R0.
func (c *compiler) ask(question int, no label, answer func()) {
	known := c.newLabel()
	at := scratchAsked + int16(question)
	c.add(asm.LoadMem(asm.R0, regScratch, at, asm.Byte))
	c.ifImm32(asm.R0, asm.JNE, 0, known)
	answer()
	c.add(asm.Add.Imm(asm.R0, 1), asm.StoreMem(regScratch, at, asm.R0, asm.Byte))
	c.place(known)
	c.ifImm32(asm.R0, asm.JNE, 2, no)
}

// lockedMap is an array of n elements of a lock and words of 64 bits.
func lockedMap(name string, words, n uint32) mapDef {
	u32 := &btf.Int{Name: "u32", Size: 4}
	u64 := &btf.Int{Name: "u64", Size: 8}
	lock := &btf.Struct{Name: "bpf_spin_lock", Size: 4, Members: []btf.Member{{Name: "val", Type: u32}}}
	return mapDef{
		typ: ebpf.Array, name: name, key: 4, value: 8 + 8*words, size: n, keyType: u32,
		valueType: &btf.Struct{Name: name, Size: 8 + 8*words, Members: []btf.Member{
			{Name: "lock", Type: lock},
			{Name: "words", Type: &btf.Array{Index: u32, Type: u64, Nelems: words}, Offset: 64},
		}},
	}
}

// lock and unlock take the lock of the element that r points to. R0 to R5 are
// lost.
func (c *compiler) lock(r asm.Register) {
	c.add(asm.Mov.Reg(asm.R1, r), asm.FnSpinLock.Call())
}

func (c *compiler) unlock(r asm.Register) {
	c.add(asm.Mov.Reg(asm.R1, r), asm.FnSpinUnlock.Call())
}

// A bucket, as the interpreter has it (see nicshadow/rule).
const (
	bucketTat     = 8
	bucketRefused = 16
)

// rate takes a token of a limit.
func (c *compiler) rate(limit uint32, no label) {
	l := c.u.Limits[limit]
	c.ask(int(limit), no, func() {
		c.find1(c.buckets, c.memory.bucket(c.u, int(limit)), no)
		c.add(
			asm.Mov.Reg(asm.R1, asm.R0),
			asm.LoadMem(asm.R2, regScratch, scratchNow, asm.DWord),
			asm.LoadImm(asm.R3, int64(l.Period), asm.DWord),
			asm.LoadImm(asm.R4, int64(l.Burst-1)*int64(l.Period), asm.DWord),
		)
		c.call(c.take)
	})
}

// writeTake is the function take(bucket, now, period, slack): 1 if there was
// a token.
func (c *compiler) writeTake() {
	const bucket, now, period, slack, result = asm.R6, asm.R7, asm.R8, asm.R9, asm.R9
	const tat, next = asm.R1, asm.R2
	c.function(c.take, "take")
	c.add(asm.Mov.Reg(bucket, asm.R1), asm.Mov.Reg(now, asm.R2), asm.Mov.Reg(period, asm.R3), asm.Mov.Reg(slack, asm.R4))
	c.lock(bucket)
	has, early, late, done := c.newLabel(), c.newLabel(), c.newLabel(), c.newLabel()
	c.add(asm.LoadMem(tat, bucket, bucketTat, asm.DWord))
	c.ifReg(tat, asm.JSLE, now, has)
	c.add(asm.Mov.Reg(next, tat), asm.Sub.Reg(next, now))
	c.ifReg(next, asm.JSLE, slack, has)
	c.add(
		asm.LoadMem(next, bucket, bucketRefused, asm.DWord),
		asm.Add.Imm(next, 1),
		asm.StoreMem(bucket, bucketRefused, next, asm.DWord),
		asm.Mov.Imm(result, 0),
	)
	c.jump(done)
	c.place(has) // max(tat, min(now, MaxInt64/2)) + period
	c.add(asm.LoadImm(next, math.MaxInt64/2, asm.DWord))
	c.ifReg(now, asm.JSGE, next, early)
	c.add(asm.Mov.Reg(next, now))
	c.place(early)
	c.ifReg(next, asm.JSGE, tat, late)
	c.add(asm.Mov.Reg(next, tat))
	c.place(late)
	c.add(asm.Add.Reg(next, period), asm.StoreMem(bucket, bucketTat, next, asm.DWord), asm.Mov.Imm(result, 1))
	c.place(done)
	c.unlock(bucket)
	c.add(asm.Mov.Reg(asm.R0, result), asm.Return())
}

// beginState makes the maps that the program remembers in, before it is
// written.
func (c *compiler) beginState() {
	if c.need.rates {
		c.buckets = c.addMap(c.remembered(sharedBuckets, bucketMap(uint32(len(c.u.Limits)))))
	}
	if c.need.flows {
		c.flows = c.addMap(c.remembered(sharedFlows, flowMap()))
		c.seeds = c.addMap(c.remembered(sharedSeeds, seedMap()))
	}
	if c.need.lease {
		c.lease = c.addMap(c.remembered(sharedLease, leaseMap()))
	}
	for _, l := range []*label{&c.take, &c.seen, &c.note, &c.holds, &c.talk, &c.noting} {
		*l = c.newLabel()
	}
}

// remembered is a map of the program's own, or, of a card, what its programs
// share.
func (c *compiler) remembered(shared string, own mapDef) mapDef {
	if c.memory == nil {
		return own
	}
	return mapDef{shared: shared}
}

func bucketMap(n uint32) mapDef { return lockedMap("buckets", 2, n) }
func flowMap() mapDef           { return lockedMap("flows", flowWays*wayLen/8, flowSets) }
func leaseMap() mapDef          { return lockedMap("lease", 2*(grantLen+pendingLen)/8, 1) }

// writeState writes what the program calls, behind it.
func (c *compiler) writeState() {
	if c.noted {
		c.place(c.noting)
		c.writeNotes()
		c.add(asm.Return())
	}
	c.writeFunctions()
}

// writeFunctions writes what a program calls: no more, for the kernel refuses
// what nothing leads to.
func (c *compiler) writeFunctions() {
	if c.used(c.take) {
		c.writeTake()
	}
	if c.used(c.seen) {
		c.writeSeen()
	}
	if c.used(c.note) {
		c.writeNote()
	}
	if c.used(c.holds) {
		c.writeHolds()
	}
	if c.used(c.talk) {
		c.writeTalk()
	}
}

// writeNotes notes a frame that passes.
func (c *compiler) writeNotes() {
	c.add(asm.StoreMem(regScratch, scratchAnswer, asm.R0, asm.DWord))
	if c.need.flows {
		c.add(asm.Mov.Reg(asm.R1, regScratch))
		c.call(c.note)
	}
	if c.need.lease {
		c.add(asm.Mov.Reg(asm.R1, regScratch), asm.Mov.Reg(asm.R2, regKey))
		c.call(c.talk)
	}
	c.add(asm.LoadMem(asm.R0, regScratch, scratchAnswer, asm.DWord))
}
