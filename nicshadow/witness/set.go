package witness

import (
	"math/bits"
	"slices"
	"sort"

	"sekimori/nicshadow/rule"
)

// A value is that of a field, of up to 128 bits.
type value = rule.Const

func less(a, b value) bool { return a.Hi < b.Hi || a.Hi == b.Hi && a.Lo < b.Lo }

func next(v value) value {
	lo, carry := bits.Add64(v.Lo, 1, 0)
	return value{Hi: v.Hi + carry, Lo: lo}
}

func previous(v value) value {
	lo, borrow := bits.Sub64(v.Lo, 1, 0)
	return value{Hi: v.Hi - borrow, Lo: lo}
}

func number(n uint64) value { return value{Lo: n} }

// most is the greatest value of a field of width bits.
func most(width int) value {
	switch {
	case width >= 128:
		return value{Hi: ^uint64(0), Lo: ^uint64(0)}
	case width > 64:
		return value{Hi: 1<<(width-64) - 1, Lo: ^uint64(0)}
	case width == 64:
		return value{Lo: ^uint64(0)}
	}
	return value{Lo: 1<<width - 1}
}

// A span is a range of values, both ends included.
type span struct{ lo, hi value }

// A Set is a set of values of one field: sorted spans that neither overlap nor
// touch. It is never changed.
type Set struct{ spans []span }

func all(width int) Set { return Set{[]span{{value{}, most(width)}}} }

func point(v value) Set { return Set{[]span{{v, v}}} }

func points(ns ...uint64) Set {
	var out []span
	for _, n := range ns {
		out = append(out, span{number(n), number(n)})
	}
	return makeSet(out)
}

func between(lo, hi uint64) Set { return Set{[]span{{number(lo), number(hi)}}} }

// makeSet puts spans in order and joins those that overlap or touch.
func makeSet(spans []span) Set {
	slices.SortFunc(spans, func(a, b span) int {
		switch {
		case less(a.lo, b.lo):
			return -1
		case less(b.lo, a.lo):
			return 1
		}
		return 0
	})
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && (!less(out[n-1].hi, s.lo) || next(out[n-1].hi) == s.lo) {
			if less(out[n-1].hi, s.hi) {
				out[n-1].hi = s.hi
			}
			continue
		}
		out = append(out, s)
	}
	return Set{out}
}

// Empty reports whether the set has no value.
func (s Set) Empty() bool { return len(s.spans) == 0 }

// Contains reports whether v is in the set.
func (s Set) Contains(v rule.Const) bool {
	i := s.from(v)
	return i < len(s.spans) && !less(v, s.spans[i].lo)
}

// from is the first span that does not end before v.
func (s Set) from(v value) int {
	return sort.Search(len(s.spans), func(i int) bool { return !less(s.spans[i].hi, v) })
}

// And is the values in both sets. It takes time by the smaller one and what
// comes out, so that a domain of few values meets a table of 100,000 cheaply.
func (s Set) And(t Set) Set {
	if len(t.spans) < len(s.spans) {
		s, t = t, s
	}
	var out []span
	for _, a := range s.spans {
		for i := t.from(a.lo); i < len(t.spans) && !less(a.hi, t.spans[i].lo); i++ {
			b := t.spans[i]
			if less(b.lo, a.lo) {
				b.lo = a.lo
			}
			if less(a.hi, b.hi) {
				b.hi = a.hi
			}
			out = append(out, b)
		}
	}
	return Set{out}
}

// Or is the values in either set.
func (s Set) Or(t Set) Set { return makeSet(slices.Concat(s.spans, t.spans)) }

// not is the values of width bits that are not in the set.
func (s Set) not(width int) Set {
	var out []span
	at, top := value{}, most(width)
	for _, a := range s.spans {
		if less(at, a.lo) {
			out = append(out, span{at, previous(a.lo)})
		}
		if a.hi == top {
			return Set{out}
		}
		at = next(a.hi)
	}
	return Set{append(out, span{at, top})}
}

// Without is the values of s that are not in t.
func (s Set) Without(t Set) Set {
	if s.Empty() {
		return s
	}
	return s.And(t.not(128))
}

// within reports whether all of s is in t.
func (s Set) within(t Set) bool {
	for _, a := range s.spans {
		i := t.from(a.lo)
		if i == len(t.spans) || less(a.lo, t.spans[i].lo) || less(t.spans[i].hi, a.hi) {
			return false
		}
	}
	return true
}

// First is the least value; the set must not be empty.
func (s Set) First() rule.Const { return s.spans[0].lo }

// Spans calls f with each range of values, both ends included, until it
// returns false.
func (s Set) Spans(f func(lo, hi rule.Const) bool) {
	for _, a := range s.spans {
		if !f(a.lo, a.hi) {
			return
		}
	}
}

// masked is the values v with v&mask == want, where mask is a prefix of the
// field's bits; ok is false where it is not, and the values are no range.
func masked(mask, want value, width int) (s Set, ok bool) {
	top := most(width)
	free := value{Hi: top.Hi &^ mask.Hi, Lo: top.Lo &^ mask.Lo}
	up := next(free)
	if free.Hi&up.Hi != 0 || free.Lo&up.Lo != 0 { // free is not of the form 2^n - 1
		return Set{}, false
	}
	if want.Hi&^mask.Hi != 0 || want.Lo&^mask.Lo != 0 {
		return Set{}, true // never holds
	}
	return Set{[]span{{want, value{Hi: want.Hi | free.Hi, Lo: want.Lo | free.Lo}}}}, true
}
