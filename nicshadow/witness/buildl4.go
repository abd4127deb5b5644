package witness

import (
	"encoding/binary"

	"sekimori/nicshadow/frame"
)

// transport is what an IP packet carries, with extra bytes at its end; nil for
// a class of which nothing is known.
func transport(k *frame.Key, extra int) []byte {
	more := make([]byte, extra)
	switch k.Class() {
	case frame.ClassIPv4TCP, frame.ClassIPv6TCP:
		return seal(k, append(tcp(k), more...), 16)
	case frame.ClassIPv4UDP, frame.ClassIPv6UDP:
		return udp(k, more)
	case frame.ClassIPv4DHCP:
		return udp(k, append(dhcp4(k), more...))
	case frame.ClassIPv6DHCP:
		if extra < 4 {
			more = nil
		} else { // an option that nobody knows
			binary.BigEndian.PutUint16(more, 0xffff)
			binary.BigEndian.PutUint16(more[2:], uint16(extra-4))
		}
		return udp(k, append(dhcp6(k), more...))
	case frame.ClassIPv4ICMP:
		b := append(icmp(k), more...)
		binary.BigEndian.PutUint16(b[2:], checksum(0, b))
		return b
	case frame.ClassIPv6ICMP:
		return seal(k, append(icmp(k), more...), 2)
	case frame.ClassIPv6NDP:
		b := ndp(k)
		for ; extra >= 8; extra -= 8 { // options are made of whole units
			b = append(b, 14, 1, 0, 0, 0, 0, 0, 0) // a nonce, which nobody minds (RFC 3971)
		}
		return seal(k, b, 2)
	case frame.ClassIPv4Other, frame.ClassIPv6Other, frame.ClassIPv4Fragment, frame.ClassIPv6Fragment:
		return append(make([]byte, 8), more...)
	}
	return nil
}

// seal writes the checksum at offset: over the pseudo header of RFC 9293, 3.1
// or RFC 8200, 8.1, too. A fragment is not the whole of what it is over.
func seal(k *frame.Key, b []byte, offset int) []byte {
	var pseudo []byte
	if k.Class().Has(frame.IPv6Src) {
		pseudo = append128(append128(nil, k, frame.IPv6Src), k, frame.IPv6Dst)
	} else {
		pseudo = binary.BigEndian.AppendUint32(nil, uint32(k.Uint(frame.IPv4Src)))
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(k.Uint(frame.IPv4Dst)))
	}
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(b)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(k.Uint(frame.IPProtocol)))
	sum := uint32(^checksum(0, pseudo))
	binary.BigEndian.PutUint16(b[offset:], checksum(sum, b))
	return b
}

// tcp is the header of RFC 9293, 3.1.
func tcp(k *frame.Key) []byte {
	var flags byte
	for i, f := range []frame.Field{frame.TCPFin, frame.TCPSyn, frame.TCPRst, frame.FieldInvalid, frame.TCPAck} {
		if f != frame.FieldInvalid {
			flags |= byte(k.Uint(f)) << i
		}
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(k.Uint(frame.SrcPort)))
	b = binary.BigEndian.AppendUint16(b, uint16(k.Uint(frame.DstPort)))
	return append(b, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, flags, 0xfa, 0xf0, 0, 0, 0, 0)
}

// udp is RFC 768. The first fragment of a datagram carries the length of all.
func udp(k *frame.Key, more []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(k.Uint(frame.SrcPort)))
	b = binary.BigEndian.AppendUint16(b, uint16(k.Uint(frame.DstPort)))
	n := 8 + len(more)
	if k.Uint(frame.IPFragment) != 0 && len(more) < 8 {
		n += -n & 7 // as it is padded
	}
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = seal(k, append(append(b, 0, 0), more...), 6)
	if b[6] == 0 && b[7] == 0 {
		b[6], b[7] = 0xff, 0xff // zero would say that there is none
	}
	return b
}

// icmp is type, code, checksum, 4 bytes, and for an error message the packet
// that it is about.
func icmp(k *frame.Key) []byte {
	b := []byte{byte(k.Uint(frame.ICMPType)), byte(k.Uint(frame.ICMPCode)), 0, 0, 0, 0, 0, 0}
	if hi, lo := k.Wide(frame.ICMPAbout6); hi|lo != 0 {
		quote := binary.BigEndian.AppendUint32(nil, 6<<28)
		quote = append128(append(quote, 0, 8, protoUDP, 64), k, frame.IPv6Dst)
		return append(append128(append(b, quote...), k, frame.ICMPAbout6), make([]byte, 8)...)
	}
	if about := k.Uint(frame.ICMPAbout4); about != 0 {
		quote := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, protoUDP, 0, 0}
		quote = binary.BigEndian.AppendUint32(quote, uint32(k.Uint(frame.IPv4Dst)))
		quote = binary.BigEndian.AppendUint32(quote, uint32(about))
		return append(append(b, quote...), make([]byte, 8)...)
	}
	return b
}

// ndp is a message of RFC 4861, 4 with its link-layer address option.
func ndp(k *frame.Key) []byte {
	typ := byte(k.Uint(frame.ICMPType))
	b := []byte{typ, byte(k.Uint(frame.ICMPCode)), 0, 0, 0, 0, 0, 0}
	option := byte(1)
	switch typ {
	case typeRA:
		b = append(b, make([]byte, 8)...)
	case typeNS, typeNA, typeRedirect:
		b = append128(b, k, frame.NDPTarget)
	}
	if typ == typeRedirect { // the destination that is redirected
		b = append128(b, k, frame.IPv6Dst)
		b[24] &= 0x7f // no group
	}
	if typ == typeNA || typ == typeRedirect {
		option = 2
	}
	if mac := k.Uint(frame.NDPLinkMAC); mac != 0 {
		b = append48(append(b, option, 1), mac)
	}
	return b
}
