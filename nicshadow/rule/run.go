package rule

import (
	"math/bits"

	"sekimori/nicshadow/frame"
)

// no allocation, no lock, no log below this line

// Run judges the frame that k was parsed from. It allocates nothing. A key of
// no class drops.
func (p *Program) Run(k *frame.Key) Outcome {
	n := p.fast.entry[uint8(k.Words[frame.ClassWord])]
	for uint(n) < uint(len(p.fast.nodes)) {
		n = p.fast.nodes[n].step(k)
	}
	if n < 0 {
		return outcome(n)
	}
	return p.runSpecial(k, n)
}

// runSpecial goes on where Run met a special: only from here on are there
// registers.
func (p *Program) runSpecial(k *frame.Key, n int32) Outcome {
	var regs [NumRegs]int64
	nodes, specials := p.fast.nodes, p.fast.specials
	for n >= 0 {
		if uint(n) < uint(len(nodes)) {
			n = nodes[n].step(k)
		} else {
			n = specials[n-specialBase].step(k, &regs)
		}
	}
	return outcome(n)
}

// step runs the lanes of the node and says where to go. All lanes are made
// before the first is looked at. Each leaves one bit, the borrow of its
// compare, shifted in by adding with carry: two instructions a lane.
func (nd *node) step(k *frame.Key) int32 {
	w := &nd.word
	var f uint64
	_, b := bits.Sub64(nd.span[3], k.Words[w[3]&15]&nd.mask[3]-nd.base[3], 0)
	f, _ = bits.Add64(f, f, b)
	_, b = bits.Sub64(nd.span[2], k.Words[w[2]&15]&nd.mask[2]-nd.base[2], 0)
	f, _ = bits.Add64(f, f, b)
	_, b = bits.Sub64(nd.span[1], k.Words[w[1]&15]&nd.mask[1]-nd.base[1], 0)
	f, _ = bits.Add64(f, f, b)
	_, b = bits.Sub64(nd.span[0], k.Words[w[0]&15]&nd.mask[0]-nd.base[0], 0)
	f, _ = bits.Add64(f, f, b)
	return nd.next[f&(1<<laneCount-1)]
}
