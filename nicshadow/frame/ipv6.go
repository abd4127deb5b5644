package frame

import "encoding/binary"

// no allocation, no lock, no log below this line

// parseIPv6 reads the IPv6 packet (RFC 8200) in b, behind headerLen bytes, and
// what pads it. Jumbograms cannot pass: their payload length of 0 leaves no
// room for the option.
func parseIPv6(b []byte, meta uint64, k *Key) Reason {
	if len(b) < headerLen+40 {
		return MalformedIPv6
	}
	p := b[headerLen:]
	head := binary.BigEndian.Uint64(p) // version, class, label, length, next header, hop limit
	n := int(head >> 16 & 0xffff)
	if head>>60 != 6 || n > len(p)-40 {
		return MalformedIPv6
	}
	if trailing(p, 40+n) {
		return TrailingBytes
	}
	meta |= head&0xff<<shiftTTL | head>>54&63<<shiftDSCP
	k.Words[wordSrc6] = binary.BigEndian.Uint64(p[8:])
	k.Words[wordSrc6+1] = binary.BigEndian.Uint64(p[16:])
	k.Words[wordDst6] = binary.BigEndian.Uint64(p[24:])
	k.Words[wordDst6+1] = binary.BigEndian.Uint64(p[32:])
	proto, frag := head>>8&0xff, notFragment
	p = p[40 : 40+n]
	if isExtension(proto) {
		var r Reason
		if proto, p, frag, r = walkExtensions(proto, p); r != OK {
			return r
		}
		if frag != notFragment {
			meta |= 1 << shiftFrag
		}
	}
	meta |= proto << shiftProto
	if frag == laterFragment {
		return k.accept(ClassIPv6Fragment, meta)
	}
	switch proto {
	case protoTCP:
		return parseTCP(p, ClassIPv6TCP, meta, k)
	case protoUDP:
		return parseUDP(p, frag == firstFragment, ClassIPv6UDP, meta, k)
	case protoICMPv6:
		if len(p) >= 4 && isNDP(p[0]) {
			return parseNDP(p, frag, meta, k)
		}
		return parseICMP(p, 4, ClassIPv6ICMP, meta, k)
	}
	return k.accept(ClassIPv6Other, meta)
}

// isExtension reports whether proto is an extension header that the walk
// reads. Authentication and everything newer is an unknown protocol.
func isExtension(proto uint64) bool {
	return proto == protoHopByHop || proto == protoRouting ||
		proto == protoDestOpts || proto == protoFragment
}

// walkExtensions walks the extension headers at the head of p, the first of
// kind proto, and returns what lies behind them. A later fragment ends the
// walk: what follows its Fragment header belongs to the middle of a datagram.
//
//	byte 0   next header
//	byte 1   length in 8-byte units without the first (0 in a Fragment header)
func walkExtensions(proto uint64, p []byte) (uint64, []byte, fragmentKind, Reason) {
	frag := notFragment
	for i := 0; isExtension(proto); i++ {
		if i == MaxExtensionHeaders {
			return 0, nil, 0, ExtensionHeaders
		}
		if len(p) < 8 {
			return 0, nil, 0, TruncatedHeaders
		}
		n := 8 + int(p[1])*8
		switch proto {
		case protoHopByHop: // only right behind the IPv6 header (RFC 8200, 4.1)
			if i != 0 {
				return 0, nil, 0, MalformedIPv6
			}
		case protoRouting:
			// With segments left, whatever the type, the judged destination
			// is not the last one.
			if p[2] == 0 || p[3] != 0 {
				return 0, nil, 0, SourceRoute
			}
		case protoFragment:
			if frag != notFragment {
				return 0, nil, 0, MalformedIPv6
			}
			n = 8
			var r Reason
			if frag, r = fragment(p); r != OK {
				return 0, nil, 0, r
			}
		}
		if n > len(p) {
			return 0, nil, 0, TruncatedHeaders
		}
		proto, p = uint64(p[0]), p[n:]
		if frag == laterFragment {
			break
		}
	}
	return proto, p, frag, OK
}

// fragment reads the Fragment header (RFC 8200, 4.5) that begins p, under the
// same rules as IPv4's.
//
//	byte 1     reserved, 0
//	byte 2, 3  offset in 8-byte units (13 bits), reserved (2), more (1)
//	byte 4..7  identification
func fragment(p []byte) (fragmentKind, Reason) {
	word := int(binary.BigEndian.Uint16(p[2:]))
	more, offset, n := word&1 != 0, word>>3, len(p)-8
	if p[1] != 0 || word&6 != 0 {
		return 0, MalformedIPv6
	}
	kind := atomicFragment
	switch {
	case offset > 0:
		kind = laterFragment
	case more:
		kind = firstFragment
	}
	return kind, checkFragment(more, offset, n, 65535, MalformedIPv6)
}
