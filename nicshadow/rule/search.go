package rule

import (
	"math/bits"
	"sort"
)

// A searcher finds values in a table too large for lanes.
//
// Exact tables are open-addressing hash tables at most half full. Prefix
// tables are sorted, disjoint ranges with an index over the high bits of the
// address, so that a search by halves has few halves left.
type searcher struct {
	kind TableKind

	// Hash tables: slots hold 1 + index of the value, 0 where empty.
	slots  []uint32
	shift  uint8
	values []Const

	// Ranges.
	ranges []wide
	index  []uint32 // ranges[index[h]:index[h+1]+1] may hold values of bucket h
	origin uint64
	drop   uint8 // bits below a bucket
}

// A wide is the 128-bit values from lo to hi, both included.
type wide struct{ lo, hi Const }

// intervals are the values of the table as sorted ranges apart from each
// other: overlapping and neighbouring ones are joined.
func (t *Table) intervals() []wide {
	var out []wide
	add := func(lo, hi Const) {
		if n := len(out); n > 0 && !out[n-1].hi.before(lo) {
			if out[n-1].hi.compare(hi) < 0 {
				out[n-1].hi = hi
			}
			return
		}
		out = append(out, wide{lo, hi})
	}
	for _, v := range t.Values {
		add(v, v)
	}
	for _, p := range t.Prefixes {
		rest := prefixMask(p.Bits, t.Kind.width())
		all := prefixMask(t.Kind.width(), t.Kind.width())
		add(p.Value, Const{p.Value.Hi | all.Hi&^rest.Hi, p.Value.Lo | all.Lo&^rest.Lo})
	}
	return out
}

// before reports whether there is a value between c and d, c being the
// smaller or overlapping: c+1 < d.
func (c Const) before(d Const) bool {
	lo, carry := bits.Add64(c.Lo, 1, 0)
	hi, over := bits.Add64(c.Hi, 0, carry)
	return over == 0 && (Const{hi, lo}).compare(d) < 0
}

func newSearcher(t *Table) *searcher {
	s := &searcher{kind: t.Kind}
	switch t.Kind {
	case TableExact64, TableExact128:
		if s.hash(t.Values) {
			return s
		}
	}
	s.order(t.intervals())
	return s
}

// maxProbes is the number of slots a search may look at. A table that needs
// more is searched by halves: nobody who chooses the values of a table, as an
// address list from elsewhere is chosen by others, makes a search long.
const maxProbes = 16

// hash builds the hash table; false where a search would be long.
func (s *searcher) hash(values []Const) bool {
	n := max(4, bits.Len(uint(2*len(values))))
	s.shift = uint8(64 - n)
	s.slots = make([]uint32, 1<<n)
	s.values = values
	for i, v := range values {
		h, probes := s.slot(v), 1
		for s.slots[h] != 0 {
			if probes++; probes > maxProbes {
				s.slots, s.values = nil, nil
				return false
			}
			h = (h + 1) & (len(s.slots) - 1)
		}
		s.slots[h] = uint32(i + 1)
	}
	return true
}

// slot is where the search for c begins: Fibonacci hashing of both halves.
func (s *searcher) slot(c Const) int {
	return int((c.Lo*0x9e3779b97f4a7c15 ^ bits.RotateLeft64(c.Hi*0xc2b2ae3d27d4eb4f, 32)) >> s.shift)
}

// order builds the ranges and their index.
func (s *searcher) order(ranges []wide) {
	s.ranges = ranges
	if len(ranges) == 0 {
		return
	}
	first, last := s.high(ranges[0].lo), s.high(ranges[len(ranges)-1].hi)
	s.origin = first
	buckets := bits.Len(uint(2 * len(ranges)))
	s.drop = uint8(max(0, bits.Len64(last-first)-buckets))
	s.index = make([]uint32, (last-first)>>s.drop+2)
	for h := range s.index {
		low := first + uint64(h)<<s.drop
		s.index[h] = uint32(sort.Search(len(ranges), func(i int) bool { return s.high(ranges[i].hi) >= low }))
	}
	s.index[len(s.index)-1] = uint32(len(ranges) - 1)
}

// high is the part of c that the index goes by.
func (s *searcher) high(c Const) uint64 {
	if s.kind.width() <= 64 {
		return c.Lo
	}
	return c.Hi
}

// no allocation, no lock, no log below this line

// contains reports whether c is in the table.
func (s *searcher) contains(c Const) bool {
	if len(s.slots) > 0 {
		return s.probe(c)
	}
	h := s.high(c) - s.origin
	if h >>= s.drop; h >= uint64(len(s.index)-1) || len(s.ranges) == 0 {
		return false
	}
	lo, hi := int(s.index[h]), int(s.index[h+1])
	for lo < hi { // halves: at most 32 turns
		mid := int(uint(lo+hi) >> 1)
		if s.ranges[mid].hi.compare(c) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	r := &s.ranges[lo]
	return r.lo.compare(c) <= 0 && c.compare(r.hi) <= 0
}

func (s *searcher) probe(c Const) bool {
	h := s.slot(c)
	for range maxProbes + 1 {
		i := s.slots[h&(len(s.slots)-1)]
		if i == 0 {
			return false
		}
		if s.values[i-1] == c {
			return true
		}
		h++
	}
	return false
}
