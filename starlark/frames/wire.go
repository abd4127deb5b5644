package frames

import (
	"encoding/binary"
	"net/netip"

	"sekimori/nicshadow/frame"
)

// The serializers. gopacket has them all, but linking gopacket/layers costs
// 3.5 ms of package initialization at each start of seki, a quarter of what
// crun takes for a whole container (GODEBUG=inittrace=1 seki version). So it
// is the tests that hold these to gopacket, byte for byte.

// Numbers on the wire.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeTag  = 0x8100
	typeIPv6 = 0x86dd

	protoICMP       = 1
	protoTCP        = 6
	protoUDP        = 17
	protoFragment   = 44 // IPv6 extension header
	protoICMPv6     = 58
	minFrame        = 60 // IEEE 802.3, 4A.4.2: least length, without FCS
	moreFragments   = 1 << 13
	defaultSrcPort  = 40000
	defaultDstPort  = 80
	defaultHopLimit = 64
)

// ethernetFrame is header, optional 802.1Q tag and payload, padded with zeros
// to the least length of Ethernet.
//
//	6 bytes: destination MAC
//	6 bytes: source MAC
//	2 bytes: EtherType, behind 0x8100 and 2 bytes of tag if there is one
func ethernetFrame(dst, src frame.MAC, vlan *uint16, typ uint16, payload []byte) []byte {
	b := append(append(make([]byte, 0, minFrame), dst[:]...), src[:]...)
	if vlan != nil {
		b = binary.BigEndian.AppendUint16(b, typeTag)
		b = binary.BigEndian.AppendUint16(b, *vlan)
	}
	b = binary.BigEndian.AppendUint16(b, typ)
	b = append(b, payload...)
	if short := minFrame - len(b); short > 0 {
		b = append(b, make([]byte, short)...)
	}
	return b
}

// arpPacket is RFC 826 for Ethernet and IPv4.
//
//	2 bytes: hardware type 1
//	2 bytes: protocol type 0x0800
//	1 byte:  hardware address length 6
//	1 byte:  protocol address length 4
//	2 bytes: operation
//	6, 4, 6, 4 bytes: sender MAC and IP, target MAC and IP
func arpPacket(op uint16, sha frame.MAC, spa netip.Addr, tha frame.MAC, tpa netip.Addr) []byte {
	b := []byte{0, 1, typeIPv4 >> 8, typeIPv4 & 0xff, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, sha[:]...), spa.AsSlice()...)
	return append(append(b, tha[:]...), tpa.AsSlice()...)
}

// ipPacket is an IP header before payload, with a fragment header between them
// in IPv6 where the packet is a fragment.
func (n network) ipPacket(src, dst netip.Addr, proto uint8, payload []byte) (typ uint16, packet []byte) {
	if src.Is4() {
		return typeIPv4, n.ipv4Packet(src, dst, proto, payload)
	}
	if n.more || n.offset > 0 {
		// RFC 8200, 4.5: next header, reserved, offset and flag, identification.
		field := n.offset << 3
		if n.more {
			field |= 1
		}
		payload = append([]byte{proto, 0, byte(field >> 8), byte(field), 0, 0, 0, 1}, payload...)
		proto = protoFragment
	}
	// RFC 8200, 3: version, traffic class, flow label; payload length; next
	// header; hop limit; source; destination.
	b := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(n.dscp)<<22)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, proto, n.ttl)
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	return typeIPv6, append(b, payload...)
}

// ipv4Packet is RFC 791, 3.1, without options.
func (n network) ipv4Packet(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	flags := n.offset
	if n.more {
		flags |= moreFragments
	}
	b := []byte{0x45, n.dscp << 2}
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(payload)))
	b = append(b, 0, 1) // identification
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, n.ttl, proto, 0, 0)
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

// checksum is RFC 1071 over the concatenation of parts, each but the last of
// even length.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// seal puts the checksum of a segment at offset, over the pseudo header of RFC
// 9293, 3.1 or RFC 8200, 8.1.
func seal(segment []byte, offset int, src, dst netip.Addr, proto uint8) []byte {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(segment)))
	pseudo = append(pseudo, 0, 0, 0, proto)
	binary.BigEndian.PutUint16(segment[offset:], checksum(pseudo, segment))
	return segment
}

// A tcpHeader is what tests vary of a TCP header.
type tcpHeader struct {
	src, dst           uint16
	syn, ack, fin, rst bool
}

// segment is RFC 9293, 3.1: ports, sequence and acknowledgment number, data
// offset and flags, window, checksum, urgent pointer.
func (h tcpHeader) segment(src, dst netip.Addr, payload []byte) []byte {
	var flags byte
	for i, on := range []bool{h.fin, h.syn, h.rst, false, h.ack} {
		if on {
			flags |= 1 << i
		}
	}
	b := binary.BigEndian.AppendUint16(nil, h.src)
	b = binary.BigEndian.AppendUint16(b, h.dst)
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, flags, 0xfa, 0xf0, 0, 0, 0, 0)
	return seal(append(b, payload...), 16, src, dst, protoTCP)
}

// udpDatagram is RFC 768: ports, length, checksum.
func udpDatagram(srcPort, dstPort uint16, src, dst netip.Addr, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, srcPort)
	b = binary.BigEndian.AppendUint16(b, dstPort)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = seal(append(append(b, 0, 0), payload...), 6, src, dst, protoUDP)
	if b[6] == 0 && b[7] == 0 {
		b[6], b[7] = 0xff, 0xff // zero would say that there is none
	}
	return b
}

// icmpMessage is RFC 792 or RFC 4443: type, code, checksum, body.
func icmpMessage(typ, code uint8, src, dst netip.Addr, body []byte) []byte {
	b := append([]byte{typ, code, 0, 0}, body...)
	if src.Is6() {
		return seal(b, 2, src, dst, protoICMPv6)
	}
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// isICMPError reports whether messages of type typ quote the packet they are
// about (RFC 792; RFC 4443, 2.1).
func isICMPError(typ uint8, src netip.Addr) bool {
	if src.Is6() {
		return typ < 128
	}
	return typ == 3 || typ == 4 || typ == 5 || typ == 11 || typ == 12
}

// quote is the packet that an ICMP error message is about: a datagram that its
// receiver sent.
func quote(src, dst netip.Addr) []byte {
	n := network{ttl: defaultHopLimit}
	_, p := n.ipPacket(src, dst, protoUDP, udpDatagram(defaultSrcPort, defaultDstPort, src, dst, nil))
	return p
}
