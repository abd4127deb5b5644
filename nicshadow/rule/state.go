package rule

import (
	"math"
	"sync/atomic"

	"sekimori/nicshadow/frame"
)

// A State is what the programs of one container remember from frame to frame:
// token buckets, flows, requests, a lease. It is bounded: see [MaxFlows]. Any
// number of goroutines may use one.
type State struct {
	buckets []*bucket // by limit of the program
	known   map[Limit]*bucket
	flows   *flows
	lease   *lease
	asks    asks
}

// maxKnown bounds the buckets that are kept for limits the program in force
// does not have, so that going back to an earlier policy is no fresh start.
const maxKnown = 4 * MaxLimits

// asks says what a program asks a [State].
type asks struct{ rates, flows, lease bool }

func (u *Unit) asks() asks {
	a := asks{rates: len(u.Limits) > 0}
	for _, in := range u.Insns {
		switch in.Op {
		case OpTestFlow, OpTestAnswered:
			a.flows = true
		case OpTestLease:
			a.lease = true
		}
	}
	return a
}

// Remembers reports whether the program asks what only a [State] knows.
func (p *Program) Remembers() bool { return p.asks != asks{} }

// NewState is the state with which p takes the place of a program that had
// old, nil for none. Equal limits share a bucket, flows and lease go on: a
// frame that is judged by the old program meanwhile counts in both. It is nil
// where p remembers nothing and old is nil.
func (p *Program) NewState(old *State) *State {
	if old == nil {
		if !p.Remembers() {
			return nil
		}
		old = &State{}
	}
	s := &State{flows: old.flows, lease: old.lease, asks: p.asks, known: make(map[Limit]*bucket)}
	for _, l := range p.unit.Limits {
		b := old.known[l]
		if b == nil {
			b = &bucket{period: int64(l.Period), slack: int64(l.Burst-1) * int64(l.Period)}
		}
		s.known[l] = b
		s.buckets = append(s.buckets, b)
	}
	for l, b := range old.known {
		if len(s.known) == maxKnown {
			break
		}
		s.known[l] = b
	}
	if s.flows == nil && p.asks.flows {
		s.flows = newFlows()
	}
	if s.lease == nil && p.asks.lease {
		s.lease = new(lease)
	}
	return s
}

// A Moment is when and where a program judges a frame. It remembers what was
// asked, so that one frame gets one answer.
type Moment struct {
	// State is that of the program, from [Program.NewState]; nil for none.
	State *State
	// Now is in nanoseconds, above 0, of a clock that does not step back.
	Now int64
	// Ingress says that the frame is on its way to the container.
	Ingress bool

	asked, answers uint64
}

// The bits of Moment.asked above those of the limits.
const (
	bitFlow = MaxLimits + iota
	bitAnswered
	bitNone // what may be asked again
)

// stateBit is the bit under which the answer to in is remembered.
func stateBit(in Insn) uint8 {
	switch in.Op {
	case OpTestRate:
		return uint8(in.K)
	case OpTestFlow:
		return bitFlow
	case OpTestAnswered:
		return bitAnswered
	}
	return bitNone
}

// A bucket is a token bucket as the generic cell rate algorithm keeps it: one
// number, so that taking a token is one compare and swap.
//
//	tat     when the bucket will be full again, in nanoseconds
//	period  of one token
//	slack   of all tokens but one: there is one while tat <= now + slack
type bucket struct {
	tat           atomic.Int64
	period, slack int64
	refused       atomic.Uint64
}

// Refused counts, by limit of the program, the frames that found no token.
func (s *State) Refused() []uint64 {
	if s == nil {
		return nil
	}
	out := make([]uint64, len(s.buckets))
	for i, b := range s.buckets {
		out[i] = b.refused.Load()
	}
	return out
}

// no allocation and no log below this line; no lock but that of a few flows

// ask answers one question, once a frame.
func (m *Moment) ask(op Op, bit uint8, v Const, k *frame.Key) bool {
	if m == nil || m.State == nil {
		return false
	}
	mask := uint64(1) << (bit & 63)
	if m.asked&mask != 0 {
		return m.answers&mask != 0
	}
	s, holds := m.State, false
	switch op {
	case OpTestRate:
		holds = int(bit) < len(s.buckets) && s.buckets[bit].take(m.Now)
	case OpTestFlow:
		holds = s.flows.established(k, m.Ingress, m.Now)
	case OpTestAnswered:
		holds = s.flows.answered(k, m.Ingress, m.Now)
	case OpTestLease:
		return s.lease.holds(v, m.Now)
	}
	m.asked |= mask
	if holds {
		m.answers |= mask
	}
	return holds
}

// Passed notes a frame that was judged at m and goes on, or reaches the
// container: what [Program.RunAt] answers about the frames behind it.
func (m *Moment) Passed(k *frame.Key) {
	s := m.State
	if s == nil {
		return
	}
	if s.asks.flows {
		s.flows.note(k, m.Ingress, m.Now)
	}
	if s.asks.lease {
		s.lease.note(k, m.Ingress, m.Now)
	}
}

// take takes a token, and reports whether there was one.
func (b *bucket) take(now int64) bool {
	for {
		tat := b.tat.Load()
		if tat > now && tat-now > b.slack {
			b.refused.Add(1)
			return false
		}
		if b.tat.CompareAndSwap(tat, max(tat, min(now, math.MaxInt64/2))+b.period) {
			return true
		}
	}
}
