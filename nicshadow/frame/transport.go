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
	return k.accept(c, meta)
}

// parseICMP reads type and code of an ICMP message of at least least bytes.
func parseICMP(p []byte, least int, c Class, meta uint64, k *Key) Reason {
	if len(p) < least {
		return TruncatedHeaders
	}
	k.Words[wordL4] = uint64(p[0])<<shiftICMPType | uint64(p[1])<<shiftICMPCode
	return k.accept(c, meta)
}
