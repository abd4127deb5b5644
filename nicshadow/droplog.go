package nicshadow

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sekimori/nicshadow/brief"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
)

// Limits of a drop log, where its configuration does not set them: a sender
// that floods must not drown the others, nor fill a disk.
const (
	DefaultDropRate  = 100 // records a second for each sender
	DefaultDropBurst = 200
	// dropQueue is how many records may wait for the sink, of all senders.
	dropQueue = 512
	// dropHead is how much of a frame a record is written from.
	dropHead = 64
)

// A Record tells of a frame that dropped, or would have dropped in audit mode.
type Record struct {
	Time      time.Time `json:"time"`
	Container string    `json:"container"`
	// Verdict is "drop" or "would drop".
	Verdict string `json:"verdict"`
	// Reason is the name of the frame's [Reason]; where it is "policy" or
	// "envelope", the next fields say which line decided: see [LineKey].
	Reason string `json:"reason"`
	Kind   string `json:"kind,omitempty"`
	Why    string `json:"why,omitempty"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Col    int    `json:"col,omitempty"`
	PC     uint32 `json:"pc,omitempty"`
	// Program is the SHA-256 of the program that judged; Class and Fields are
	// what it saw of the frame: with them seki explain --drop walks the way of
	// the frame again. What lies behind the headers is not recorded.
	Program string            `json:"program,omitempty"`
	Class   string            `json:"class,omitempty"`
	Fields  map[string]string `json:"fields,omitempty"`
	// Cause says why the sender is not known, where Reason is "unattributed"
	// and introspection found it out.
	Cause string `json:"cause,omitempty"`
	// Summary says in one line what the frame was.
	Summary string `json:"summary"`
	// Suppressed is how many of the container's records were left out since
	// its last one.
	Suppressed uint64 `json:"suppressed,omitempty"`
}

// Position returns "file:line:col" of the deciding line, "" if there is none.
func (r *Record) Position() string {
	if r.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", r.File, r.Line, r.Col)
}

// LogValue gives the record's attributes under their fixed keys.
func (r *Record) LogValue() slog.Value {
	a := []slog.Attr{slog.String("container", r.Container), slog.String("verdict", r.Verdict), slog.String("reason", r.Reason)}
	if r.Why != "" {
		a = append(a, slog.String("why", r.Kind+" "+r.Why), slog.String("pos", r.Position()), slog.Uint64("pc", uint64(r.PC)))
	}
	if r.Cause != "" {
		a = append(a, slog.String("cause", r.Cause))
	}
	a = append(a, slog.String("frame", r.Summary))
	if r.Suppressed > 0 {
		a = append(a, slog.Uint64("suppressed", r.Suppressed))
	}
	return slog.GroupValue(a...)
}

// A DropLogConfig configures a [DropLog].
type DropLogConfig struct {
	// Rate is the number of records a second and Burst the number at once for
	// each sender; 0 means the defaults.
	Rate, Burst int
	// Sink takes the records, one at a time, on a goroutine of the log.
	Sink func(Record)
}

// A DropLog tells a sink of dropped frames, so many for each sender. The frame
// path only copies the head of a frame; records are written elsewhere.
type DropLog struct {
	cfg   DropLogConfig
	queue chan dropped

	// mu guards closed: nothing is sent on queue afterwards.
	mu     sync.RWMutex
	closed bool
	begin  sync.Once // of the goroutine that writes: most pods drop nothing for long
	done   sync.WaitGroup
}

// A dropped frame waits in the queue to become a [Record].
type dropped struct {
	at         time.Time
	container  string
	judgement  Judgement
	suppressed uint64
	length     int
	head       [dropHead]byte
}

// NewDropLog returns a drop log; [DropLog.Close] ends its goroutine, which the
// first record starts.
func NewDropLog(cfg DropLogConfig) *DropLog {
	if cfg.Rate <= 0 {
		cfg.Rate = DefaultDropRate
	}
	if cfg.Burst <= 0 {
		cfg.Burst = DefaultDropBurst
	}
	return &DropLog{cfg: cfg, queue: make(chan dropped, dropQueue)}
}

func (l *DropLog) start() { l.done.Go(l.write) }

// write hands records to the sink. It ends when the queue is closed.
func (l *DropLog) write() {
	for d := range l.queue {
		if l.cfg.Sink != nil {
			l.cfg.Sink(d.record())
		}
	}
}

// Close hands over the records that wait, and returns when the sink has taken
// them. Frames that drop later are not told of.
func (l *DropLog) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	l.done.Wait()
}

// A DropSource is one sender's end of a drop log.
type DropSource struct {
	log        *DropLog
	container  string
	bucket     bucket
	suppressed atomic.Uint64
}

// Source returns the end for a container's frames. It is for one goroutine at
// a time.
func (l *DropLog) Source(container string) *DropSource {
	return &DropSource{log: l, container: container, bucket: newBucket(l.cfg.Rate, l.cfg.Burst)}
}

// Suppressed returns how many records have been left out since the last one.
func (s *DropSource) Suppressed() uint64 { return s.suppressed.Load() }

// Offer tells of a frame that dropped, or would have. It does not wait, and
// keeps neither b nor j.
func (s *DropSource) Offer(b []byte, j *Judgement) { s.offer(s.container, b, &j.Key, j) }

// offer is Offer under a container's name: what a receiver's policy drops is
// told by the sender's end. k is used in place of the judgement's key.
func (s *DropSource) offer(container string, b []byte, k *frame.Key, j *Judgement) {
	now := time.Now()
	if !s.bucket.allow(now) {
		s.suppressed.Add(1)
		return
	}
	d := dropped{at: now, container: container, judgement: *j, length: len(b), suppressed: s.suppressed.Load()}
	d.judgement.Key = *k
	copy(d.head[:], b)
	s.log.mu.RLock()
	defer s.log.mu.RUnlock()
	if s.log.closed {
		return
	}
	s.log.begin.Do(s.log.start)
	select {
	case s.log.queue <- d:
		s.suppressed.Add(-d.suppressed)
	default: // the sink is slow
		s.suppressed.Add(1)
	}
}

func (d *dropped) record() Record {
	r := newRecord(d.container, d.at, &d.judgement)
	r.Suppressed = d.suppressed
	if r.Kind != "" {
		h := d.judgement.Program.Hash()
		r.Program, r.Class, r.Fields = hex.EncodeToString(h[:]), d.judgement.Key.Class().String(), replay.Fields(&d.judgement.Key)
	}
	r.Summary = brief.Frame(&d.judgement.Key, d.head[:min(d.length, dropHead)], d.length)
	return r
}

// newRecord says what a judgement was, but for the frame itself.
func newRecord(container string, at time.Time, j *Judgement) Record {
	r := Record{Time: at, Container: container, Verdict: "drop", Reason: j.Reason.String(), Cause: j.Cause}
	if j.Forward {
		r.Verdict = "would drop"
	}
	if (j.Reason == Policy || j.Reason == Envelope || j.Reason == Ingress) && j.Program != nil {
		k := Deciding(j.Program, j.Outcome.PC)
		r.Kind, r.Why, r.File, r.Line, r.Col, r.PC = k.Kind, k.Why, k.File, k.Line, k.Col, j.Outcome.PC
	}
	return r
}
