package ebpf

import (
	"math"

	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf/asm"
)

// Leases, as nicshadow/rule has them: what a DHCP server gave the container.
// The one element holds for each IP version
//
//	an address, high half first, and when it ends; 0 where there is none
//
// and then for each the transaction that a server may answer
//
//	its number, the client's MAC, and when it was asked; 0 for never
const (
	grantLen   = 24
	pendingLen = 24
	leaseEnd   = 16 // of a grant
	leaseAsked = 16 // of a transaction
	maxAnswer  = 64e9
)

func grantAt(version int) int16   { return 8 + int16(version)*grantLen }
func pendingAt(version int) int16 { return 8 + 2*grantLen + int16(version)*pendingLen }

// leased tests whether f is a leased address.
func (c *compiler) leased(f frame.Field, no label) {
	if f.Width() == 128 {
		c.loadWord(asm.R1, f.Info().Word)
		c.loadWord(asm.R2, f.Info().Word+1)
	} else {
		c.add(asm.Mov.Imm(asm.R1, 0))
		c.loadField(asm.R2, f)
	}
	c.add(asm.LoadMem(asm.R3, regScratch, scratchNow, asm.DWord))
	c.call(c.holds)
	c.ifImm(asm.R0, asm.JEq, 0, no)
}

// writeHolds is the function holds(high, low, now): 1 for a leased address.
func (c *compiler) writeHolds() {
	const high, low, now, lease = asm.R6, asm.R7, asm.R8, asm.R9
	const result = high
	none, hit, done := c.newLabel(), c.newLabel(), c.newLabel()
	c.function(c.holds, "holds")
	c.add(asm.Mov.Reg(high, asm.R1), asm.Mov.Reg(low, asm.R2), asm.Mov.Reg(now, asm.R3))
	c.find1(c.lease, 0, none)
	c.add(asm.Mov.Reg(lease, asm.R0))
	c.lock(lease)
	for version := range 2 {
		next := c.newLabel()
		c.unlessGranted(version, high, low, next)
		c.add(asm.LoadMem(asm.R1, lease, grantAt(version)+leaseEnd, asm.DWord))
		c.ifReg(now, asm.JSLT, asm.R1, hit)
		c.place(next)
	}
	c.add(asm.Mov.Imm(result, 0))
	c.jump(done)
	c.place(hit)
	c.add(asm.Mov.Imm(result, 1))
	c.place(done)
	c.unlock(lease)
	c.add(asm.Mov.Reg(asm.R0, result), asm.Return())
	c.place(none)
	c.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
}

// unlessGranted jumps to l unless an address is that of a grant of the lease
// in R9. R1 and R2 are lost.
func (c *compiler) unlessGranted(version int, high, low asm.Register, l label) {
	c.add(
		asm.LoadMem(asm.R1, asm.R9, grantAt(version), asm.DWord), asm.Xor.Reg(asm.R1, high),
		asm.LoadMem(asm.R2, asm.R9, grantAt(version)+8, asm.DWord), asm.Xor.Reg(asm.R2, low),
		asm.Or.Reg(asm.R1, asm.R2),
	)
	c.ifImm(asm.R1, asm.JNE, 0, l)
}

// A talk is how one version of DHCP speaks: its message types.
type talk struct {
	class      frame.Class
	ask, end   []uint32 // of the client
	give, take uint32   // of the server; take 0 for no such message
}

var talks = [2]talk{
	{frame.ClassIPv4DHCP, []uint32{1, 3}, []uint32{4, 7}, 5, 6},
	{frame.ClassIPv6DHCP, []uint32{1, 3, 5, 6}, []uint32{8, 9}, 7, 0},
}

// writeTalk is the function talk(scratch, key), which follows what client and
// server say. Its registers are those of the program, so that fields are read
// as there.
func (c *compiler) writeTalk() {
	done := c.newLabel()
	c.function(c.talk, "talk")
	c.add(asm.Mov.Reg(regScratch, asm.R1), asm.Mov.Reg(regKey, asm.R2))
	for version := range talks {
		other := c.newLabel()
		c.add(asm.LoadMem(asm.R1, regKey, offset(frame.ClassWord, 0, 1), asm.Byte))
		c.ifImm32(asm.R1, asm.JNE, uint32(talks[version].class), other)
		c.follow(version, done)
		c.place(other)
	}
	c.place(done)
	c.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
}

const regLease = asm.R9 // in talk and holds

func (c *compiler) follow(version int, done label) {
	t := &talks[version]
	fromServer, ask, end := c.newLabel(), c.newLabel(), c.newLabel()
	if version == 1 {
		c.loadField(asm.R1, frame.DHCPRelayed)
		c.ifImm32(asm.R1, asm.JNE, 0, done)
	}
	c.find1(c.lease, 0, done)
	c.add(asm.Mov.Reg(regLease, asm.R0), asm.LoadMem(asm.R1, regScratch, scratchSide, asm.DWord))
	c.loadField(asm.R2, frame.DHCPOp)
	c.loadField(asm.R3, frame.DHCPType)
	c.ifImm(asm.R1, asm.JNE, 0, fromServer)
	c.ifImm32(asm.R2, asm.JNE, 1, done)
	for _, typ := range t.ask {
		c.ifImm32(asm.R3, asm.JEq, typ, ask)
	}
	for _, typ := range t.end {
		c.ifImm32(asm.R3, asm.JEq, typ, end)
	}
	c.jump(done)
	c.place(ask)
	c.begun(version)
	c.jump(done)
	c.place(end)
	c.lock(regLease)
	c.endGrant(version)
	c.unlock(regLease)
	c.jump(done)
	c.place(fromServer)
	c.ifImm32(asm.R2, asm.JNE, 2, done)
	c.answered(version)
	c.jump(done)
}

// endGrant takes the address back.
func (c *compiler) endGrant(version int) {
	c.add(storeWord(regLease, grantAt(version)+leaseEnd, 0))
}

// closed says that the transaction has had its answer.
func (c *compiler) closed(version int) {
	c.add(storeWord(regLease, pendingAt(version)+leaseAsked, 0))
}

// transaction puts its number into R1 and the client's MAC into R2.
func (c *compiler) transaction(version int) {
	c.loadField(asm.R1, frame.DHCPTransaction)
	if version == 1 {
		c.add(asm.Mov.Imm(asm.R2, 0)) // it has none
		return
	}
	c.loadField(asm.R2, frame.DHCPClientMAC)
}

// begun notes a transaction.
func (c *compiler) begun(version int) {
	at := pendingAt(version)
	c.lock(regLease)
	c.transaction(version)
	c.add(
		asm.LoadMem(asm.R3, regScratch, scratchNow, asm.DWord),
		asm.StoreMem(regLease, at, asm.R1, asm.DWord),
		asm.StoreMem(regLease, at+8, asm.R2, asm.DWord),
		asm.StoreMem(regLease, at+leaseAsked, asm.R3, asm.DWord),
	)
	c.unlock(regLease)
}

// answered takes what the server gives, or takes back.
func (c *compiler) answered(version int) {
	const high, low, seconds = asm.R3, asm.R4, asm.R5
	t := &talks[version]
	out, taken, given, set := c.newLabel(), c.newLabel(), c.newLabel(), c.newLabel()
	c.lock(regLease)
	c.unlessPending(version, out)
	c.loadField(asm.R1, frame.DHCPType)
	if t.take != 0 {
		c.ifImm32(asm.R1, asm.JEq, t.take, taken)
	}
	c.ifImm32(asm.R1, asm.JNE, t.give, out)
	lost := c.newLabel()
	if version == 1 {
		word := frame.DHCPRequested6.Info().Word
		c.loadWord(high, word)
		c.loadWord(low, word+1)
		c.add(asm.Mov.Reg(asm.R1, high), asm.RSh.Imm(asm.R1, 56))
		c.ifImm32(asm.R1, asm.JEq, 0xff, lost) // a group
	} else {
		c.add(asm.Mov.Imm(high, 0))
		c.loadField(low, frame.DHCPRequested4)
		c.ifImm32(low, asm.JGE, 0xe0000000, lost) // a group, or of no class
	}
	c.add(asm.Mov.Reg(asm.R1, high), asm.Or.Reg(asm.R1, low))
	c.ifImm(asm.R1, asm.JEq, 0, lost)
	c.loadField(seconds, frame.DHCPLeaseTime)
	c.ifImm(seconds, asm.JNE, 0, given)
	c.place(lost) // a lifetime of 0 takes an address back (RFC 8415, 18.2.10.1)
	if version == 1 {
		c.unlessGranted(version, high, low, out)
		c.endGrant(version)
	}
	c.jump(out)

	c.place(given)
	forever := c.newLabel()
	c.add(asm.LoadImm(asm.R1, math.MaxInt64, asm.DWord))
	c.add(asm.LoadImm(asm.R2, 0xffffffff, asm.DWord))
	c.ifReg(seconds, asm.JEq, asm.R2, forever)
	c.add(asm.LoadMem(asm.R1, regScratch, scratchNow, asm.DWord), asm.Mul.Imm(seconds, 1e9), asm.Add.Reg(asm.R1, seconds))
	c.place(forever)
	at := grantAt(version)
	c.add(
		asm.StoreMem(regLease, at, high, asm.DWord),
		asm.StoreMem(regLease, at+8, low, asm.DWord),
		asm.StoreMem(regLease, at+leaseEnd, asm.R1, asm.DWord),
	)
	c.jump(set)
	c.place(taken)
	if t.take != 0 {
		c.endGrant(version)
	}
	c.place(set)
	c.closed(version)
	c.place(out)
	c.unlock(regLease)
}

// unlessPending jumps to l unless the frame is of the transaction that was
// begun, and comes in time.
func (c *compiler) unlessPending(version int, l label) {
	at := pendingAt(version)
	c.add(asm.LoadMem(asm.R1, regLease, at+leaseAsked, asm.DWord))
	c.ifImm(asm.R1, asm.JEq, 0, l)
	c.add(
		asm.LoadMem(asm.R2, regScratch, scratchNow, asm.DWord), asm.Sub.Reg(asm.R2, asm.R1),
		asm.LoadImm(asm.R1, maxAnswer, asm.DWord),
	)
	c.ifReg(asm.R2, asm.JSGT, asm.R1, l)
	c.transaction(version)
	c.add(
		asm.LoadMem(asm.R3, regLease, at, asm.DWord), asm.Xor.Reg(asm.R1, asm.R3),
		asm.LoadMem(asm.R3, regLease, at+8, asm.DWord), asm.Xor.Reg(asm.R2, asm.R3),
		asm.Or.Reg(asm.R1, asm.R2),
	)
	c.ifImm(asm.R1, asm.JNE, 0, l)
}
