package witness

import (
	"math/rand/v2"

	"sekimori/nicshadow/frame"
)

// Random is the key of some frame of a class: one of the searched space. For
// tests, and for who wants frames of every kind.
func Random(c frame.Class, random *rand.Rand) *frame.Key {
	vs := variants(c)
	k := &frame.Key{}
	k.SetClass(c)
	if len(vs) == 0 {
		return k
	}
	d := vs[random.IntN(len(vs))].domain(c)
	for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
		if c.Has(f) {
			v := d.fields[f].near(nil, random)
			k.Set(f, v.Hi, v.Lo)
		}
	}
	return k
}
