package e2e_test

import (
	"encoding/binary"
	"net/netip"
)

// A mac is a hardware address.
type mac = [6]byte

// A host is one station of the tests: its name, and the identity its NIC has.
type host struct {
	name   string
	mac    mac
	ip4    netip.Addr
	ip6    netip.Addr // unique local
	local6 netip.Addr // link-local, from mac (RFC 4291, appendix A)
}

func newHost(name string, last byte) host {
	m := mac{0x02, 0, 0x0a, 0x4d, 0, last}
	return host{
		name:   name,
		mac:    m,
		ip4:    netip.AddrFrom4([4]byte{10, 77, 0, last}),
		ip6:    netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x5e, 15: last}),
		local6: linkLocal(m),
	}
}

// linkLocal is fe80::/64 with the modified EUI-64 of m.
func linkLocal(m mac) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// The stations. Mallory attacks alice, mostly by claiming to be bob; nobody is
// not there.
var (
	alice   = newHost("alice", 2)
	bob     = newHost("bob", 3)
	mallory = newHost("mallory", 4)
	nobody  = newHost("nobody", 66)
)

var (
	broadcast = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allHosts4 = mac{0x01, 0, 0x5e, 0, 0, 1}
	allNodes6 = netip.MustParseAddr("ff02::1")
	zero4     = netip.IPv4Unspecified()
	zero6     = netip.IPv6Unspecified()
)

const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherIPv6 = 0x86dd
	tagQ      = 0x8100 // 802.1Q
	tagAD     = 0x88a8 // 802.1ad
	tagOld    = 0x9100 // before 802.1ad was agreed on
)

// be16 is v in network order.
func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// ether is an Ethernet frame, not padded.
func ether(dst, src mac, etherType uint16, payload []byte) []byte {
	return cat(dst[:], src[:], be16(etherType), payload)
}

// A tag is a VLAN tag: its TPID and TCI.
type tag struct{ tpid, tci uint16 }

// tagged puts tags between the addresses and the EtherType of frame, the
// first one outermost.
func tagged(frame []byte, tags ...tag) []byte {
	b := cat(frame[:12])
	for _, t := range tags {
		b = cat(b, be16(t.tpid), be16(t.tci))
	}
	return cat(b, frame[12:])
}

// snap wraps frame's payload in an 802.2 LLC header and a SNAP header with
// oui. The 802.3 length field is off by wrong.
func snap(frame []byte, oui [3]byte, wrong int) []byte {
	body := cat([]byte{0xaa, 0xaa, 0x03}, oui[:], frame[12:])
	return cat(frame[:12], be16(uint16(len(body)+wrong)), body)
}

// An arpBody is the ARP packet of RFC 826; zero htype to plen mean those of
// Ethernet and IPv4.
type arpBody struct {
	htype, ptype uint16
	hlen, plen   uint8
	op           uint16
	sha          mac
	spa          netip.Addr
	tha          mac
	tpa          netip.Addr
}

const (
	arpRequest = 1
	arpReply   = 2
)

func (a arpBody) bytes() []byte {
	if a.htype == 0 {
		a.htype = 1
	}
	if a.ptype == 0 {
		a.ptype = etherIPv4
	}
	if a.hlen == 0 {
		a.hlen = 6
	}
	if a.plen == 0 {
		a.plen = 4
	}
	return cat(be16(a.htype), be16(a.ptype), []byte{a.hlen, a.plen}, be16(a.op),
		a.sha[:], a.spa.AsSlice(), a.tha[:], a.tpa.AsSlice())
}

// arp is a frame from src to dst with an ARP body.
func arp(dst, src mac, a arpBody) []byte { return ether(dst, src, etherARP, a.bytes()) }

// A datagram is an IP packet in an Ethernet frame, of the version of src.
type datagram struct {
	dstMAC, srcMAC mac
	src, dst       netip.Addr
	protocol       uint8
	payload        []byte // checksums of the transport header included
	hops           uint8  // 64 if zero
	offset, more   uint16 // of an IPv4 fragment: offset in bytes, more = 1
}

func (d datagram) bytes() []byte {
	if d.hops == 0 {
		d.hops = 64
	}
	if d.src.Is6() {
		head := cat([]byte{0x60, 0, 0, 0}, be16(uint16(len(d.payload))), []byte{d.protocol, d.hops})
		return ether(d.dstMAC, d.srcMAC, etherIPv6, cat(head, d.src.AsSlice(), d.dst.AsSlice(), d.payload))
	}
	head := cat([]byte{0x45, 0}, be16(uint16(20+len(d.payload))), be16(0x5e4b), be16(d.more<<13|d.offset/8),
		[]byte{d.hops, d.protocol, 0, 0}, d.src.AsSlice(), d.dst.AsSlice())
	binary.BigEndian.PutUint16(head[10:], checksum(head))
	return ether(d.dstMAC, d.srcMAC, etherIPv4, cat(head, d.payload))
}

// udp is a UDP datagram from src to dst, its checksum filled in.
func udp(src, dst netip.AddrPort, data []byte) []byte {
	b := cat(be16(src.Port()), be16(dst.Port()), be16(uint16(8+len(data))), []byte{0, 0}, data)
	binary.BigEndian.PutUint16(b[6:], transportSum(src.Addr(), dst.Addr(), 17, b))
	return b
}

// icmp6 is an ICMPv6 message from src to dst, its checksum filled in.
func icmp6(src, dst netip.Addr, typ, code uint8, body []byte) []byte {
	b := cat([]byte{typ, code, 0, 0}, body)
	binary.BigEndian.PutUint16(b[2:], transportSum(src, dst, 58, b))
	return b
}

// transportSum is the checksum of b behind the pseudo header of src and dst
// (RFC 768, RFC 8200 section 8.1).
func transportSum(src, dst netip.Addr, protocol uint8, b []byte) uint16 {
	return checksum(cat(src.AsSlice(), dst.AsSlice(), []byte{0, protocol}, be16(uint16(len(b))), b))
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	if len(b)%2 == 1 {
		b = cat(b, []byte{0})
	}
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// solicitedNode is the multicast group where a's owner hears solicitations
// (RFC 4291, 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// groupMAC is the Ethernet group of an IPv6 multicast address (RFC 2464, 7).
func groupMAC(a netip.Addr) mac {
	b := a.As16()
	return mac{0x33, 0x33, b[12], b[13], b[14], b[15]}
}
