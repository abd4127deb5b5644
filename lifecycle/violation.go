package lifecycle

import (
	"encoding/json"
	"sync/atomic"
)

// maxReports is how many violations may wait to be recorded.
const maxReports = 256

// A report is what Violation was told.
type report struct {
	name   string
	record json.RawMessage
	last   bool // nothing follows
}

// Violation reports frames that were dropped, or would have been, of the named
// container: an event, and its violation hooks. The record is JSON, kept as it
// is. It never blocks: what comes in faster than it can be recorded is counted,
// and added to the count of the container's next one.
func (p *Pod) Violation(name string, record json.RawMessage) {
	p.drain.Do(func() { go p.record() }) // ends when close or undo says so
	select {
	case p.reports <- report{name: name, record: record}:
	default:
		p.missedOf(name).Add(1)
	}
}

func (p *Pod) missedOf(name string) *atomic.Uint64 {
	if c := p.Container(name); c != nil {
		return &c.missed
	}
	return &p.missed
}

// record records the reports until the last.
func (p *Pod) record() {
	defer close(p.drained)
	for r := range p.reports {
		if r.last {
			return
		}
		n := 1 + p.missedOf(r.name).Swap(0)
		p.journal.emit(Event{Type: EventViolation, Container: r.name, Record: r.record, Count: n})
		if c := p.Container(r.name); c != nil {
			e := c.at(Violation)
			e.Count, e.Record = n, r.record
			c.post(e)
		}
	}
}

// stopReports ends record once it has recorded what came so far. The channel is
// not closed: the data path may still report, to nobody.
func (p *Pod) stopReports() {
	p.drain.Do(func() { close(p.drained) }) // no report came
	select {
	case p.reports <- report{last: true}:
		<-p.drained
	case <-p.drained:
	}
	for _, name := range append(p.Containers(), "") {
		if n := p.missedOf(name).Swap(0); n > 0 {
			p.journal.emit(Event{Type: EventViolation, Container: name, Count: n})
		}
	}
}
