package nicshadow

import (
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A Judgement is what [Table.Judge] found. It is filled anew by each call, so
// that a port needs only one.
type Judgement struct {
	// Key holds the fields of the frame, where it parsed.
	Key    frame.Key
	Sender Sender
	// Reason is Allowed or why the frame drops, or would drop in audit mode.
	Reason Reason
	// Forward says whether the frame goes on.
	Forward bool
	// Audit says that the sender is in audit mode.
	Audit bool
	// Program judged, and Outcome is its verdict, where Reason is Allowed,
	// Policy or Envelope. Program is also set where the frame did not parse.
	Program *rule.Program
	Outcome rule.Outcome
	// Cause says why nobody is known to have sent the frame, where Reason is
	// Unattributed: the words of the [Origin].
	Cause string

	moment, outer rule.Moment // of the program, and of an envelope
}

// no allocation, no lock, no log below this line

// Judge parses a frame and runs the program of its sender, counts, and fills
// j. It reports whether the frame goes on.
func (t *Table) Judge(s Sender, b []byte, j *Judgement) bool {
	return t.judge(s, nil, b, j)
}

// judge is Judge within an envelope, nil for none: what it drops, drops in
// audit mode too.
func (t *Table) judge(s Sender, within *tally, b []byte, j *Judgement) bool {
	j.Sender, j.Cause = s, ""
	sl := t.slot(s)
	if sl == nil {
		t.unattributed.Add(1)
		return j.refuse(Unattributed)
	}
	sl.bytes.Add(uint64(len(b)))
	// Loaded once: program, mode and counters of one and the same reload.
	f := sl.force.Load()
	if f.program == nil {
		sl.dropped[NoProgram].Add(1)
		return j.refuse(NoProgram)
	}
	j.Audit, j.Program = f.mode == Audit, f.program
	if r := frame.Parse(b, &j.Key); r != frame.OK {
		j.Reason, j.Outcome = FromFrame(r), rule.Outcome{}
		// Without a whole header there is no destination to forward it to, and
		// no envelope has said yes to what does not parse.
		return sl.decide(j, j.Audit && len(b) >= headerLen && (within == nil || within.watched))
	}
	if f.program.Remembers() {
		j.moment.State, j.moment.Now, j.moment.Ingress = f.state, t.now(), false
		j.Outcome = f.program.RunAt(&j.Key, &j.moment)
	} else {
		j.moment.State = nil
		j.Outcome = f.program.Run(&j.Key)
	}
	forward := j.Outcome.Verdict.Passes()
	if tr := sl.trial.Load(); tr != nil {
		tr.judge(b, &j.Key, j.Outcome, false, forward || j.Audit)
	}
	if within != nil && within.watched && j.Audit {
		within = nil
	}
	if within != nil && (forward || j.Audit) && !within.pass(j, t) {
		return sl.decide(j, false)
	}
	if pc := uint64(j.Outcome.PC); pc < uint64(len(f.hits)) {
		f.hits[pc].Add(1)
	}
	if forward || j.Audit {
		j.moment.Passed(&j.Key)
		if within != nil {
			j.outer.Passed(&j.Key)
		}
	}
	if j.Outcome.Verdict == rule.Forward {
		j.Reason = Allowed
		return sl.decide(j, true)
	}
	j.Reason = Policy
	return sl.decide(j, forward || j.Audit)
}

// arrives judges a frame that is on its way to the station's container, and
// reports whether it goes on. to is the container's slot, j what becomes of
// it; k holds the frame's fields, or the class none where nobody has parsed it.
func (to *station) arrives(sl *slot, b []byte, k *frame.Key, j *Judgement) bool {
	f := sl.force.Load()
	j.Reason = Allowed
	remembers := to.envelope != nil && to.envelope.state != nil
	tr := sl.trial.Load()
	if f.program == nil || tr == nil && !remembers && !f.program.Remembers() && !f.program.JudgesIngress() {
		return true
	}
	j.Sender, j.Program, j.Audit = to.sender, f.program, f.mode == Audit
	if k.Class() == frame.ClassNone {
		if r := frame.Parse(b, k); r != frame.OK {
			if !f.program.JudgesIngress() {
				return true
			}
			j.Outcome, j.Reason = rule.Outcome{}, FromFrame(r)
			return sl.admit(f, j, j.Audit)
		}
	}
	j.moment.State, j.moment.Now, j.moment.Ingress = f.state, to.port.sw.cfg.Table.now(), true
	j.Outcome = f.program.RunAt(k, &j.moment)
	passes := j.Outcome.Verdict.Passes() || j.Audit
	if tr != nil {
		tr.judge(b, k, j.Outcome, true, passes)
	}
	if passes {
		j.moment.Passed(k)
	}
	if passes && remembers {
		j.outer = rule.Moment{State: to.envelope.state, Now: j.moment.Now, Ingress: true}
		j.outer.Passed(k)
	}
	if !f.program.JudgesIngress() || j.Outcome.Verdict == rule.Forward {
		return true
	}
	j.Reason = Ingress
	return sl.admit(f, j, passes)
}

// admit counts a frame that the receiver's own policy refuses, or would.
func (sl *slot) admit(f *force, j *Judgement, passes bool) bool {
	j.Forward = passes
	if j.Reason == Ingress {
		if pc := uint64(j.Outcome.PC); pc < uint64(len(f.hits)) {
			f.hits[pc].Add(1)
		}
	}
	if passes {
		sl.would[Ingress].Add(1)
	} else {
		sl.dropped[Ingress].Add(1)
	}
	return passes
}

// pass runs the envelope. Where it drops, the judgement is the envelope's.
func (e *tally) pass(j *Judgement, t *Table) bool {
	j.outer.State, j.outer.Now = e.state, 0
	if e.state != nil {
		j.outer.Now = t.now()
	}
	out := e.program.RunAt(&j.Key, &j.outer)
	if out.Verdict.Passes() {
		return true
	}
	if pc := uint64(out.PC); pc < uint64(len(e.hits)) {
		e.hits[pc].Add(1)
	}
	j.Reason, j.Program, j.Outcome = Envelope, e.program, out
	return false
}

// headerLen is the length of an Ethernet header: two addresses, EtherType.
const headerLen = 14

// decide counts the judgement and makes it final.
func (sl *slot) decide(j *Judgement, forward bool) bool {
	j.Forward = forward
	switch {
	case j.Reason == Allowed:
		sl.allowed.Add(1)
	case forward:
		sl.would[j.Reason].Add(1)
	default:
		sl.dropped[j.Reason].Add(1)
	}
	return forward
}

// refuse fills j for a frame that no program judged.
func (j *Judgement) refuse(r Reason) bool {
	j.Key, j.Reason, j.Forward, j.Audit = frame.Key{}, r, false, false
	j.Program, j.Outcome, j.Cause = nil, rule.Outcome{}, ""
	j.moment.State = nil
	return false
}
