package nicshadow

import (
	"cmp"
	"slices"
	"sync/atomic"

	"sekimori/nicshadow/rule"
)

// A tally counts what one program decided in one mode, by the pc of the
// deciding instruction. Going back to a program goes on with its tally, so
// that a policy switched to and fro has one set of counters. An envelope has a
// tally of its own at each port.
type tally struct {
	program  *rule.Program
	mode     Mode
	envelope bool
	watched  bool        // an envelope's, see [PushConfig]
	state    *rule.State // of an envelope: what it remembers; nil for nothing
	hits     []atomic.Uint64
}

// newEnvelope returns the tally of an envelope.
func newEnvelope(p *rule.Program, watched bool) *tally {
	return &tally{program: p, envelope: true, watched: watched, state: p.NewState(nil), hits: make([]atomic.Uint64, p.Len())}
}

// Limits of what a sender's tallies keep. Older ones are folded into counts by
// source line, of which there are at most maxFolded.
const (
	maxTallies = 32
	maxHits    = 1 << 20 // 8 MiB of counters
	maxFolded  = 4096
)

// enforce puts program and mode in force, with their tally. On an error nothing
// has changed. Table.mu is held.
func (sl *slot) enforce(p *rule.Program, m Mode) error {
	if sl.path != nil {
		if err := sl.path.Enforce(p, m); err != nil {
			return err
		}
		sl.pull()
	}
	f := &force{program: p, mode: m}
	if p != nil {
		t := sl.tally(p, m)
		f.program, f.hits = t.program, t.hits
		// What the old program remembers, the new one goes on with.
		if f.state = sl.force.Load().state; sl.force.Load().program != f.program {
			f.state = f.program.NewState(f.state)
			defer sl.endTrial() // of what is compared with what was in force
		}
	}
	sl.force.Store(f)
	return nil
}

// tally returns the tally of a program in a mode, and makes it the newest.
func (sl *slot) tally(p *rule.Program, m Mode) *tally {
	for i, t := range sl.tallies {
		if t.mode == m && t.program.Hash() == p.Hash() {
			sl.tallies = append(append(sl.tallies[:i], sl.tallies[i+1:]...), t)
			return t
		}
	}
	kept := 0
	for _, t := range sl.tallies {
		kept += len(t.hits)
	}
	// The last one, that of the program in force, is never folded: frames are
	// being counted there. Neither are, but for enormous programs, the thirty
	// before it, where a judge that was held up may still count one.
	for len(sl.tallies) > 1 && (len(sl.tallies) >= maxTallies || kept+p.Len() > maxHits) {
		kept -= len(sl.tallies[0].hits)
		sl.fold(sl.tallies[0])
		sl.tallies = append(sl.tallies[:0], sl.tallies[1:]...)
	}
	t := &tally{program: p, mode: m, hits: make([]atomic.Uint64, p.Len())}
	sl.tallies = append(sl.tallies, t)
	return t
}

// fold keeps the counts of a tally by source line.
func (sl *slot) fold(t *tally) {
	if sl.folded == nil {
		sl.folded = make(map[LineKey]uint64)
	}
	t.each(func(k LineKey, n uint64) {
		if _, ok := sl.folded[k]; !ok && len(sl.folded) >= maxFolded {
			k = LineKey{Kind: "older", Why: "policies", WouldDrop: k.WouldDrop, Envelope: k.Envelope}
		}
		sl.folded[k] += n
	})
}

// lines returns the counts of all tallies, and of these envelopes, by source
// line, most frames first.
func (sl *slot) lines(envelopes []*tally) []LineCount {
	sum := make(map[LineKey]uint64, len(sl.folded))
	for k, n := range sl.folded {
		sum[k] += n
	}
	for _, t := range slices.Concat(sl.tallies, envelopes) {
		t.each(func(k LineKey, n uint64) { sum[k] += n })
	}
	lines := make([]LineCount, 0, len(sum))
	for k, n := range sum {
		lines = append(lines, LineCount{k, n})
	}
	slices.SortFunc(lines, func(a, b LineCount) int {
		return cmp.Or(cmp.Compare(b.Frames, a.Frames), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Col, b.Col), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Why, b.Why))
	})
	return lines
}

// each calls f for every instruction that dropped frames.
func (t *tally) each(f func(LineKey, uint64)) {
	for pc := range t.hits {
		n := t.hits[pc].Load()
		if n == 0 {
			continue
		}
		v := rule.Drop
		if in := t.program.Insn(uint32(pc)); in.Op == rule.OpRet {
			v = rule.Verdict(in.A)
		}
		if v == rule.Forward {
			continue
		}
		k := Deciding(t.program, uint32(pc))
		k.WouldDrop, k.Envelope = t.mode == Audit || v == rule.Audit, t.envelope
		f(k, n)
	}
}

// Deciding names the source line of a program's verdict, by the pc of its
// [rule.Outcome], and why: Kind is "predicate", "guard", "unspoken",
// "fragment", or "fault" where arithmetic failed.
func Deciding(p *rule.Program, pc uint32) LineKey {
	why := p.Why(pc)
	k := LineKey{Kind: why.Kind.String(), Why: why.Name}
	if why.Kind == rule.WhyInvalid {
		k.Kind, k.Why = "fault", "arithmetic"
	}
	if why.Pos.Line != 0 {
		k.File, k.Line, k.Col = p.File(why.Pos), int(why.Pos.Line), int(why.Pos.Col)
	} else {
		k.File, k.Line, k.Col = p.Position(pc)
	}
	return k
}

// newHits are counters that begin at n.
func newHits(n []uint64) []atomic.Uint64 {
	hits := make([]atomic.Uint64, len(n))
	for i := range n {
		hits[i].Store(n[i])
	}
	return hits
}
