package rule

import (
	"math/bits"

	"sekimori/nicshadow/frame"
)

// A head is the first node of a class, made for what policies ask of IPv4 and
// ARP: its lanes look at words that are fixed, and most test equality. That
// takes 5 instructions a lane, where a node takes 8, so it has one lane more,
// and most frames are judged by it alone. Other classes, and programs that
// begin otherwise, begin at a node.
type head struct {
	mask, base [headCount]uint64
	// limit is span + 1 of the lanes from headRange on: pass = x < limit.
	limit [headCount - headRange]uint64
	// next says where to go for each set of lanes that passed.
	next [1 << headCount]int32
}

const (
	headCount = 5
	headRange = 3 // the first lane that is not equality only
)

// headWords are the words the lanes look at.
var headWords = [headCount]uint8{
	frame.SourceWord, frame.AddressWord, frame.AddressWord, frame.TransportWord, frame.TransportWord,
}

// begin makes the way in for each class from its entry.
func (p *preparer) begin(entries []uint32, w *way) {
	w.entry[frame.ClassNone] = leaf(Drop, 0)
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		pc := p.thread(int(entries[c]))
		if p.heads[pc] == nil {
			p.heads[pc] = p.head(pc)
		}
		if w.heads[c] = p.heads[pc]; w.heads[c] == nil {
			w.entry[c] = p.number(pc)
		}
	}
}

// head is a head for what begins at pc, nil where it would be of no use.
func (p *preparer) head(pc int) *head {
	lanes, pc := p.gather(pc, false, func(old, more []lane) bool {
		_, ok := slots(old, more)
		return ok
	})
	if len(lanes) < 2 {
		return nil
	}
	h := new(head)
	slot, _ := slots(lanes)
	for i := range h.limit {
		h.limit[i] = 1
	}
	var exits [headCount]int32
	for i := range lanes {
		l, s := &lanes[i], slot[i]
		h.mask[s], h.base[s] = l.mask, l.base
		if s >= headRange {
			h.limit[s-headRange] = l.span + 1
		}
		exits[i] = p.exit(l)
	}
	through := p.number(pc)
	for passed := range h.next {
		h.next[passed] = through
		for i := range lanes {
			if passes := passed>>slot[i]&1 != 0; passes == lanes[i].flip {
				h.next[passed] = exits[i]
				break
			}
		}
	}
	return h
}

// slots finds a lane of a head for each of the lanes; false where there is
// none.
func slots(lanes ...[]lane) (slot [headCount]int, ok bool) {
	n, taken := 0, 0
	for _, some := range lanes {
		for i := range some {
			s := some[i].slot(taken)
			if s < 0 || n == headCount {
				return slot, false
			}
			taken |= 1 << s
			slot[n] = s
			n++
		}
	}
	return slot, true
}

// slot is a lane of a head that l can be, but for those taken, or -1.
func (l *lane) slot(taken int) int {
	for s, word := range headWords {
		if taken>>s&1 != 0 || word != l.word && l.mask != 0 {
			continue
		}
		if l.span == 0 || s >= headRange && l.span != ^uint64(0) {
			return s
		}
	}
	return -1
}

// no allocation, no lock, no log below this line

// step is the first step of [Program.Run], for those who are in less of a
// hurry.
func (h *head) step(k *frame.Key) int {
	var f uint64
	for i := headCount - 1; i >= 0; i-- {
		limit := uint64(1)
		if i >= headRange {
			limit = h.limit[i-headRange]
		}
		_, b := bits.Sub64(k.Words[headWords[i]]&h.mask[i]-h.base[i], limit, 0)
		f, _ = bits.Add64(f, f, b)
	}
	return int(h.next[f&(1<<headCount-1)])
}
