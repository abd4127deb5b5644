package rule

// Shadow is a state with which p judges beside a program whose state is old, nil
// for none, and decides nothing: it asks the same flows and lease, takes its
// tokens from buckets of its own, as full as those are, and notes a frame only
// where old remembers nothing of the kind.
func (p *Program) Shadow(old *State) *State {
	if !p.Remembers() {
		return nil
	}
	s := &State{known: make(map[Limit]*bucket)}
	if old != nil {
		s.flows, s.lease = old.flows, old.lease
	}
	for _, l := range p.unit.Limits {
		b := &bucket{period: int64(l.Period), slack: int64(l.Burst-1) * int64(l.Period)}
		if old != nil && old.known[l] != nil {
			b.tat.Store(old.known[l].tat.Load())
		}
		s.known[l] = b
		s.buckets = append(s.buckets, b)
	}
	if s.asks.flows = p.asks.flows && s.flows == nil; s.asks.flows {
		s.flows = newFlows()
	}
	if s.asks.lease = p.asks.lease && s.lease == nil; s.asks.lease {
		s.lease = new(lease)
	}
	return s
}
