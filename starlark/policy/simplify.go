package policy

import (
	"math/bits"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A simplifier takes out of a tree the tests whose answer is known: from the
// class of the frame, or from the tests before them. It also joins tests of
// one field that lead to the same place.
type simplifier struct {
	*graph
	facts   [frame.NumFields]sid // what the field is known to be in; -1: anything
	bits    map[tid]uint         // numbers of the tests that are not of one field and a set
	known   uint64               // of those, the ones whose answer is known
	answers uint64
	needs   []need  // by node; all zero until it is known
	first   []int32 // by node: its first visit, counted from 1
	done    []visited
	visits  int
}

// A need is what the tests below a node ask about: only facts on that matter.
type need struct{ fields, tests uint64 }

// A visited is the result of a visit, and where the node's next one is.
type visited struct {
	key  factKey
	r    nid
	next int32
}

// maxFacts is how many fields' facts tell two visits to a node apart; a node
// that asks about more is visited with what is known of the first ones.
const maxFacts = 10

// A factKey is a node and all that is known of what it asks.
type factKey struct {
	n              nid
	known, answers uint64
	facts          [maxFacts]sid
}

const (
	anything      sid = -1
	maxVisits         = 1 << 18 // beyond this, nodes stay as they are
	maxFactLen        = 128     // spans; facts longer than this are not kept
	maxVisitsEach     = 64      // visits to one node that are remembered and made
)

func newSimplifier(g *graph) *simplifier {
	s := &simplifier{graph: g, bits: make(map[tid]uint)}
	for f := range s.facts {
		s.facts[f] = anything
	}
	return s
}

// clear forgets all, and keeps the memory.
func (s *simplifier) clear() {
	clear(s.bits)
	s.needs, s.first, s.done = s.needs[:0], s.first[:0], s.done[:0]
	s.visits = 0
}

// class simplifies a tree for the frames of a class.
func (s *simplifier) class(n nid, c frame.Class) nid {
	for f := range s.facts {
		s.facts[f] = anything
	}
	for _, t := range classFacts[c] {
		s.facts[t.field] = s.set(t.set)
	}
	return s.simplify(n)
}

// classFacts is what the parser promises of the frames of each class.
var classFacts = func() (out [frame.NumClasses][]fieldTest) {
	for c := range frame.NumClasses {
		is := func(f frame.Field, s set) { out[c] = append(out[c], fieldTest{field: f, set: s}) }
		not := func(f frame.Field, s set) { is(f, s.complement(maxOf(f.Width()))) }
		switch family(c) {
		case family4:
			is(frame.EtherType, numbers(0x0800))
		case family6:
			is(frame.EtherType, numbers(0x86dd))
		}
		ndp := numbers(typeRS, typeRA, typeNS, typeNA, typeRedirect)
		switch c {
		case frame.ClassARP:
			is(frame.EtherType, numbers(0x0806))
			is(frame.ARPOp, numbers(1, 2))
		case frame.ClassOther:
			not(frame.EtherType, numbers(0x0800, 0x0806, 0x86dd))
		case frame.ClassIPv4TCP, frame.ClassIPv6TCP:
			is(frame.IPProtocol, numbers(6))
		case frame.ClassIPv4UDP, frame.ClassIPv6UDP, frame.ClassIPv4DHCP, frame.ClassIPv6DHCP:
			is(frame.IPProtocol, numbers(17))
		case frame.ClassIPv4ICMP:
			is(frame.IPProtocol, numbers(1))
		case frame.ClassIPv6ICMP:
			is(frame.IPProtocol, numbers(58))
			not(frame.ICMPType, ndp)
		case frame.ClassIPv6NDP:
			is(frame.IPProtocol, numbers(58))
			is(frame.ICMPType, ndp)
		case frame.ClassIPv4Fragment, frame.ClassIPv6Fragment:
			is(frame.IPFragment, numbers(1))
		}
	}
	return out
}()

// needOf is what the tests from n on ask about.
func (s *simplifier) needOf(n nid) need {
	if n < 0 {
		return need{}
	}
	if int(n) < len(s.needs) && s.needs[n] != (need{}) {
		return s.needs[n]
	}
	p := s.nodes[n]
	hi, lo := s.needOf(p.hi), s.needOf(p.lo)
	d := need{hi.fields | lo.fields, hi.tests | lo.tests}
	if t := s.tests[p.test]; t.kind == testSet {
		d.fields |= 1 << t.a
	} else {
		d.tests |= s.bit(p.test)
		d.fields |= 1 // of no field: d is never zero
	}
	s.needs = grown(s.needs, n)
	s.needs[n] = d
	return d
}

// grown is a long enough for a[n].
func grown[T any](a []T, n nid) []T {
	if int(n) < len(a) {
		return a
	}
	if int(n) < cap(a) {
		from := len(a)
		a = a[:n+1]
		clear(a[from:])
		return a
	}
	return append(a, make([]T, int(n)+1-len(a)+len(a)/2)...)
}

// bit is the bit of a test that is not of one field and a set; the first 64
// of them have one.
func (s *simplifier) bit(t tid) uint64 {
	i, ok := s.bits[t]
	if !ok {
		i = uint(len(s.bits))
		s.bits[t] = i
	}
	return 1 << i // 0 from 64 on
}

// key is n and what is known of what it asks; ok is false where that is too
// much to tell.
func (s *simplifier) key(n nid) (k factKey, ok bool) {
	d := s.needOf(n)
	k = factKey{n: n, known: s.known & d.tests, answers: s.answers & s.known & d.tests}
	i := 0
	for m := d.fields &^ 1; m != 0; m &= m - 1 {
		if i == maxFacts {
			return k, false
		}
		k.facts[i] = s.facts[bits.TrailingZeros64(m)]
		i++
	}
	return k, true
}

// simplify is n for the frames for which the facts are true.
func (s *simplifier) simplify(n nid) nid {
	// Skip tests with a known answer without a visit of their own.
	for n >= 0 {
		p := s.nodes[n]
		hi, known := s.answer(p.test)
		if !known {
			break
		}
		if n = p.lo; hi {
			n = p.hi
		}
	}
	if n < 0 {
		return n
	}
	k, ok := s.key(n)
	if !ok {
		return s.forgetful(n)
	}
	return s.visit(n, k)
}

// visit simplifies n, once for each key.
func (s *simplifier) visit(n nid, k factKey) nid {
	s.first = grown(s.first, n)
	count := 0
	for i := s.first[n]; i > 0; i = s.done[i-1].next {
		if v := &s.done[i-1]; v.key == k {
			return v.r
		}
		count++
	}
	if s.visits++; s.visits > maxVisits || count >= maxVisitsEach {
		return n
	}
	p := s.nodes[n]
	var r nid
	if s.tests[p.test].kind == testSet {
		r = s.simplifySet(p)
	} else {
		r = s.simplifyTest(p)
	}
	s.done = append(s.done, visited{k, r, s.first[n]})
	s.first[n] = int32(len(s.done))
	return r
}

// forgetful simplifies n as if nothing were known of the fields.
func (s *simplifier) forgetful(n nid) nid {
	facts := s.facts
	for f := range s.facts {
		s.facts[f] = anything
	}
	d := s.needOf(n)
	k := factKey{n: n, known: s.known & d.tests, answers: s.answers & s.known & d.tests}
	for i := range k.facts {
		k.facts[i] = anything
	}
	r := s.visit(n, k)
	s.facts = facts
	return r
}

// answer is the answer of a test, where it is known.
func (s *simplifier) answer(t tid) (holds, known bool) {
	x := s.tests[t]
	if x.kind != testSet {
		b := s.bit(t)
		return s.answers&b != 0, s.known&b != 0
	}
	f := s.facts[x.a]
	if f == anything {
		return false, false
	}
	fact, set := s.sets[f], s.sets[x.set]
	if set.disjoint(fact) {
		return false, true
	}
	return true, set.covers(fact)
}

func (s *simplifier) simplifyTest(p node) nid {
	b := s.bit(p.test)
	known, answers := s.known, s.answers
	s.known, s.answers = known|b, answers|b
	hi := s.simplify(p.hi)
	s.answers = answers &^ b
	lo := s.simplify(p.lo)
	s.known, s.answers = known, answers
	return s.branch(p.test, hi, lo, p.pos)
}

// simplifySet simplifies a node that asks whether field f is in a set.
func (s *simplifier) simplifySet(p node) nid {
	t := s.tests[p.test]
	f := t.a
	set, p := s.chain(p)
	fact := s.facts[f]
	max := maxOf(f.Width())

	if s.needOf(p.hi).fields>>f&1 != 0 {
		s.facts[f] = s.narrow(f, fact, set, false)
	}
	hi := s.simplify(p.hi)
	s.facts[f] = fact
	if s.needOf(p.lo).fields>>f&1 != 0 {
		s.facts[f] = s.narrow(f, fact, set, true)
	}
	lo := s.simplify(p.lo)
	s.facts[f] = fact
	if hi == lo {
		return hi
	}
	if fact != anything {
		set = cheaper(f, set, s.sets[fact], max)
	}
	return s.join(f, set, hi, lo, p.pos)
}

// narrow is the fact about f once the test has been answered.
func (s *simplifier) narrow(f frame.Field, fact sid, set set, not bool) sid {
	if len(set) > maxFactLen {
		return fact
	}
	if not {
		set = set.complement(maxOf(f.Width()))
	}
	if fact != anything {
		set = set.intersect(s.sets[fact])
	}
	if len(set) > maxFactLen {
		return fact
	}
	return s.set(set)
}

// cheaper is a set that holds of the frames that fact is true of just when
// set does, and that costs the least to test.
func cheaper(f frame.Field, s, fact set, max u128) set {
	best, cost := s, costOf(f, s)
	if cost <= 1 || len(s) > maxFactLen {
		return s
	}
	for _, t := range []set{s.intersect(fact), s.union(fact.complement(max))} {
		if c := costOf(f, t); c < cost {
			best, cost = t, c
		}
	}
	return best
}

// chain joins a row of tests of one field that all lead to the same place:
// x == 1 or x == 2 or ... for a thousand numbers is one table.
func (s *simplifier) chain(p node) (set, node) {
	t := s.tests[p.test]
	set := s.sets[t.set]
	spans, n := []span(nil), p.lo
	for n >= 0 {
		q := s.nodes[n]
		u := s.tests[q.test]
		if u.kind != testSet || u.a != t.a || q.hi != p.hi {
			break
		}
		if spans == nil {
			spans = append(spans, set...)
		}
		spans = append(spans, s.sets[u.set]...)
		n = q.lo
	}
	if len(spans) < 5 {
		return set, p
	}
	joined := p
	joined.lo = n
	return makeSet(spans), joined
}

// join is the node for field f in set, joined with the next node where that
// asks about the same field and one test can do for two.
func (s *simplifier) join(f frame.Field, set set, hi, lo nid, pos rule.Pos) nid {
	max := maxOf(f.Width())
	if q, t, ok := s.next(lo, f); ok {
		other := s.sets[t.set]
		switch {
		case q.hi == hi: // in set or in other
			if u := set.union(other); costOf(f, u) < costOf(f, set)+costOf(f, other) {
				return s.inSet(f, u, hi, q.lo, pos)
			}
		case q.lo == hi: // in set or not in other
			if u := set.union(other.complement(max)); costOf(f, u) < costOf(f, set)+costOf(f, other) {
				return s.inSet(f, u, hi, q.hi, pos)
			}
		}
	}
	if q, t, ok := s.next(hi, f); ok {
		other := s.sets[t.set]
		switch {
		case q.lo == lo: // in set and in other
			if u := set.intersect(other); costOf(f, u) < costOf(f, set)+costOf(f, other) {
				return s.inSet(f, u, q.hi, lo, pos)
			}
		case q.hi == lo: // in set and not in other
			if u := set.intersect(other.complement(max)); costOf(f, u) < costOf(f, set)+costOf(f, other) {
				return s.inSet(f, u, q.lo, lo, pos)
			}
		}
	}
	return s.inSet(f, set, hi, lo, pos)
}

// next is the node n where it asks whether f is in a set short enough to join.
func (s *simplifier) next(n nid, f frame.Field) (node, test, bool) {
	if n < 0 {
		return node{}, test{}, false
	}
	q := s.nodes[n]
	t := s.tests[q.test]
	return q, t, t.kind == testSet && t.a == f && len(s.sets[t.set]) <= maxFactLen
}
