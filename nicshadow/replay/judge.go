package replay

import (
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
}

// Judge judges frames as a switch does, one Result for each.
func Judge(p *rule.Program, frames []Frame) []Result {
	results := make([]Result, len(frames))
	for i := range frames {
		results[i] = judge(p, &frames[i])
	}
	return results
}

func judge(p *rule.Program, f *Frame) Result {
	r := Result{Frame: f, program: p}
	if r.Reason = frame.Parse(f.Data, &r.Key); r.Reason == frame.OK {
		r.Outcome = p.Run(&r.Key)
	}
	return r
}

// Verdict is the verdict: what does not parse drops.
func (r *Result) Verdict() rule.Verdict { return r.Outcome.Verdict }

// Why is the reason of the verdict of a frame that parsed; the zero Why of one
// that did not.
func (r *Result) Why() rule.Why {
	if r.Reason != frame.OK {
		return rule.Why{}
	}
	return r.program.Why(r.Outcome.PC)
}

// Position is the deciding source line; file is "" where there is none.
func (r *Result) Position() (file string, line, col int) {
	if r.Reason != frame.OK {
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
