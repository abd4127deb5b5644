package rule

import "math/bits"

// A searcher finds values in a table too large for lanes.
//
// Exact tables are open-addressing hash tables at most half full. Prefix
// tables, and exact ones that make long searches, are sorted, disjoint ranges
// with an index over the first bits in which they differ, so that a search by
// halves has few halves left. Of 100,000 entries (BenchmarkTable) it finds
// one in tens of nanoseconds, mostly misses of the cache.
type searcher struct {
	// Hash tables: slots hold 1 + index of the value, 0 where empty.
	slots  []uint32
	shift  uint8
	values []Const

	// Ranges: those of addresses of 32 bits are kept small.
	ranges   []wide
	ranges32 []narrow
	first    Const // the least value
	last     Const // the greatest
	// ranges[index[h]:index[h+1]+1] may hold values of bucket h.
	index []uint32
	skip  uint  // leading bits that all values share
	drop  uint8 // bits below a bucket
}

// A narrow is a wide of 32 bits.
type narrow struct{ lo, hi uint32 }

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
	s := new(searcher)
	if t.Kind == TableExact64 || t.Kind == TableExact128 {
		if s.hash(t.Values) {
			return s
		}
	}
	s.order(t.intervals())
	if t.Kind == TablePrefix32 {
		for _, r := range s.ranges {
			s.ranges32 = append(s.ranges32, narrow{uint32(r.lo.Lo), uint32(r.hi.Lo)})
		}
		s.ranges = nil
	}
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
		s.first = Const{Lo: 1} // above last: nothing is between
		return
	}
	s.first, s.last = ranges[0].lo, ranges[len(ranges)-1].hi
	s.skip = uint(bits.LeadingZeros64(s.first.Hi ^ s.last.Hi))
	if s.skip == 64 {
		s.skip += uint(bits.LeadingZeros64(s.first.Lo ^ s.last.Lo))
	}
	top := s.bucket(s.last)
	s.drop = uint8(max(0, bits.Len64(top)-bits.Len(uint(2*len(ranges)))))
	s.index = make([]uint32, top>>s.drop+2)
	i := 0
	for h := range s.index {
		for i < len(ranges)-1 && s.bucket(ranges[i].hi)>>s.drop < uint64(h) {
			i++
		}
		s.index[h] = uint32(i)
	}
}

// bucket is the 64 bits of c behind those that all values share, counted from
// the least value. It grows with c.
func (s *searcher) bucket(c Const) uint64 {
	return s.behind(c) - s.behind(s.first)
}

// no allocation, no lock, no log below this line

// behind is the 64 bits of c behind the first skip ones. Shifts by 64 and
// more, and by less than 0 wrapped around, yield 0.
func (s *searcher) behind(c Const) uint64 {
	return c.Hi<<s.skip | c.Lo>>(64-s.skip) | c.Lo<<(s.skip-64)
}

// contains reports whether c is in the table.
func (s *searcher) contains(c Const) bool {
	if len(s.slots) > 0 {
		return s.probe(c)
	}
	if c.compare(s.first) < 0 || s.last.compare(c) < 0 {
		return false
	}
	h := s.bucket(c) >> s.drop
	if h >= uint64(len(s.index)-1) {
		return false
	}
	lo, hi := int(s.index[h]), int(s.index[h+1])
	if s.ranges32 != nil {
		return search32(s.ranges32, lo, hi, uint32(c.Lo))
	}
	for lo < hi { // halves: at most 20 turns
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

func search32(ranges []narrow, lo, hi int, c uint32) bool {
	for lo < hi { // halves: at most 20 turns
		mid := int(uint(lo+hi) >> 1)
		if ranges[mid].hi < c {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return ranges[lo].lo <= c && c <= ranges[lo].hi
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
