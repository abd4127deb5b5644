package ebpf

import (
	"sekimori/nicshadow/frame"

	"github.com/cilium/ebpf/asm"
)

// An event tells the supervisor of a frame, for the drop log and captures:
//
//	  0  4  slot of who sent it
//	  4  4  slot of the card whose program tells it
//	  8  4  generation of the program
//	 12  4  outcome: pc << 2 | verdict
//	 16  1  kind
//	 17  1  reason
//	 18  1  whether the frame goes on
//	 20  4  length of the frame
//	 24  2  the tag that lies beside the frame
//	 26  2  and its EtherType, big-endian; 0 for none
//	 28  4  how many bytes of the frame follow the key
//	 32  4  how many records the card's limit has left out so far
//	 36  4  and for how many there was no room
//	 40 128 the key
//	168     the frame, without that tag
const (
	eventSlot       = 0
	eventCard       = 4
	eventGeneration = 8
	eventOutcome    = 12
	eventKind       = 16
	eventReason     = 17
	eventForward    = 18
	eventLength     = 20
	eventTCI        = 24
	eventProto      = 26
	eventData       = 28
	eventSuppressed = 32
	eventLost       = 36
	eventKey        = 40
	eventHead       = eventKey + 8*frame.NumWords
	eventSnap       = 2048
)

// Kinds of events.
const (
	eventJudged  = 1 + iota // a program judged what the card sent
	eventRefused            // nothing did, the frame dropped before
	eventTold               // one more word about a frame that was judged
	eventArrived            // a program judged what the card is sent
)

// Control of a card, which the supervisor writes: words of 64 bits.
const (
	controlFlags  = 0
	controlPeriod = 8  // of a token of the drop log, in nanoseconds
	controlSlack  = 16 // of all its tokens but one
	controlLen    = 24
)

// Flags of a card's control.
const (
	watchDrops = 1 << iota // tell of what drops, or would
	watchAll               // tell of every frame that is judged, without a limit
)

// event tells of the frame, if somebody wants to know. R0 to R5 are lost.
func (c *card) event(kind int, reason uint8, forward bool) {
	c.add(asm.Mov.Imm(asm.R0, int32(reason)))
	flags := int32(watchDrops | watchAll)
	if reason == c.cfg.reasons.Allowed {
		flags = watchAll
	}
	c.eventIf(kind, flags, asm.R0, forward)
}

// eventFor is event for the reason in r.
func (c *card) eventFor(kind int, r asm.Register, forward bool) {
	c.eventIf(kind, watchDrops|watchAll, r, forward)
}

func (c *card) eventIf(kind int, flags int32, reason asm.Register, forward bool) {
	skip, on := c.newLabel(), int32(0)
	if forward {
		on = 1
	}
	c.uses[len(c.insns)] = c.control
	c.add(asm.LoadMapValue(asm.R1, 0, controlFlags), asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord), asm.And.Imm(asm.R1, flags))
	c.ifImm(asm.R1, asm.JEq, 0, skip)
	from := asm.StoreImm(regKey, workEvent+eventSlot, int64(c.cfg.slot), asm.Word)
	if kind == eventArrived {
		c.add(asm.LoadMem(asm.R2, regKey, workSender, asm.DWord))
		from = asm.StoreMem(regKey, workEvent+eventSlot, asm.R2, asm.Word)
	}
	c.add(
		from,
		asm.StoreImm(regKey, workEvent+eventKind, int64(kind), asm.Byte),
		asm.StoreMem(regKey, workEvent+eventReason, reason, asm.Byte),
		asm.StoreImm(regKey, workEvent+eventForward, int64(on), asm.Byte),
		asm.Mov.Reg(asm.R1, regFrame), asm.Mov.Reg(asm.R2, regKey), asm.Mov.Reg(asm.R3, regCounters),
	)
	c.call(c.tell)
	c.place(skip)
}

// writeTell is the function tell(skb, work, counters): a limit for all but those
// who want every frame, then the event.
func (c *card) writeTell() {
	const counters = asm.R8
	out, tell, lost, whole, sent := c.newLabel(), c.newLabel(), c.newLabel(), c.newLabel(), c.newLabel()
	c.function(c.tell, "tell")
	c.add(asm.Mov.Reg(regSkb, asm.R1), asm.Mov.Reg(regWork, asm.R2), asm.Mov.Reg(counters, asm.R3))
	c.limit(counters, tell, out)
	c.place(tell)
	bare := c.newLabel()
	c.add(
		asm.StoreImm(regWork, workEvent+eventCard, int64(c.cfg.slot), asm.Word),
		asm.StoreImm(regWork, workEvent+eventGeneration, int64(c.cfg.generation), asm.Word),
		asm.LoadMem(asm.R1, regWork, workOutcome, asm.DWord), asm.StoreMem(regWork, workEvent+eventOutcome, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, regWork, workLength, asm.DWord), asm.StoreMem(regWork, workEvent+eventLength, asm.R1, asm.Word),
		asm.StoreImm(regWork, workEvent+eventTCI, 0, asm.Word),
		asm.LoadMem(asm.R1, counters, 8*CountSuppressed, asm.DWord), asm.StoreMem(regWork, workEvent+eventSuppressed, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, counters, 8*CountLost, asm.DWord), asm.StoreMem(regWork, workEvent+eventLost, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, regSkb, skbVLANPresent, asm.Word),
	)
	c.ifImm(asm.R1, asm.JEq, 0, bare)
	c.add(
		asm.LoadMem(asm.R1, regSkb, skbVLANTCI, asm.Word), asm.StoreMem(regWork, workEvent+eventTCI, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, regSkb, skbVLANProto, asm.Word), asm.StoreMem(regWork, workEvent+eventProto, asm.R1, asm.Half),
	)
	c.place(bare)
	for w := int16(0); w < 8*frame.NumWords; w += 8 {
		c.add(asm.LoadMem(asm.R1, regWork, workKey+w, asm.DWord), asm.StoreMem(regWork, workEvent+eventKey+w, asm.R1, asm.DWord))
	}
	c.add(asm.LoadMem(asm.R9, regSkb, skbLen, asm.Word))
	c.ifImm(asm.R9, asm.JLE, eventSnap, whole)
	c.add(asm.Mov.Imm(asm.R9, eventSnap))
	c.place(whole)
	c.add(asm.StoreMem(regWork, workEvent+eventData, asm.R9, asm.Word))
	c.ifImm(asm.R9, asm.JLT, 1, lost)
	c.add(
		asm.Mov.Reg(asm.R1, regSkb), asm.Mov.Imm(asm.R2, 0), asm.Mov.Reg(asm.R3, regWork), asm.Add.Imm(asm.R3, workEvent+eventHead),
		asm.Mov.Reg(asm.R4, asm.R9), asm.FnSkbLoadBytes.Call(),
	)
	c.ifImm(asm.R0, asm.JNE, 0, lost)
	c.mapPtr(asm.R1, c.events)
	c.add(
		asm.Mov.Reg(asm.R2, regWork), asm.Add.Imm(asm.R2, workEvent), asm.Mov.Reg(asm.R3, asm.R9), asm.Add.Imm(asm.R3, eventHead),
		asm.Mov.Imm(asm.R4, 0), asm.FnRingbufOutput.Call(),
	)
	c.ifImm(asm.R0, asm.JEq, 0, sent)
	c.place(lost)
	c.countAt(counters, CountLost)
	c.place(sent)
	c.place(out)
	c.add(asm.Mov.Imm(asm.R0, 0), asm.Return())
}

// limit goes to tell where every frame is wanted, or where the card has a token
// for a record, and to out where it has none. Two processors at once may take
// one token: a record more does no harm.
func (c *card) limit(counters asm.Register, tell, out label) {
	const tat, now, control = asm.R1, asm.R9, asm.R2
	none, some, late := c.newLabel(), c.newLabel(), c.newLabel()
	c.uses[len(c.insns)] = c.control
	c.add(asm.LoadMapValue(asm.R1, 0, 0), asm.LoadMem(asm.R1, asm.R1, controlFlags, asm.DWord), asm.And.Imm(asm.R1, watchAll))
	c.ifImm(asm.R1, asm.JNE, 0, tell)
	c.add(asm.FnKtimeGetNs.Call(), asm.Mov.Reg(now, asm.R0))
	c.uses[len(c.insns)] = c.control
	c.add(asm.LoadMapValue(control, 0, 0), asm.LoadMem(asm.R3, control, controlPeriod, asm.DWord), asm.LoadMem(asm.R4, control, controlSlack, asm.DWord))
	c.add(asm.LoadMem(tat, counters, 8*countTat, asm.DWord))
	c.ifReg(tat, asm.JLE, now, late)
	c.add(asm.Mov.Reg(asm.R5, tat), asm.Sub.Reg(asm.R5, now))
	c.ifReg(asm.R5, asm.JGT, asm.R4, none)
	c.jump(some)
	c.place(late)
	c.add(asm.Mov.Reg(tat, now))
	c.place(some)
	c.add(asm.Add.Reg(tat, asm.R3), asm.StoreMem(counters, 8*countTat, tat, asm.DWord))
	c.jump(tell)
	c.place(none)
	c.countAt(counters, CountSuppressed)
	c.jump(out)
}
