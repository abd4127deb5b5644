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

// no allocation, no lock, no log below this line

// parseIPv4 reads an IPv4 packet (RFC 791) at b[off:].
func parseIPv4(b []byte, off int, k *Key) Reason {
	p := b[off:]
	if len(p) < 20 {
		return MalformedIPv4
	}
	head := binary.BigEndian.Uint64(p) // version, IHL, DSCP, ECN, length, id, flags, offset
	total := int(head >> 32 & 0xffff)
	if total < 20 || total > len(p) {
		return MalformedIPv4
	}
	if trailing(p, total) {
		return TrailingBytes
	}
	proto := uint64(p[9])
	meta := proto<<shiftProto | uint64(p[8])<<shiftTTL | head>>50&63<<shiftDSCP
	k.Words[wordAddr4] = binary.BigEndian.Uint64(p[12:])
	ihl, frag := 20, notFragment
	// Version 4, no options, no flag but "do not fragment": one compare.
	if head&0xff00_0000_0000_bfff != 0x4500_0000_0000_0000 {
		var r Reason
		if ihl, frag, r = unusual4(head, p[:total]); r != OK {
			return r
		}
		if frag != notFragment {
			meta |= 1 << shiftFrag
		}
		if frag == laterFragment {
			return k.accept(ClassIPv4Fragment, b, meta)
		}
	}
	p = p[ihl:total]
	switch proto {
	case protoTCP:
		if r := parseTCP(p, k); r != OK {
			return r
		}
		return k.accept(ClassIPv4TCP, b, meta)
	case protoUDP:
		if r := parseUDP(p, frag == firstFragment, k); r != OK {
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

// unusual4 checks the header of the packet p where it is not the plain one,
// and returns its length and what it says of fragments.
func unusual4(head uint64, p []byte) (ihl int, frag fragmentKind, r Reason) {
	ihl = int(head >> 56 & 15 * 4)
	if head>>60 != 4 || ihl < 20 || ihl > len(p) {
		return 0, 0, MalformedIPv4
	}
	if r := checkOptions(p[20:ihl]); r != OK {
		return 0, 0, r
	}
	if head&0x8000 != 0 { // reserved flag
		return 0, 0, MalformedIPv4
	}
	more, offset := head&0x2000 != 0, int(head&0x1fff)
	if !more && offset == 0 {
		return ihl, notFragment, OK
	}
	if more && offset == 0 {
		frag = firstFragment
	} else {
		frag = laterFragment
	}
	// The header is part of the 65535 bytes that the datagram may have.
	return ihl, frag, checkFragment(more, offset, len(p)-ihl, 65535-20, MalformedIPv4)
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
