package nicshadow

import (
	"encoding/binary"
	"net/netip"

	"sekimori/nicshadow/frame"
)

// An addrSet is the addresses of one card. There are few: looking through
// them beats hashing.
type addrSet struct {
	mac uint64
	v4  []uint64
	v6  [][2]uint64
}

// newAddrSet returns the addresses that a kernel gives a card of that MAC. With
// any IPv6 address comes the link-local one (RFC 4291, appendix A).
func newAddrSet(mac frame.MAC, addrs []netip.Addr) addrSet {
	s := addrSet{mac: mac.Uint64()}
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			b := a.As4()
			s.v4 = append(s.v4, uint64(binary.BigEndian.Uint32(b[:])))
		} else if a.Is6() {
			b := a.As16()
			s.v6 = append(s.v6, [2]uint64{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])})
		}
	}
	if len(s.v6) > 0 {
		low := uint64(mac[0]^2)<<56 | uint64(mac[1])<<48 | uint64(mac[2])<<40 | 0xff_fe<<24 |
			uint64(mac[3])<<16 | uint64(mac[4])<<8 | uint64(mac[5])
		s.v6 = append(s.v6, [2]uint64{0xfe80 << 48, low})
	}
	return s
}

// Types of neighbour discovery (RFC 4861, 4).
const (
	typeNS = 135
	typeNA = 136
)

// no allocation, no lock, no log below this line

func (s *addrSet) has4(a uint64) bool {
	for _, v := range s.v4 {
		if v == a {
			return true
		}
	}
	return false
}

func (s *addrSet) has6(hi, lo uint64) bool {
	for _, v := range s.v6 {
		if v[0] == hi && v[1] == lo {
			return true
		}
	}
	return false
}

// speaks reports whether a frame that the guest's kernel sends of its own
// accord says nothing but what this card may: its MAC and its addresses,
// wherever a frame names its sender. It uses k.
func (st *station) speaks(b []byte, k *frame.Key) bool {
	if frame.Parse(b, k) != frame.OK || k.Uint(frame.EthSrc) != st.mac || k.Uint(frame.VLANTags) != 0 {
		return false
	}
	s := &st.addrs
	switch c := k.Class(); {
	case c == frame.ClassARP:
		return k.Uint(frame.ARPSenderMAC) == s.mac && s.has4(k.Uint(frame.ARPSenderIP))
	case c.Has(frame.IPv4Src):
		return s.has4(k.Uint(frame.IPv4Src))
	case c == frame.ClassIPv6NDP:
		return s.solicits(k)
	case c.Has(frame.IPv6Src):
		return s.has6(k.Wide(frame.IPv6Src))
	}
	return false
}

// solicits is speaks for neighbour discovery.
func (s *addrSet) solicits(k *frame.Key) bool {
	if m := k.Uint(frame.NDPLinkMAC); m != 0 && m != s.mac {
		return false
	}
	typ, target := k.Uint(frame.ICMPType), s.has6(k.Wide(frame.NDPTarget))
	if hi, lo := k.Wide(frame.IPv6Src); hi|lo == 0 {
		return typ == typeNS && target // is the own address free? (RFC 4862, 5.4.2)
	} else if !s.has6(hi, lo) {
		return false
	}
	return typ != typeNA || target
}
