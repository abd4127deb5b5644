package main

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// A sample is a frame and what the policy says of it.
type sample struct {
	name    string
	frame   []byte
	forward bool
}

var (
	ownMAC    = [6]byte{0x02, 0, 0, 0, 0, 0x05}
	peerMAC   = [6]byte{0x02, 0, 0, 0, 0, 0x08}
	broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	own       = netip.MustParseAddr("10.0.0.5")
	peer      = netip.MustParseAddr("10.0.0.8")
	gateway   = netip.MustParseAddr("10.0.0.1")
	outside   = netip.MustParseAddr("93.184.216.34")
	zero      = netip.IPv4Unspecified()
)

// samples are the five frames of the measurement: every branch of the policy
// that real traffic takes. The third takes the longest path.
func samples() []sample {
	return []sample{
		{"arp-reply-60", arp(peerMAC, 2, own, peer), true},
		{"arp-req-60", arp(broadcast, 1, own, gateway), false},
		{"tcp-1514", ipv4(6, own, outside, tcp(40000, 443, 1460)), true},
		{"udp-60", ipv4(17, own, peer, udp(5000, 6000, 18)), true},
		{"dhcp-342", ipv4(17, zero, netip.MustParseAddr("255.255.255.255"), udp(68, 67, 300)), false},
	}
}

// strangers are frames that the five do not show, to hold the engines equal.
func strangers() []sample {
	stolen := arp(peerMAC, 2, own, peer)
	copy(stolen[22:], peerMAC[:])
	with := func(frame []byte, at int, v byte) []byte {
		frame[at] = v
		return frame
	}
	return []sample{
		{"arp with hardware type 6", with(arp(peerMAC, 2, own, peer), 15, 6), false},
		{"arp with long addresses", with(arp(peerMAC, 2, own, peer), 18, 8), false},
		{"inverse arp", with(arp(peerMAC, 2, own, peer), 21, 9), false},
		{"ipv4 that says it is version 6", with(ipv4(6, own, peer, tcp(1, 2, 0)), 14, 0x65), false},
		{"ipv4 with a header of 16 bytes", with(ipv4(6, own, peer, tcp(1, 2, 0)), 14, 0x44), false},
		{"a fragment in the middle of the tcp port", with(ipv4(6, own, outside, tcp(443, 443, 0)), 21, 100), false},
		{"arp for a peer's address", arp(peerMAC, 2, peer, own), false},
		{"arp with a peer's card", stolen, false},
		{"arp beyond the subnet", arp(broadcast, 1, own, netip.MustParseAddr("10.0.1.8")), false},
		{"tcp 80 outside", ipv4(6, own, outside, tcp(40000, 80, 0)), true},
		{"tcp 22 outside", ipv4(6, own, outside, tcp(40000, 22, 0)), false},
		{"tcp 22 inside", ipv4(6, own, netip.MustParseAddr("10.200.0.1"), tcp(40000, 22, 0)), true},
		{"udp 53 outside", ipv4(17, own, outside, udp(5000, 53, 30)), true},
		{"udp 443 outside", ipv4(17, own, outside, udp(5000, 443, 30)), false},
		{"udp 53 from a peer's address", ipv4(17, peer, outside, udp(5000, 53, 30)), false},
		{"icmp inside", ipv4(1, own, peer, make([]byte, 64)), true},
		{"icmp outside", ipv4(1, own, outside, make([]byte, 64)), false},
		{"another ethertype", ether(peerMAC, 0x88b5, make([]byte, 46)), false},
		{"ipv6", ether(peerMAC, 0x86dd, make([]byte, 60)), false},
	}
}

// mix is a fixed pseudo-random order of the samples, which no branch
// predictor learns.
func mix(frames [][]byte) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	order := make([][]byte, 4096)
	for i := range order {
		order[i] = frames[r.IntN(len(frames))]
	}
	return order
}

// ether is a frame from our own card, padded to 60 bytes.
func ether(dst [6]byte, typ uint16, payload []byte) []byte {
	b := append(append(append([]byte{}, dst[:]...), ownMAC[:]...), byte(typ>>8), byte(typ))
	b = append(b, payload...)
	for len(b) < 60 {
		b = append(b, 0)
	}
	return b
}

func arp(dst [6]byte, op byte, spa, tpa netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, op}
	b = append(append(b, ownMAC[:]...), spa.AsSlice()...)
	b = append(append(b, dst[:]...), tpa.AsSlice()...)
	return ether(dst, 0x0806, b)
}

func ipv4(protocol byte, src, dst netip.Addr, payload []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	return ether(peerMAC, 0x0800, append(b, payload...))
}

// tcp is a segment with n bytes of data. Nobody here looks at checksums of
// transport headers.
func tcp(src, dst uint16, n int) []byte {
	b := make([]byte, 20+n)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	b[12], b[13] = 5<<4, 0x10
	return b
}

func udp(src, dst uint16, n int) []byte {
	b := make([]byte, 8+n)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}
