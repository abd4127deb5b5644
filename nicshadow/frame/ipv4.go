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

// parseIPv4 reads the IPv4 packet (RFC 791) in b, behind headerLen bytes, and
// what pads it.
func parseIPv4(b []byte, meta uint64, k *Key) Reason {
	if len(b) < headerLen+20 {
		return MalformedIPv4
	}
	p := b[headerLen:]
	head := binary.BigEndian.Uint64(p) // version, IHL, DSCP, ECN, length, id, flags, offset
	total := int(head >> 32 & 0xffff)
	if total < 20 || total > len(p) {
		return MalformedIPv4
	}
	if trailing(p, total) {
		return TrailingBytes
	}
	meta |= uint64(binary.BigEndian.Uint16(p[8:]))<<shiftProto | head&(63<<shiftDSCP)
	k.Words[wordAddr4] = binary.BigEndian.Uint64(p[12:])
	body, frag := p[20:total], notFragment
	// Version 4, no options, no flag but "do not fragment": one compare.
	if head&0xff00_0000_0000_bfff != 0x4500_0000_0000_0000 {
		var r Reason
		if body, frag, r = unusual4(head, p[:total]); r != OK {
			return r
		}
		if frag != notFragment {
			meta |= 1 << shiftFrag
		}
		if frag == laterFragment {
			return k.accept(ClassIPv4Fragment, meta)
		}
	}
	switch p[9] {
	case protoTCP:
		return parseTCP(body, ClassIPv4TCP, meta, k)
	case protoUDP:
		return parseUDP(body, frag == firstFragment, ClassIPv4UDP, meta, k)
	case protoICMP:
		return parseICMP(body, 8, ClassIPv4ICMP, meta, k)
	}
	return k.accept(ClassIPv4Other, meta)
}

// unusual4 checks the header of the packet p where it is not the plain one,
// and returns what lies behind it and what it says of fragments.
func unusual4(head uint64, p []byte) (body []byte, frag fragmentKind, r Reason) {
	ihl := int(head >> 56 & 15 * 4)
	if head>>60 != 4 || ihl < 20 || ihl > len(p) {
		return nil, 0, MalformedIPv4
	}
	if r := checkOptions(p[20:ihl]); r != OK {
		return nil, 0, r
	}
	if head&0x8000 != 0 { // reserved flag
		return nil, 0, MalformedIPv4
	}
	more, offset := head&0x2000 != 0, int(head&0x1fff)
	if !more && offset == 0 {
		return p[ihl:], notFragment, OK
	}
	if more && offset == 0 {
		frag = firstFragment
	} else {
		frag = laterFragment
	}
	// The header is part of the 65535 bytes that the datagram may have.
	return p[ihl:], frag, checkFragment(more, offset, len(p)-ihl, 65535-20, MalformedIPv4)
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
