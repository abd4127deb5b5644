package policy

import "math/bits"

// An index finds things by their hash: numbers, counted from 1, in a table
// with open addressing that is never more than half full. Compiling is mostly
// looking up whether a node is there already; Go's maps took a quarter of the
// time of it.
type index struct {
	slots []int32
	used  int
}

const minSlots = 256

// start is the first slot for a hash.
func (x *index) start(hash uint64) int {
	if x.slots == nil {
		x.slots = make([]int32, minSlots)
	}
	return int(hash) & (len(x.slots) - 1)
}

func (x *index) next(slot int) int { return (slot + 1) & (len(x.slots) - 1) }

// add puts a number into a free slot. It reports whether the index must be
// rebuilt because it is too full.
func (x *index) add(slot int, id int32) (full bool) {
	x.slots[slot] = id + 1
	x.used++
	return 2*x.used > len(x.slots)
}

// rebuild doubles the table.
func (x *index) rebuild(hash func(id int32) uint64) {
	old := x.slots
	x.slots = make([]int32, 2*len(old))
	for _, s := range old {
		if s == 0 {
			continue
		}
		i := x.start(hash(s - 1))
		for x.slots[i] != 0 {
			i = x.next(i)
		}
		x.slots[i] = s
	}
}

func (x *index) clear() {
	clear(x.slots)
	x.used = 0
}

// mix hashes two words into one.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xff51afd7ed558ccd)
	return hi ^ lo
}
