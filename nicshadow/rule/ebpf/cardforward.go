package ebpf

import (
	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf/asm"
)

// A port of the switch, as its forwarding table has it, by MAC address. The
// table is fixed: nothing a container sends changes it.
//
//	0  4  the host's end of the pair
//	4  4  slot
//	8  4  longest frame, in bytes
//
// 12  4  flags
const (
	portDevice = 0
	portSlot   = 4
	portLimit  = 8
	portFlags  = 12
	portLen    = 16
)

// Flags of a port.
const (
	portOpen   = 1 << iota // a program is in force
	portDirect             // it has no say in what it is sent
)

// destination makes R1 the frame's destination as a number. R0 is lost.
func (c *card) destination() {
	c.add(
		asm.LoadMem(asm.R1, regKey, workEther+2, asm.Half), asm.HostTo(asm.BE, asm.R1, asm.Half), asm.LSh.Imm(asm.R1, 32),
		asm.LoadMem(asm.R0, regKey, workEther+4, asm.Word), asm.HostTo(asm.BE, asm.R0, asm.Word), asm.Or.Reg(asm.R1, asm.R0),
	)
}

// port makes R0 the port of the address in R1, 0 for none.
func (c *card) port() {
	c.add(asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord))
	c.lookup(c.ports, -8)
}

// writeForward hands the frame on: to the card that owns its destination, or,
// if that is a group, to all others. Nothing is flooded because it is not known.
func (c *card) writeForward() {
	r := c.cfg.reasons
	one, unknown, closed, short, indirect := c.newLabel(), c.newLabel(), c.newLabel(), c.newLabel(), c.newLabel()
	c.add(asm.Mov.Imm(asm.R1, int32(c.cfg.slot)+1), asm.StoreMem(regFrame, skbMark, asm.R1, asm.Word))
	c.add(asm.LoadMem(asm.R1, regKey, workEther+2, asm.Byte), asm.And.Imm(asm.R1, 1))
	c.ifImm(asm.R1, asm.JEq, 0, one)
	c.add(
		asm.LoadMem(asm.R1, regKey, workLength, asm.DWord),
		asm.StoreMem(asm.RFP, eachSkb, regFrame, asm.DWord),
		asm.StoreMem(asm.RFP, eachCounters, regCounters, asm.DWord),
		asm.StoreMem(asm.RFP, eachLength, asm.R1, asm.DWord),
	)
	c.mapPtr(asm.R1, c.ports)
	c.function1(asm.R2, c.each)
	c.add(asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, eachSkb), asm.Mov.Imm(asm.R4, 0), asm.FnForEachMapElem.Call())
	c.dropped() // the copies go on

	c.place(one)
	c.destination()
	c.port()
	c.ifImm(asm.R0, asm.JEq, 0, unknown)
	c.add(asm.LoadMem(asm.R1, asm.R0, portSlot, asm.Word))
	c.ifImm(asm.R1, asm.JEq, int32(c.cfg.slot), unknown)
	c.add(asm.LoadMem(asm.R2, asm.R0, portFlags, asm.Word), asm.Mov.Reg(asm.R3, asm.R2), asm.And.Imm(asm.R3, portOpen))
	c.ifImm(asm.R3, asm.JEq, 0, closed)
	c.add(asm.LoadMem(asm.R3, asm.R0, portLimit, asm.Word), asm.LoadMem(asm.R4, regKey, workLength, asm.DWord))
	c.ifReg(asm.R4, asm.JGT, asm.R3, short)
	c.add(asm.LoadMem(asm.R3, asm.R0, portDevice, asm.Word), asm.StoreMem(regKey, workOutcome, asm.R3, asm.DWord))
	c.add(asm.And.Imm(asm.R2, portDirect))
	c.ifImm(asm.R2, asm.JEq, 0, indirect)
	// Straight to the container's end: nobody looks at it on the way.
	c.add(asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word))
	c.lookup(c.counters, -4)
	c.ifImm(asm.R0, asm.JEq, 0, c.drop)
	c.countAt(asm.R0, CountDelivered)
	// A mark that the host gives a meaning is not for this one to have.
	c.add(asm.Mov.Imm(asm.R1, 0), asm.StoreMem(regFrame, skbMark, asm.R1, asm.Word))
	c.add(
		asm.Mov.Reg(asm.R1, regFrame), asm.Mov.Imm(asm.R2, packetHost), asm.FnSkbChangeType.Call(),
		asm.LoadMem(asm.R1, regKey, workOutcome, asm.DWord), asm.Mov.Imm(asm.R2, 0), asm.FnRedirectPeer.Call(), asm.Return(),
	)
	c.place(indirect)
	c.add(asm.Mov.Reg(asm.R1, asm.R3), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return())
	c.place(closed)
	c.count(CountDropped + int(r.ReceiverClosed))
	c.dropped()
	c.place(short)
	c.count(CountDropped + int(r.ReceiverShort))
	c.dropped()
	c.place(unknown)
	c.count(CountDropped + int(r.UnknownDestination))
	c.event(eventTold, r.UnknownDestination, false)
	c.dropped()
}

// packetHost is PACKET_HOST (include/uapi/linux/if_packet.h): the frame is for
// the card that it comes to. The host's end saw that it is for another.
const packetHost = 0

// What each finds on the stack of the program.
const (
	eachSkb      = -24
	eachCounters = -16
	eachLength   = -8
)

// writeEach is the function that hands a copy to one port: each(map, key,
// value, context).
func (c *card) writeEach() {
	const port, context = asm.R6, asm.R7
	r := c.cfg.reasons
	closed, short, done := c.newLabel(), c.newLabel(), c.newLabel()
	c.function(c.each, "each")
	c.add(asm.Mov.Reg(port, asm.R3), asm.Mov.Reg(context, asm.R4))
	c.add(asm.LoadMem(asm.R1, port, portSlot, asm.Word))
	c.ifImm(asm.R1, asm.JEq, int32(c.cfg.slot), done)
	c.add(asm.LoadMem(asm.R1, port, portFlags, asm.Word), asm.And.Imm(asm.R1, portOpen))
	c.ifImm(asm.R1, asm.JEq, 0, closed)
	c.add(asm.LoadMem(asm.R1, port, portLimit, asm.Word), asm.LoadMem(asm.R2, context, eachLength-eachSkb, asm.DWord))
	c.ifReg(asm.R2, asm.JGT, asm.R1, short)
	c.add(
		asm.LoadMem(asm.R1, context, 0, asm.DWord), asm.LoadMem(asm.R2, port, portDevice, asm.Word),
		asm.Mov.Imm(asm.R3, 0), asm.FnCloneRedirect.Call(),
	)
	c.jump(done)
	c.place(closed)
	c.add(asm.LoadMem(asm.R2, context, eachCounters-eachSkb, asm.DWord))
	c.countAt(asm.R2, CountDropped+int(r.ReceiverClosed))
	c.jump(done)
	c.place(short)
	c.add(asm.LoadMem(asm.R2, context, eachCounters-eachSkb, asm.DWord))
	c.countAt(asm.R2, CountDropped+int(r.ReceiverShort))
	c.place(done)
	c.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
}

// admit is the program of the uplink: its frames are not judged, but none may
// bear a container's source address.
func (c *card) admit() {
	r := c.cfg.reasons
	stranger, fine, mine := c.newLabel(), c.newLabel(), c.newLabel()
	c.offloads()
	c.within()
	c.weigh()
	c.add(
		asm.Mov.Reg(asm.R1, regFrame), asm.Mov.Imm(asm.R2, 0), asm.Mov.Reg(asm.R3, regKey),
		asm.Add.Imm(asm.R3, workEther+2), asm.Mov.Imm(asm.R4, headerLen), asm.FnSkbLoadBytes.Call(),
	)
	short := c.newLabel()
	c.ifImm(asm.R0, asm.JEq, 0, short)
	c.refuse(r.Frame + uint8(frame.Truncated))
	c.place(short)
	c.add(asm.LoadMem(asm.R1, regKey, workEther+8, asm.Byte), asm.And.Imm(asm.R1, 1))
	c.ifImm(asm.R1, asm.JNE, 0, stranger)
	c.add(asm.LoadMem(asm.R1, regKey, workEther+8, asm.DWord), asm.HostTo(asm.BE, asm.R1, asm.DWord), asm.RSh.Imm(asm.R1, 16))
	c.port()
	c.ifImm(asm.R0, asm.JEq, 0, fine)
	c.add(asm.LoadMem(asm.R1, asm.R0, portSlot, asm.Word))
	c.ifImm(asm.R1, asm.JEq, int32(c.cfg.slot), mine)
	c.place(stranger)
	c.refuse(r.IdentityMismatch)
	c.place(fine)
	c.place(mine)
	c.count(CountAllowed)
	c.place(c.forward)
	c.writeForward()
}
