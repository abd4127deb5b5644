package frame

import "encoding/binary"

// IP protocol numbers.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoDestOpts = 60
)

// minFragmentOffset is the least offset, in 8-byte units, of a later fragment:
// behind the 20 bytes of a TCP header, the longest fixed transport header. A
// fragment before it would overwrite fields that were judged in the first one
// (RFC 1858, 3; RFC 3128). No link has an MTU that makes one: the least IPv4
// MTU leaves 48 bytes (RFC 791).
const minFragmentOffset = 3

// no allocation, no lock, no log below this line

// parseIPv4 reads an IPv4 packet (RFC 791) at b[off:].
func parseIPv4(b []byte, off int, k *Key) Reason {
	p := b[off:]
	if len(p) < 20 {
		return MalformedIPv4
	}
	head := binary.BigEndian.Uint64(p) // version, IHL, DSCP, ECN, length, id, flags, offset
	ihl := int(head >> 56 & 15 * 4)
	total := int(head >> 32 & 0xffff)
	if head>>60 != 4 || ihl < 20 || total < ihl || total > len(p) {
		return MalformedIPv4
	}
	if trailing(b, off, off+total) {
		return TrailingBytes
	}
	proto := uint64(p[9])
	meta := proto<<shiftProto | uint64(p[8])<<shiftTTL | head>>50&63<<shiftDSCP
	k.Words[wordAddr4] = binary.BigEndian.Uint64(p[12:])
	if ihl > 20 {
		if r := checkOptions(p[20:ihl]); r != OK {
			return r
		}
	}
	p = p[ihl:total]
	first := false
	if frag := head & 0xbfff; frag != 0 { // all but "do not fragment"
		meta |= 1 << shiftFrag
		if r := checkFragment4(head&0xffff, len(p)); r != OK {
			return r
		}
		if frag&0x1fff != 0 {
			return k.accept(ClassIPv4Fragment, b, meta)
		}
		first = true
	}
	switch proto {
	case protoTCP:
		if r := parseTCP(p, k); r != OK {
			return r
		}
		return k.accept(ClassIPv4TCP, b, meta)
	case protoUDP:
		if r := parseUDP(p, first, k); r != OK {
			return r
		}
		return k.accept(ClassIPv4UDP, b, meta)
	case protoICMP:
		if r := parseICMP(p, 8, k); r != OK {
			return r
		}
		return k.accept(ClassIPv4ICMP, b, meta)
	}
	return k.accept(ClassIPv4Other, b, meta)
}

// checkFragment4 checks the flags and the offset of a fragment that carries n
// bytes: the reserved flag is zero, pieces but the last are made of 8-byte
// units, none reaches behind 65535 bytes, and none overlaps a header.
func checkFragment4(flags uint64, n int) Reason {
	more, offset := flags&0x2000 != 0, int(flags&0x1fff)
	switch {
	case flags&0x8000 != 0:
		return MalformedIPv4
	case more && (n%8 != 0 || n == 0):
		return MalformedIPv4
	case offset*8+n > 65535-20:
		return MalformedIPv4
	case offset > 0 && offset < minFragmentOffset:
		return FragmentOverlap
	}
	return OK
}

// checkOptions walks the options of an IPv4 header (RFC 791, 3.1).
func checkOptions(opts []byte) Reason {
	for len(opts) > 0 { // at most 40 bytes
		switch opts[0] {
		case 0: // end of list
			return OK
		case 1: // no operation
			opts = opts[1:]
			continue
		case 131, 137: // loose and strict source route: the next hop is not the judged one
			return SourceRoute
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			return MalformedIPv4
		}
		opts = opts[opts[1]:]
	}
	return OK
}
