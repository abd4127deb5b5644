package policy

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// A u128 is a field value: an address, or a number in lo.
type u128 struct{ hi, lo uint64 }

func (a u128) cmp(b u128) int {
	if a.hi != b.hi {
		return cmp.Compare(a.hi, b.hi)
	}
	return cmp.Compare(a.lo, b.lo)
}

func (a u128) less(b u128) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// next and prev wrap; their callers know that they do not.
func (a u128) next() u128 {
	lo, carry := bits.Add64(a.lo, 1, 0)
	return u128{a.hi + carry, lo}
}

func (a u128) prev() u128 {
	lo, borrow := bits.Sub64(a.lo, 1, 0)
	return u128{a.hi - borrow, lo}
}

// u128Of is an address as a number.
func u128Of(a netip.Addr) u128 {
	if a.Is4() {
		b := a.As4()
		return u128{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return u128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// maxOf is the largest value of a field of that many bits.
func maxOf(width int) u128 {
	switch {
	case width >= 128:
		return u128{^uint64(0), ^uint64(0)}
	case width >= 64:
		return u128{1<<(width-64) - 1, ^uint64(0)}
	}
	return u128{0, 1<<width - 1}
}

// A span is the values from a to b, both included.
type span struct{ a, b u128 }

// A set is a set of values: sorted, disjoint spans with gaps between them. It
// is never changed once made. Every test of one field against constants is a
// membership in one set: equality, order, ranges, networks, tables.
type set []span

func point(v u128) set { return set{{v, v}} }

// prefixSpan is the addresses of a network.
func prefixSpan(p netip.Prefix) span {
	a := u128Of(p.Addr())
	free := p.Addr().BitLen() - p.Bits()
	m := maxOf(free)
	if free == 0 {
		m = u128{}
	}
	return span{a, u128{a.hi | m.hi, a.lo | m.lo}}
}

// makeSet sorts and merges spans, in place.
func makeSet(spans []span) set {
	slices.SortFunc(spans, func(x, y span) int { return x.a.cmp(y.a) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && (out[n-1].b == maxOf(128) || !out[n-1].b.next().less(s.a)) {
			if out[n-1].b.less(s.b) {
				out[n-1].b = s.b
			}
			continue
		}
		out = append(out, s)
	}
	return set(out)
}

func pointSet(vs []u128) set {
	spans := make([]span, len(vs))
	for i, v := range vs {
		spans[i] = span{v, v}
	}
	return makeSet(spans)
}

// complement is the values up to max that are not in s.
func (s set) complement(max u128) set {
	out := make(set, 0, len(s)+1)
	from := u128{}
	for _, p := range s {
		if from.less(p.a) {
			out = append(out, span{from, p.a.prev()})
		}
		if p.b == max {
			return out
		}
		from = p.b.next()
	}
	return append(out, span{from, max})
}

// intersect is the values in both.
func (s set) intersect(t set) set {
	var out set
	for i, j := 0, 0; i < len(s) && j < len(t); {
		a, b := s[i].a, s[i].b
		if a.less(t[j].a) {
			a = t[j].a
		}
		if t[j].b.less(b) {
			b = t[j].b
		}
		if !b.less(a) {
			out = append(out, span{a, b})
		}
		if s[i].b.less(t[j].b) {
			i++
		} else {
			j++
		}
	}
	return out
}

// union is the values in either.
func (s set) union(t set) set { return makeSet(slices.Concat(s, t)) }

// covers reports whether every value of t is in s.
func (s set) covers(t set) bool {
	i := 0
	for _, p := range t {
		for i < len(s) && s[i].b.less(p.a) {
			i++
		}
		if i == len(s) || p.a.less(s[i].a) || s[i].b.less(p.b) {
			return false
		}
	}
	return true
}

// disjoint reports whether no value is in both.
func (s set) disjoint(t set) bool {
	for i, j := 0, 0; i < len(s) && j < len(t); {
		switch {
		case s[i].b.less(t[j].a):
			i++
		case t[j].b.less(s[i].a):
			j++
		default:
			return false
		}
	}
	return true
}

func (s set) contains(v u128) bool {
	i, found := slices.BinarySearchFunc(s, v, func(p span, v u128) int { return p.a.cmp(v) })
	return found || i > 0 && !s[i-1].b.less(v)
}

// hash is equal for equal sets.
func (s set) hash() uint64 {
	h := uint64(len(s)) + 0x9e3779b97f4a7c15
	for _, p := range s {
		for _, w := range [4]uint64{p.a.hi, p.a.lo, p.b.hi, p.b.lo} {
			h = (h ^ w) * 0xff51afd7ed558ccd
			h ^= h >> 32
		}
	}
	return h
}

// isPrefix reports whether the span is one network of the given address
// width, and its prefix length.
func (p span) isPrefix(width int) (bitsSet int, ok bool) {
	x := u128{p.a.hi ^ p.b.hi, p.a.lo ^ p.b.lo} // must be 0..01..1, and a's low bits zero
	n := x.next()
	if x.hi&n.hi != 0 || x.lo&n.lo != 0 || p.a.hi&x.hi != 0 || p.a.lo&x.lo != 0 {
		return 0, false
	}
	return width - bits.OnesCount64(x.hi) - bits.OnesCount64(x.lo), true
}

// prefixes cuts the set into networks; ok is false once there are more than limit.
func (s set) prefixes(width, limit int) (out []span, ok bool) {
	for _, p := range s {
		for {
			if len(out) == limit {
				return nil, false
			}
			q := p.firstPrefix(width)
			out = append(out, q)
			if q.b == p.b {
				break
			}
			p.a = q.b.next()
		}
	}
	return out, true
}

// firstPrefix is the widest network that begins where p does and lies in p.
func (p span) firstPrefix(width int) span {
	q := span{p.a, p.a}
	for free := 1; free <= width; free++ {
		m := maxOf(free)
		if p.a.hi&m.hi != 0 || p.a.lo&m.lo != 0 {
			break
		}
		b := u128{p.a.hi | m.hi, p.a.lo | m.lo}
		if p.b.less(b) {
			break
		}
		q.b = b
	}
	return q
}
