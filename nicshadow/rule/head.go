package rule

import "sekimori/nicshadow/frame"

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

// begin makes the way in for class c, whose entry is pc.
func (p *preparer) begin(c frame.Class, pc int) {
	pc = p.thread(pc)
	if p.heads[pc] == nil {
		h := p.head(pc)
		if h == nil {
			p.out.entry[c] = p.number(pc)
			return
		}
		p.heads[pc] = h
	}
	p.out.heads[c] = p.heads[pc]
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
