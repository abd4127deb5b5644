package witness

import (
	"encoding/binary"

	"sekimori/nicshadow/frame"
)

// Lengths of headers.
const (
	headerLen    = 14
	tagLen       = 4
	arpLen       = 28
	ip4Len       = 20
	ip6Len       = 40
	fragmentLen  = 8
	minFrame     = 60
	laterOffset  = 3 // of a later fragment, in units of 8 bytes: the least that passes
	moreFollow   = 1 << 13
	protoFragHdr = 44
)

// Build makes the frame whose fields are those of k, with checksums; nil where
// there is none, because the fields contradict each other. What the key does
// not say (payloads, identifiers) is zero.
func Build(k *frame.Key) []byte {
	b := ethernet(k)
	at := len(b)
	length := int(k.Uint(frame.Length))
	switch c := k.Class(); {
	case c == frame.ClassARP:
		b = append(b, arp(k)...)
		if len(b) < length && length <= minFrame+tagLen*int(k.Uint(frame.VLANTags)) {
			b = append(b, make([]byte, length-len(b))...)
		}
	case c == frame.ClassOther:
		b = append(b, make([]byte, max(0, length-at))...)
	case c.Has(frame.IPv4Src), c.Has(frame.IPv6Src):
		room := length - at
		packet := ip(k, 0)
		if packet == nil {
			return nil
		}
		if more := room - len(packet); more > 0 && length > minFrame {
			packet = ip(k, more)
		}
		b = append(b, packet...)
		// What Ethernet pads to, where the key says so.
		if len(b) < length && length <= minFrame {
			b = append(b, make([]byte, length-len(b))...)
		}
	default:
		return nil
	}
	if len(b) != length {
		k.Set(frame.Length, 0, uint64(len(b)))
	}
	return b
}

// ethernet is the header and its tags.
func ethernet(k *frame.Key) []byte {
	b := append48(nil, k.Uint(frame.EthDst))
	b = append48(b, k.Uint(frame.EthSrc))
	for i := range k.Uint(frame.VLANTags) {
		b = append(b, 0x81, 0x00)
		id := uint16(0)
		if i == 0 {
			id = uint16(k.Uint(frame.VLAN))
		}
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return binary.BigEndian.AppendUint16(b, uint16(k.Uint(frame.EtherType)))
}

func append48(b []byte, v uint64) []byte {
	return append(b, byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// arp is RFC 826 for Ethernet and IPv4.
func arp(k *frame.Key) []byte {
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, uint16(k.Uint(frame.ARPOp)))
	b = append48(b, k.Uint(frame.ARPSenderMAC))
	b = binary.BigEndian.AppendUint32(b, uint32(k.Uint(frame.ARPSenderIP)))
	b = append48(b, k.Uint(frame.ARPTargetMAC))
	return binary.BigEndian.AppendUint32(b, uint32(k.Uint(frame.ARPTargetIP)))
}

// ip is the packet of either version with extra bytes of payload.
func ip(k *frame.Key, extra int) []byte {
	fragmented := k.Uint(frame.IPFragment) != 0
	body := transport(k, extra)
	if body == nil {
		return nil
	}
	later := k.Class() == frame.ClassIPv4Fragment || k.Class() == frame.ClassIPv6Fragment
	if fragmented && !later { // the first of several is made of whole units
		if extra >= 8 {
			body = body[:len(body)&^7]
		}
		body = append(body, make([]byte, -len(body)&7)...)
	}
	var offset uint16
	if later { // the header is part of the 65535 bytes of the datagram
		offset, body = laterOffset, body[:min(len(body), 65535-ip4Len-8*laterOffset)]
	}
	if k.Class().Has(frame.IPv6Src) {
		return ipv6(k, body, fragmented, offset)
	}
	if fragmented && !later {
		offset = moreFollow
	}
	return ipv4(k, body, offset)
}

// ipv4 is RFC 791, 3.1.
func ipv4(k *frame.Key, body []byte, flags uint16) []byte {
	if len(body) > 65535-ip4Len {
		return nil
	}
	b := []byte{0x45, byte(k.Uint(frame.IPDSCP) << 2)}
	b = binary.BigEndian.AppendUint16(b, uint16(ip4Len+len(body)))
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, byte(k.Uint(frame.IPTTL)), byte(k.Uint(frame.IPProtocol)), 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(k.Uint(frame.IPv4Src)))
	b = binary.BigEndian.AppendUint32(b, uint32(k.Uint(frame.IPv4Dst)))
	binary.BigEndian.PutUint16(b[10:], checksum(0, b))
	return append(b, body...)
}

// ipv6 is RFC 8200, 3, with a Fragment header where the key says so.
func ipv6(k *frame.Key, body []byte, fragmented bool, offset uint16) []byte {
	proto := byte(k.Uint(frame.IPProtocol))
	if fragmented {
		field := offset << 3
		if offset == 0 {
			field = 1 // more follow
		}
		body = append([]byte{proto, 0, byte(field >> 8), byte(field), 0, 0, 0, 1}, body...)
		proto = protoFragHdr
	}
	if len(body) > 65535 {
		return nil
	}
	b := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(k.Uint(frame.IPDSCP))<<22)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, proto, byte(k.Uint(frame.IPTTL)))
	for _, f := range []frame.Field{frame.IPv6Src, frame.IPv6Dst} {
		b = append128(b, k, f)
	}
	return append(b, body...)
}

func append128(b []byte, k *frame.Key, f frame.Field) []byte {
	hi, lo := k.Wide(f)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, hi), lo)
}

// checksum is RFC 1071, begun with sum.
func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
