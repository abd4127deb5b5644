package nicshadow

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
)

// counters are what the frame path counts for a sender. They are added to by
// the sender's own port and, delivered, by the ports that send to it.
type counters struct {
	bytes   atomic.Uint64
	allowed atomic.Uint64
	dropped [256]atomic.Uint64 // by Reason; frames that did not go on
	would   [256]atomic.Uint64 // by Reason; frames that audit let go on
	// A line of its own: other ports write it.
	_         [64]byte
	delivered atomic.Uint64
}

// Stats are the counters of one sender since it was registered.
type Stats struct {
	Sender Sender `json:"sender"`
	Name   string `json:"name"`
	Mode   Mode   `json:"-"`
	// Program is the hash of the program in force; all 0 for none.
	Program [32]byte `json:"-"`
	// Frames and Bytes are what the sender sent.
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"`
	// Forwarded, Dropped and WouldDrop (in audit mode, forwarded as well) add
	// up to Frames.
	Forwarded uint64 `json:"forwarded"`
	Dropped   uint64 `json:"dropped"`
	WouldDrop uint64 `json:"would_drop"`
	// Undelivered counts forwarded frames whose destination nobody owns, and
	// the receivers that forwarded frames did not reach.
	Undelivered uint64 `json:"undelivered"`
	// Delivered is the number of frames that the sender was sent.
	Delivered uint64 `json:"delivered"`
	// Reasons count what dropped, would drop or was not delivered, most frames
	// first.
	Reasons []ReasonCount `json:"reasons,omitempty"`
	// Lines count what the program and the envelope dropped or would drop by
	// the deciding source line, most frames first. A frame judged while thirty or more
	// other programs were put in force may be missing here, never above.
	Lines []LineCount `json:"lines,omitempty"`
}

// A ReasonCount counts frames by reason.
type ReasonCount struct {
	Reason    string `json:"reason"`
	WouldDrop bool   `json:"would_drop,omitempty"`
	Frames    uint64 `json:"frames"`
}

// A LineKey is a source line that drops, and why.
type LineKey struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
	// Kind is "predicate", "guard", "unspoken" or "fragment", and Why which
	// one: the predicate's or guard's name, or what nobody speaks for.
	Kind      string `json:"kind"`
	Why       string `json:"why"`
	WouldDrop bool   `json:"would_drop,omitempty"`
	// Envelope says that it is a line of the envelope, not of the policy.
	Envelope bool `json:"envelope,omitempty"`
}

// A LineCount counts frames by source line.
type LineCount struct {
	LineKey
	Frames uint64 `json:"frames"`
}

// Stats returns the counters of a sender. It may be called at any time.
func (t *Table) Stats(s Sender) (Stats, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sl := t.slot(s)
	if sl == nil {
		return Stats{}, fmt.Errorf("stats of sender %d: %w", s, ErrUnknownSender)
	}
	sl.pull()
	st := sl.stats(t.envelopes[s]...)
	st.Sender = s
	return st, nil
}

// Unattributed returns how many frames came from senders that the table did
// not know.
func (t *Table) Unattributed() uint64 { return t.unattributed.Load() }

func (sl *slot) stats(envelopes ...*tally) Stats {
	f := sl.force.Load()
	st := Stats{Name: sl.name, Mode: f.mode, Bytes: sl.bytes.Load(), Delivered: sl.delivered.Load()}
	if f.program != nil {
		st.Program = f.program.Hash()
	}
	for r := range sl.dropped {
		r := Reason(r)
		if n := sl.dropped[r].Load(); n > 0 {
			st.Reasons = append(st.Reasons, ReasonCount{r.String(), false, n})
			switch {
			case r == Ingress: // no frame of the sender's
			case r.delivery():
				st.Undelivered += n
			default:
				st.Dropped += n
			}
		}
		if n := sl.would[r].Load(); n > 0 {
			st.Reasons = append(st.Reasons, ReasonCount{r.String(), true, n})
			if r != Ingress {
				st.WouldDrop += n
			}
		}
	}
	st.Forwarded = sl.allowed.Load()
	st.Frames = st.Forwarded + st.Dropped + st.WouldDrop
	slices.SortFunc(st.Reasons, func(a, b ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Frames, a.Frames), cmp.Compare(a.Reason, b.Reason))
	})
	st.Lines = sl.lines(envelopes)
	return st
}
