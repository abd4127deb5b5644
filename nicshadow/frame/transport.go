package frame

import "encoding/binary"

// no allocation, no lock, no log below this line

// parseTCP reads the TCP header (RFC 9293) that begins p, the payload of an
// unfragmented packet or of a first fragment.
func parseTCP(p []byte, c Class, meta uint64, k *Key) Reason {
	if len(p) < 20 {
		return TruncatedHeaders
	}
	offset := int(p[12]>>4) * 4
	if offset < 20 {
		return MalformedTCP
	}
	if offset > len(p) {
		return TruncatedHeaders
	}
	k.Words[wordL4] = uint64(binary.BigEndian.Uint32(p))<<32 | uint64(p[13]&tcpFlags)
	return k.accept(c, meta)
}

// tcpFlags are the flags that are fields, where the header has them.
const tcpFlags = 1<<shiftAck | 1<<shiftRst | 1<<shiftSyn | 1<<shiftFin

// parseUDP reads the UDP header (RFC 768) that begins p. Its length must be
// that of the packet: what lies behind it nobody would have judged. In a
// first fragment it must be more than there is so far.
func parseUDP(p []byte, first bool, c Class, meta uint64, k *Key) Reason {
	if len(p) < 8 {
		return TruncatedHeaders
	}
	head := binary.BigEndian.Uint64(p)
	n := int(head >> 16 & 0xffff)
	if n != len(p) && !(first && n > len(p)) {
		return MalformedUDP
	}
	k.Words[wordL4] = head &^ 0xffffffff
	// By the port it goes to: that is what its receiver goes by.
	switch to := head >> 32 & 0xffff; {
	case to-67 < 2 && c == ClassIPv4UDP:
		return parseDHCP4(p[8:], first, meta, k)
	case to-546 < 2 && c == ClassIPv6UDP:
		return parseDHCP6(p[8:], first, meta, k)
	}
	return k.accept(c, meta)
}

// parseICMP reads type and code of an ICMP message of at least least bytes,
// and what an error message is about.
func parseICMP(p []byte, least int, c Class, meta uint64, k *Key) Reason {
	if len(p) < least {
		return TruncatedHeaders
	}
	k.Words[wordL4] = uint64(p[0])<<shiftICMPType | uint64(p[1])<<shiftICMPCode
	k.Words[wordTarget], k.Words[wordTarget+1] = 0, 0
	if isError(p[0], c) && !quoted(p, c, meta>>shiftFrag&1 != 0, k) {
		return MalformedICMP
	}
	return k.accept(c, meta)
}

// isError reports whether ICMP messages of type typ are about a packet: in
// IPv6 all below 128 are (RFC 4443, 2.1).
func isError(typ byte, c Class) bool {
	if c == ClassIPv6ICMP {
		return typ < 128
	}
	switch typ {
	case 3, 4, 5, 11, 12: // unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792)
		return true
	}
	return false
}

// quoted notes where the packet was going whose header the error message p
// quotes behind its own 8 bytes; false where it quotes none, or one to nobody. Receivers act on
// the quote, whoever sends it: on "fragmentation needed" Linux changes its
// route to that address. A fragment may follow that overwrites the quote, and
// no host makes error messages so long that they need any.
func quoted(p []byte, c Class, fragment bool, k *Key) bool {
	if fragment || len(p) < 8 {
		return false
	}
	p = p[8:]
	if c == ClassIPv6ICMP {
		if len(p) < 40 || p[0]>>4 != 6 {
			return false
		}
		k.Words[wordTarget] = binary.BigEndian.Uint64(p[24:])
		k.Words[wordTarget+1] = binary.BigEndian.Uint64(p[32:])
	} else {
		if len(p) < 20 || p[0]>>4 != 4 {
			return false
		}
		k.Words[wordTarget] = uint64(binary.BigEndian.Uint32(p[16:]))
	}
	return k.Words[wordTarget]|k.Words[wordTarget+1] != 0
}
