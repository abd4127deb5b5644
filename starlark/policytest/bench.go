package policytest

import (
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

const (
	// maxMeasured bounds the frames that a benchmark repeats.
	maxMeasured = 4096
	// benchTime is how long one test is measured, and how often: the best of
	// several is what the machine's other work disturbed least.
	benchTime  = 20 * time.Millisecond
	benchTimes = 5
)

// A measured frame is one that a test judged, and the program that did.
type measured struct {
	program *rule.Program
	data    []byte
}

// A Bench is what it takes to judge the frames of a test: strict parse and
// program, as on the way of a real frame.
type Bench struct {
	Frames     int     `json:"frames"`
	NSPerFrame float64 `json:"ns_per_frame"`
	// MaxSteps is the most that a frame can take: the longest path through
	// the programs, in instructions.
	MaxSteps int `json:"max_steps"`
}

// bench keeps a frame for the benchmark.
func (t *test) bench(c *compiled, data []byte) {
	if t.suite.opts.Bench && len(t.report.measured) < maxMeasured {
		t.report.measured = append(t.report.measured, measured{c.program, data})
	}
}

// bench measures the tests of the report one after the other, while nothing
// else of this process runs.
func (r *Report) bench() {
	for t := range r.tests() {
		if len(t.measured) == 0 {
			continue
		}
		b := &Bench{Frames: len(t.measured)}
		for _, m := range t.measured {
			b.MaxSteps = max(b.MaxSteps, m.program.MaxSteps())
		}
		for range benchTimes {
			if ns := measure(t.measured); b.NSPerFrame == 0 || ns < b.NSPerFrame {
				b.NSPerFrame = ns
			}
		}
		t.Bench = b
	}
}

// measure judges the frames again and again, and returns the nanoseconds for
// one. The clock is read once a round of a thousand or more.
func measure(frames []measured) float64 {
	var k frame.Key
	rounds := 1 + 1000/len(frames)
	began := time.Now()
	for n := 0; ; {
		for range rounds {
			for i := range frames {
				if frame.Parse(frames[i].data, &k) == frame.OK {
					frames[i].program.Run(&k)
				}
			}
		}
		n += rounds * len(frames)
		if d := time.Since(began); d >= benchTime/benchTimes {
			return float64(d) / float64(n)
		}
	}
}
