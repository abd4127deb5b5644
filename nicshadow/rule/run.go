package rule

import (
	"math/bits"

	"sekimori/nicshadow/frame"
)

// no allocation, no lock, no log below this line

// Run judges the frame that k was parsed from, on its way out and without a
// [State]. It allocates nothing. A key of no class drops.
func (p *Program) Run(k *frame.Key) Outcome {
	class := uint8(k.Words[frame.ClassWord])
	if class >= uint8(frame.NumClasses) {
		return outcome(int(leaf(Drop, 0)))
	}
	n := 0
	if hd := p.fast.heads[class]; hd != nil {
		// As below, but that a lane leaves a bit when it passes: below its
		// limit, which for most is 1. That most frames end here, without a
		// look at nodes, is 1.4 ns of 12.
		src, addr, l4 := k.Words[frame.SourceWord], k.Words[frame.AddressWord], k.Words[frame.TransportWord]
		_, b := bits.Sub64(l4&hd.mask[4]-hd.base[4], hd.limit[1], 0)
		f, _ := bits.Add64(0, 0, b)
		_, b = bits.Sub64(l4&hd.mask[3]-hd.base[3], hd.limit[0], 0)
		f, _ = bits.Add64(f, f, b)
		_, b = bits.Sub64(addr&hd.mask[2]-hd.base[2], 1, 0)
		f, _ = bits.Add64(f, f, b)
		_, b = bits.Sub64(addr&hd.mask[1]-hd.base[1], 1, 0)
		f, _ = bits.Add64(f, f, b)
		_, b = bits.Sub64(src&hd.mask[0]-hd.base[0], 1, 0)
		f, _ = bits.Add64(f, f, b)
		if n = int(hd.next[f&(1<<headCount-1)]); n < 0 {
			return outcome(n)
		}
	} else {
		n = int(p.fast.entry[class])
	}
	nodes := p.fast.nodes
	for uint(n) < uint(len(nodes)) {
		// This is nodes[n].step(k), by hand: the call takes 0.8 ns of 12.
		nd := &nodes[n]
		w := &nd.word
		_, b := bits.Sub64(nd.span[3], k.Words[w[3]&15]&nd.mask[3]-nd.base[3], 0)
		f, _ := bits.Add64(0, 0, b)
		_, b = bits.Sub64(nd.span[2], k.Words[w[2]&15]&nd.mask[2]-nd.base[2], 0)
		f, _ = bits.Add64(f, f, b)
		_, b = bits.Sub64(nd.span[1], k.Words[w[1]&15]&nd.mask[1]-nd.base[1], 0)
		f, _ = bits.Add64(f, f, b)
		_, b = bits.Sub64(nd.span[0], k.Words[w[0]&15]&nd.mask[0]-nd.base[0], 0)
		f, _ = bits.Add64(f, f, b)
		n = int(nd.next[f&(1<<laneCount-1)])
	}
	if n < 0 {
		return outcome(n)
	}
	return p.runSpecial(k, n, nil)
}

// RunAt is Run at a moment: with what the program remembers, and either way.
// A frame on its way to the container is forwarded by a program that does not
// judge those, with pc 0.
func (p *Program) RunAt(k *frame.Key, m *Moment) Outcome {
	m.asked, m.answers = 0, 0
	class := uint8(k.Words[frame.ClassWord])
	w := &p.fast.way
	if m.Ingress {
		if w = p.fast.ingress; w == nil {
			return Outcome{Verdict: Forward}
		}
	}
	if class >= uint8(frame.NumClasses) {
		return outcome(int(leaf(Drop, 0)))
	}
	n := int(w.entry[class])
	if h := w.heads[class]; h != nil {
		n = h.step(k)
	}
	return p.runSpecial(k, n, m)
}

// runSpecial goes on where Run met a special: only from here on are there
// registers.
func (p *Program) runSpecial(k *frame.Key, n int, m *Moment) Outcome {
	var regs [NumRegs]int64
	nodes, specials := p.fast.nodes, p.fast.specials
	for n >= 0 {
		if n < len(nodes) {
			n = nodes[n].step(k)
		} else {
			n = specials[n-specialBase].step(k, &regs, m)
		}
	}
	return outcome(n)
}

// step runs the lanes of the node and says where to go. All lanes are made
// before the first is looked at. Each leaves one bit, the borrow of its
// compare, shifted in by adding with carry: two instructions a lane.
func (nd *node) step(k *frame.Key) int {
	w := &nd.word
	var f uint64
	for i := laneCount - 1; i >= 0; i-- {
		_, b := bits.Sub64(nd.span[i], k.Words[w[i]&15]&nd.mask[i]-nd.base[i], 0)
		f, _ = bits.Add64(f, f, b)
	}
	return int(nd.next[f&(1<<laneCount-1)])
}
