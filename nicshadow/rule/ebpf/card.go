package ebpf

import (
	"fmt"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// The programs of a card stand where its frames pass, at the host's end of a
// pair of devices: one judges what the container sends and hands it on (out),
// one what it is sent (in). Around the rule program they have what the switch
// of package nicshadow has: the parser, the counters, the drop log, the
// forwarding table. In registers they keep
//
//	R6  work, which begins with the key
//	R7  scratch
//	R8  the card's counters
//	R9  the skb
const (
	regCounters = asm.R8
	regFrame    = asm.R9
)

// Work of a program of a card goes on behind that of the parser.
const (
	workScratch = workLen
	workOutcome = workScratch + scratchLen
	workSender  = workOutcome + 8 // in: who sent the frame, as a slot
	workLength  = workSender + 8  // of the frame, with the tag that lies beside it
	workEvent   = workLength + 8
	cardWorkLen = workEvent + eventHead + eventSnap
)

// What a program of traffic control answers (include/uapi/linux/bpf.h v6.18,
// enum tcx_action_base).
const (
	tcxPass = 0
	tcxDrop = 2
)

// Fields of struct __sk_buff that the parser does not need.
const (
	skbMark      = 8
	skbVLANProto = 28
	skbGSOSize   = 176
)

// Reasons are the numbers under which frames are counted that do not go on.
type Reasons struct {
	Unjudged, Allowed, Policy, NoProgram, IdentityMismatch, BadOffload                 uint8
	UnknownDestination, ReceiverClosed, ReceiverShort, ReceiverRefuses, Ingress, Frame uint8
}

// NumReasons is how many there are at most; Frame is where those of the parser
// begin.
const NumReasons = 256

// The counters of a card, by their place.
const (
	CountBytes = iota
	CountAllowed
	CountDelivered
	CountSuppressed // records that the limit of the card's drop log left out
	CountLost       // records for which there was no room
	countTat        // when the drop log may have its next record
	CountDropped
	CountWould  = CountDropped + NumReasons
	NumCounters = CountWould + NumReasons
)

// A cardConfig says which card a program is for.
type cardConfig struct {
	slot       uint32 // the card's
	generation uint32 // of the program, for events
	limit      uint32 // longest frame, in bytes
	audit      bool
	trusted    bool
	hits       int // its length; 0 for none
	reasons    *Reasons
	memory     *memory
}

// A card writes a program of one.
type card struct {
	*compiler
	cfg      cardConfig
	counters int // maps
	ports    int
	hits     int
	control  int
	events   int
	parse    label
	tell     label
	drop     label
	forward  label
	finish   label
	each     label
}

// compileCard makes the program of a card for one way; p is nil where nothing
// passes, and for a trusted card.
func compileCard(p *rule.Program, cfg cardConfig, in bool) (*Code, error) {
	u := &rule.Unit{}
	if p != nil {
		u = p.Unit()
	}
	for _, far := range []bool{false, true} {
		c := &card{compiler: &compiler{u: u, uses: map[int]int{}, table: make([]int, len(u.Tables)), memory: cfg.memory}, cfg: cfg}
		if p != nil {
			c.need = needsOf(u)
		}
		c.far, c.audit = far, cfg.audit
		c.begin()
		switch {
		case in && (p == nil || !p.Remembers() && !p.JudgesIngress()):
			c.arrive()
		case in:
			c.judgeIn(p)
		case cfg.trusted:
			c.admit()
		default:
			c.judgeOut(p)
		}
		c.end()
		if err := c.resolve(); err == errFar {
			continue
		}
		if n, pc := c.deepest(); n > maxBranches-parserBranches {
			return nil, &Unsupported{pc, u.Insns[pc].Op, fmt.Sprintf("more than %d conditional jumps on the way to it, which the kernel's verifier does not follow", maxBranches-parserBranches)}
		}
		return c.code(), nil
	}
	return nil, errFar // not reached: with far, no conditional jump is long
}

// parserBranches is more than the conditional jumps on a path of the parser
// and of what stands around a rule program.
const parserBranches = 1024

// begin finds what the program works with.
func (c *card) begin() {
	c.at = []int{-1} // label 0 is none
	c.pcs = label(len(c.at))
	for range c.u.Insns {
		c.newLabel()
	}
	for _, l := range []*label{&c.none, &c.broken, &c.parse, &c.tell, &c.drop, &c.forward, &c.finish, &c.each, &c.compiler.finish} {
		*l = c.newLabel()
	}
	c.beginState()
	c.counters = c.addMap(mapDef{shared: sharedCounters})
	c.ports = c.addMap(mapDef{shared: sharedPorts})
	c.events = c.addMap(mapDef{shared: sharedEvents})
	c.control = c.addMap(mapDef{shared: sharedControl})
	c.hits = c.addMap(mapDef{shared: sharedHits})
	work := c.addMap(mapDef{typ: ebpf.PerCPUArray, name: "work", key: 4, value: cardWorkLen, size: 1})
	c.function(c.newLabel(), "card")
	c.add(asm.Mov.Reg(regFrame, asm.R1))
	c.find1(work, 0, c.drop)
	c.add(asm.Mov.Reg(regKey, asm.R0), asm.Mov.Reg(regScratch, asm.R0), asm.Add.Imm(regScratch, workScratch))
	c.find1(c.counters, int(c.cfg.slot), c.drop)
	c.add(asm.Mov.Reg(regCounters, asm.R0))
	c.add(storeWord(regKey, word(frame.ClassWord), 0), storeWord(regKey, workOutcome, 0))
	bare := c.newLabel()
	c.add(asm.LoadMem(asm.R1, regFrame, skbLen, asm.Word), asm.LoadMem(asm.R2, regFrame, skbVLANPresent, asm.Word))
	c.ifImm(asm.R2, asm.JEq, 0, bare)
	c.add(asm.Add.Imm(asm.R1, 4))
	c.place(bare)
	c.add(asm.StoreMem(regKey, workLength, asm.R1, asm.DWord))
}

// end writes what the rest goes to, and the functions.
func (c *card) end() {
	c.place(c.drop)
	c.add(asm.Mov.Imm(asm.R0, tcxDrop), asm.Return())
	if c.used(c.tell) {
		c.writeTell()
	}
	c.writeFunctions()
	if c.used(c.each) {
		c.writeEach()
	}
	if c.used(c.parse) {
		entry := c.writeParser()
		c.at[c.parse] = c.at[entry]
	}
}

// used reports whether something goes to l: the kernel refuses code that
// nothing leads to.
func (e *emitter) used(l label) bool {
	for _, to := range e.to {
		if to == l {
			return true
		}
	}
	return false
}

// dropped ends with a frame that does not go on.
func (c *card) dropped() { c.jump(c.drop) }

// count adds one to a counter of the card. R1 is lost.
func (c *card) count(n int) { c.countAt(regCounters, n) }

func (c *card) countAt(counters asm.Register, n int) {
	c.add(asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(counters, asm.R1, asm.DWord, int16(8*n)))
}

// refuse drops a frame that no program judged.
func (c *card) refuse(reason uint8) {
	c.count(CountDropped + int(reason))
	c.add(storeWord(regKey, workOutcome, 0))
	c.event(eventRefused, reason, false)
	c.dropped()
}

// offloads refuses what the sender's kernel left to be done: frames to be cut
// up, and checksums to be filled in at a place that the sender may choose. A
// container that may administer its card can switch both on again.
//
// No field says whether a checksum is left. bpf_l4_csum_replace changes the two
// bytes that it is pointed at, but where the checksum is left it has nothing to
// do (inet_proto_csum_replace4, net/core/utils.c v6.18): so it is pointed at the
// first two, which are put back.
func (c *card) offloads() {
	bad, good := c.newLabel(), c.newLabel()
	c.add(asm.LoadMem(asm.R1, regFrame, skbGSOSize, asm.Word))
	c.ifImm(asm.R1, asm.JNE, 0, bad)
	first := func(at int32) {
		c.add(
			asm.Mov.Reg(asm.R1, regFrame), asm.Mov.Imm(asm.R2, 0), asm.Mov.Reg(asm.R3, regKey),
			asm.Add.Imm(asm.R3, at), asm.Mov.Imm(asm.R4, 2), asm.FnSkbLoadBytes.Call(),
		)
		c.ifImm(asm.R0, asm.JNE, 0, c.drop)
	}
	first(workWindow)
	c.add(
		asm.Mov.Reg(asm.R1, regFrame), asm.Mov.Imm(asm.R2, 0), asm.Mov.Imm(asm.R3, 0), asm.Mov.Imm(asm.R4, 1),
		asm.Mov.Imm(asm.R5, 2), asm.FnL4CsumReplace.Call(),
	)
	c.ifImm(asm.R0, asm.JNE, 0, c.drop)
	first(workWindow + 2)
	c.add(asm.LoadMem(asm.R1, regKey, workWindow, asm.Half), asm.LoadMem(asm.R2, regKey, workWindow+2, asm.Half))
	c.ifReg(asm.R1, asm.JEq, asm.R2, bad)
	c.add(
		asm.Mov.Reg(asm.R1, regFrame), asm.Mov.Imm(asm.R2, 0), asm.Mov.Reg(asm.R3, regKey),
		asm.Add.Imm(asm.R3, workWindow), asm.Mov.Imm(asm.R4, 2), asm.Mov.Imm(asm.R5, 0), asm.FnSkbStoreBytes.Call(),
	)
	c.ifImm(asm.R0, asm.JEq, 0, good)
	c.dropped()
	c.place(bad)
	c.refuse(c.cfg.reasons.BadOffload)
	c.place(good)
}

// own makes the frame's bytes the kernel's alone. A frame may be made of pages
// that its sender still writes to (PACKET_TX_RING, MSG_ZEROCOPY, sendfile):
// what is judged is what is sent, so they are copied.
func (c *card) own() {
	ok := c.newLabel()
	c.add(asm.Mov.Reg(asm.R1, regFrame), asm.LoadMem(asm.R2, regFrame, skbLen, asm.Word), asm.FnSkbPullData.Call())
	c.ifImm(asm.R0, asm.JEq, 0, ok)
	c.count(CountDropped + int(c.cfg.reasons.Unjudged))
	c.dropped()
	c.place(ok)
}

// within refuses a frame that is longer than the card may send.
func (c *card) within() {
	ok := c.newLabel()
	c.add(asm.LoadMem(asm.R1, regKey, workLength, asm.DWord))
	c.ifImm(asm.R1, asm.JLE, int32(c.cfg.limit), ok)
	c.refuse(c.cfg.reasons.Frame + uint8(frame.TooLong))
	c.place(ok)
}

// weigh counts the frame's bytes.
func (c *card) weigh() {
	c.add(asm.LoadMem(asm.R1, regKey, workLength, asm.DWord), asm.AddAtomic.Mem(regCounters, asm.R1, asm.DWord, 8*CountBytes))
}

// callParse parses the frame: R0 is the reason.
func (c *card) callParse() {
	c.add(asm.Mov.Reg(asm.R1, regFrame), asm.Mov.Reg(asm.R2, regKey), asm.Mov.Imm(asm.R3, 0))
	c.call(c.parse)
}

// judgeOut is the program for what the container sends.
func (c *card) judgeOut(p *rule.Program) {
	r := c.cfg.reasons
	c.offloads()
	c.within()
	c.own()
	c.weigh()
	if p == nil {
		c.count(CountDropped + int(r.NoProgram))
		c.event(eventJudged, r.NoProgram, false)
		c.dropped()
		c.place(c.forward) // nothing is
		return
	}
	parsed := c.newLabel()
	c.callParse()
	c.ifImm(asm.R0, asm.JEq, int32(frame.OK), parsed)
	c.refused()
	c.place(parsed)
	c.beginRule(false)
	c.dispatch(c.u.Entries[:])
	c.rule(c.u.Entries[:])

	c.hit()
	c.add(asm.LoadMem(asm.R0, regKey, workOutcome, asm.DWord), asm.And.Imm(asm.R0, 3))
	allowed, audited := c.newLabel(), c.newLabel()
	c.ifImm(asm.R0, asm.JEq, int32(rule.Forward), allowed)
	if !c.cfg.audit {
		c.ifImm(asm.R0, asm.JEq, int32(rule.Audit), audited)
		c.count(CountDropped + int(r.Policy))
		c.event(eventJudged, r.Policy, false)
		c.dropped()
	}
	c.place(audited)
	c.count(CountWould + int(r.Policy))
	c.event(eventJudged, r.Policy, true)
	c.jump(c.forward)
	c.place(allowed)
	c.count(CountAllowed)
	c.event(eventJudged, r.Allowed, true)
	c.place(c.forward)
	c.writeForward()
}

// refused is a frame that did not parse, for the reason in R0.
func (c *card) refused() {
	base := CountDropped + int(c.cfg.reasons.Frame)
	if c.cfg.audit {
		base = CountWould + int(c.cfg.reasons.Frame)
	}
	sane := c.newLabel()
	c.ifImm(asm.R0, asm.JLT, int32(frame.NumReasons), sane)
	c.dropped()
	c.place(sane)
	c.add(
		asm.Mov.Reg(asm.R1, asm.R0), asm.LSh.Imm(asm.R1, 3), asm.Mov.Reg(asm.R2, regCounters), asm.Add.Reg(asm.R2, asm.R1),
		asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(asm.R2, asm.R1, asm.DWord, int16(8*base)),
		asm.Add.Imm(asm.R0, int32(c.cfg.reasons.Frame)),
	)
	c.eventFor(eventJudged, asm.R0, c.cfg.audit)
	if c.cfg.audit {
		c.jump(c.forward)
		return
	}
	c.dropped()
}

// beginRule makes ready what a rule program finds.
func (c *card) beginRule(ingress bool) {
	n := c.need
	if !n.rates && !n.flows && !n.lease {
		return
	}
	side := int32(0)
	if ingress {
		side = 1
	}
	c.beginAsked()
	c.add(asm.FnKtimeGetNs.Call(), asm.StoreMem(regScratch, scratchNow, asm.R0, asm.DWord), storeWord(regScratch, scratchSide, side))
	if n.flows {
		c.beginFlow()
	}
}

// rule writes the instructions of the rule program that these entries lead to:
// the kernel refuses what nothing does. It ends with the outcome noted, and what
// passes remembered.
func (c *card) rule(entries []uint32) {
	reach := reachable(c.u, entries)
	for pc, in := range c.u.Insns {
		if !reach[pc] {
			continue
		}
		c.now = pc
		c.place(c.insn(pc))
		c.write(pc, in)
	}
	c.place(c.none)
	c.answer(rule.Drop, 0)
	if c.noted {
		c.place(c.noting)
		c.writeNotes()
	}
	c.place(c.compiler.finish)
	c.add(asm.StoreMem(regKey, workOutcome, asm.R0, asm.DWord))
}

// reachable says which instructions the entries lead to. Jumps go forward only.
func reachable(u *rule.Unit, entries []uint32) []bool {
	reach := make([]bool, len(u.Insns)+1)
	for _, pc := range entries[frame.ClassNone+1:] {
		reach[pc] = true
	}
	for pc, in := range u.Insns {
		if !reach[pc] || in.Op == rule.OpRet {
			continue
		}
		reach[pc+1+int(in.Off)] = true // of what does not jump the next one
		if in.Op != rule.OpJmp {
			reach[pc+1] = true
		}
	}
	return reach
}

// hit counts the deciding instruction.
func (c *card) hit() {
	skip := c.newLabel()
	c.add(asm.LoadMem(asm.R1, regKey, workOutcome, asm.DWord), asm.RSh.Imm(asm.R1, 2))
	c.ifImm(asm.R1, asm.JGE, int32(c.cfg.hits), skip)
	c.uses[len(c.insns)] = c.hits
	c.add(
		asm.LoadMapValue(asm.R2, 0, 0), asm.LSh.Imm(asm.R1, 3), asm.Add.Reg(asm.R2, asm.R1),
		asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(asm.R2, asm.R1, asm.DWord, 0),
	)
	c.place(skip)
}
