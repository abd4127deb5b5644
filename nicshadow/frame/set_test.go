package frame_test

import (
	"testing"

	"sekimori/nicshadow/frame"
)

// Every field of every class holds what was set, whatever was set beside it.
func TestSet(t *testing.T) {
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		var k frame.Key
		k.SetClass(c)
		want := map[frame.Field][2]uint64{}
		for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
			if !c.Has(f) {
				k.Set(f, 1, 1) // is ignored
				continue
			}
			w := [2]uint64{0, 0xa5a5a5a5a5a5a5a5 + uint64(f)}
			switch f.Width() {
			case 128:
				w[0] = ^w[1]
			default:
				w[1] &= 1<<f.Width() - 1
			}
			k.Set(f, w[0], w[1])
			want[f] = w
		}
		if k.Class() != c {
			t.Errorf("%s: class is %s", c, k.Class())
		}
		for f, w := range want {
			if hi, lo := k.Wide(f); hi != w[0] || lo != w[1] {
				t.Errorf("%s: %s = %#x %#x; want %#x", c, f, hi, lo, w)
			}
		}
	}
}
