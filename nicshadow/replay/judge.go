package replay

import (
	"time"

	"sekimori/nicshadow/brief"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A Result is what a program says of one recorded frame.
type Result struct {
	Frame *Frame
	// Reason is frame.OK, or why the frame did not parse, and so drops.
	Reason frame.Reason
	// Key and Outcome are of a frame that parsed.
	Key     frame.Key
	Outcome rule.Outcome
	program *rule.Program
	moment  rule.Moment
}

// Judge judges frames as a switch does, one Result for each, all as sent by the
// container. What the program remembers it remembers from one to the next, by
// the times of the frames.
func Judge(p *rule.Program, frames []Frame) []Result {
	results := make([]Result, len(frames))
	s := newStory(p)
	for i := range frames {
		results[i] = s.judge(&frames[i])
	}
	return results
}

// JudgeAt judges one frame at a moment: with the state that m has, and either
// way. A frame that passes is noted in it.
func JudgeAt(p *rule.Program, f *Frame, m rule.Moment) Result {
	r := Result{Frame: f, program: p, moment: m}
	if r.Reason = frame.Parse(f.Data, &r.Key); r.Reason == frame.OK {
		r.Outcome = p.RunAt(&r.Key, &r.moment)
		if r.Outcome.Verdict.Passes() {
			r.moment.Passed(&r.Key)
		}
	} else if m.Ingress && !p.JudgesIngress() {
		r.Outcome.Verdict = rule.Forward
	}
	return r
}

// A story is a program and what it remembers of the frames so far.
type story struct {
	program *rule.Program
	state   *rule.State
	began   time.Time
	now     int64
}

func newStory(p *rule.Program) *story { return &story{program: p, state: p.NewState(nil), now: 1} }

// judge judges the next frame. A clock that steps back stands still.
func (s *story) judge(f *Frame) Result {
	if s.began.IsZero() {
		s.began = f.Time
	}
	s.now = max(s.now, int64(f.Time.Sub(s.began))+1)
	return JudgeAt(s.program, f, rule.Moment{State: s.state, Now: s.now})
}

// Trace calls step for each instruction on the way of a frame that parsed.
func (r *Result) Trace(step func(pc int, holds bool)) {
	r.program.TraceAt(&r.Key, &r.moment, step)
}

// unjudged says that no program judged what came in.
func (r *Result) unjudged() bool { return r.moment.Ingress && !r.program.JudgesIngress() }

// Verdict is the verdict: what does not parse drops.
func (r *Result) Verdict() rule.Verdict { return r.Outcome.Verdict }

// Why is the reason of the verdict of a frame that parsed; the zero Why of one
// that did not.
func (r *Result) Why() rule.Why {
	if r.Reason != frame.OK || r.unjudged() {
		return rule.Why{}
	}
	return r.program.Why(r.Outcome.PC)
}

// Position is the deciding source line; file is "" where there is none.
func (r *Result) Position() (file string, line, col int) {
	if r.Reason != frame.OK || r.unjudged() {
		return "", 0, 0
	}
	if pos := r.Why().Pos; pos.Line != 0 {
		return r.program.File(pos), int(pos.Line), int(pos.Col)
	}
	return r.program.Position(r.Outcome.PC)
}

// Summary says in one line what a frame is.
func Summary(data []byte) string {
	var k frame.Key
	frame.Parse(data, &k)
	return brief.Frame(&k, data, len(data))
}
