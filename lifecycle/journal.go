package lifecycle

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

// A journal numbers the events of a pod, writes them to a file and hands them to
// whoever subscribed.
type journal struct {
	pod string
	log *slog.Logger

	// mu guards the fields below, and keeps the lines in the order of Seq.
	mu   sync.Mutex
	seq  uint64
	lost uint64 // events not in the file, since the last EventLost
	file io.WriteCloser
	subs map[chan Event]bool // nil when the journal is closed
}

func newJournal(pod string, file io.WriteCloser, log *slog.Logger) *journal {
	return &journal{pod: pod, log: log, file: file, subs: make(map[chan Event]bool)}
}

// emit records e. A full disk does not stop the pod: the events missing in the
// file are counted, and said when there is room again.
func (j *journal) emit(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.subs == nil {
		return
	}
	if err := j.record(e); err != nil {
		if j.lost++; j.lost == 1 {
			j.log.Warn("events are being lost", "pod", j.pod, "err", err)
		}
	} else if n := j.lost; n > 0 {
		j.lost = 0
		j.record(Event{Type: EventLost, Count: n})
	}
}

func (j *journal) record(e Event) error {
	j.seq++
	e.Seq, e.Time, e.Pod = j.seq, time.Now(), j.pod
	j.log.Debug("event", "type", e.Type, "container", e.Container, "seq", e.Seq, "err", e.Error)
	for ch := range j.subs {
		select {
		case ch <- e:
		default:
		}
	}
	b, err := e.line()
	if err != nil { // a record that is no JSON
		e.Record, e.Error = nil, err.Error()
		if b, err = e.line(); err != nil {
			return err
		}
	}
	_, err = j.file.Write(append(b, '\n'))
	return err
}

func (j *journal) subscribe(n int) (<-chan Event, func()) {
	ch := make(chan Event, n)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.subs == nil {
		close(ch)
		return ch, func() {}
	}
	j.subs[ch] = true
	return ch, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.subs[ch] {
			delete(j.subs, ch)
			close(ch)
		}
	}
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for ch := range j.subs {
		close(ch)
	}
	j.subs = nil
	return j.file.Close()
}
