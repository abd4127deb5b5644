package witness

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"sekimori/nicshadow/frame"
)

// maxTries bounds how many values are tried for what is not computed.
const maxTries = 512

// usual are the values that a reader of a witness expects where the way leaves
// them open: those of the frame builders of seki test.
var usual = sync.OnceValue(func() map[frame.Field]value {
	return map[frame.Field]value{
		frame.EthDst: number(0x020000000001), frame.EthSrc: number(0x020000000002), frame.Length: number(60),
		frame.ARPSenderMAC: number(0x020000000002), frame.ARPSenderIP: number(0x0a000002), frame.ARPTargetIP: number(0x0a000001),
		frame.IPv4Src: number(0x0a000002), frame.IPv4Dst: number(0x0a000001),
		frame.IPv6Src: {Hi: 0xfd00 << 48, Lo: 2}, frame.IPv6Dst: {Hi: 0xfd00 << 48, Lo: 1},
		frame.IPTTL: number(64), frame.SrcPort: number(40000), frame.DstPort: number(80), frame.TCPSyn: number(1),
		frame.EtherType: number(0x88cc), frame.NDPTarget: {Hi: 0xfd00 << 48, Lo: 1},
		frame.NDPLinkMAC: number(0x020000000002), frame.ICMPType: number(8), frame.ARPOp: number(1),
		frame.ICMPAbout4: number(0x0a000002), frame.ICMPAbout6: {Hi: 0xfd00 << 48, Lo: 2},
	}
})

// pick is a value of the set: the usual one, or the least.
func pick(f frame.Field, s Set) value {
	if v := usual()[f]; s.Contains(v) {
		return v
	}
	return s.First()
}

// key is a frame in the domain.
func (d *domain) key(c frame.Class) *frame.Key {
	k := &frame.Key{}
	k.SetClass(c)
	for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
		if c.Has(f) {
			v := pick(f, d.fields[f])
			k.Set(f, v.Hi, v.Lo)
		}
	}
	return k
}

// keys calls try with frames in the domain until one will do. The first has the
// usual values; the others vary the fields that opaque tests on the way read.
// None is possible where two fields must be equal and cannot.
func (s *search) keys(c frame.Class, d *domain, try func(*frame.Key) bool) (found, possible bool) {
	if try(d.key(c)) {
		return true, true
	}
	var reads []frame.Field
	var near []value
	for _, id := range slices.Sorted(maps.Keys(d.decided)) { // the same search finds the same frame
		t, holds := &s.tests[id], d.decided[id]
		reads, near = join(reads, t.reads), append(near, t.near...)
		if t.same && holds {
			if d = meet(d, t.reads[0], t.reads[1]); d == nil {
				return false, false
			}
		}
	}
	if len(reads) == 0 {
		return false, true
	}
	if try(d.key(c)) {
		return true, true
	}
	random := rand.New(rand.NewPCG(1, uint64(len(reads))))
	for range maxTries {
		k := d.key(c)
		for _, f := range reads {
			if c.Has(f) {
				v := d.fields[f].near(near, random)
				k.Set(f, v.Hi, v.Lo)
			}
		}
		if try(k) {
			return true, true
		}
	}
	return false, true
}

// meet is d where two fields are equal; nil where they cannot be.
func meet(d *domain, f, g frame.Field) *domain {
	both := d.fields[f].And(d.fields[g])
	if both.Empty() {
		return nil
	}
	c := *d
	v := point(pick(f, both))
	c.fields[f], c.fields[g] = v, v
	return &c
}

// near is a value of the set: an end of one of its ranges, one near a constant,
// or any.
func (s Set) near(constants []value, random *rand.Rand) value {
	a := s.spans[random.IntN(len(s.spans))]
	switch n := random.IntN(4); {
	case n == 0:
		return a.lo
	case n == 1:
		return a.hi
	case n == 2 && len(constants) > 0:
		v := constants[random.IntN(len(constants))]
		v.Lo += uint64(random.IntN(3)) - 1
		if s.Contains(v) {
			return v
		}
	}
	v := value{Hi: a.lo.Hi, Lo: random.Uint64()}
	if n := a.hi.Lo - a.lo.Lo; a.lo.Hi == a.hi.Hi && n < ^uint64(0) {
		v.Lo = a.lo.Lo + v.Lo%(n+1)
	}
	if !s.Contains(v) {
		return a.lo
	}
	return v
}
