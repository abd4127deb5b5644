package frames

import (
	"net/netip"
	"slices"

	"go.starlark.net/starlark"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/args"
)

// newNDP is a neighbour discovery message as RFC 4861 has hosts send it.
func newNDP(c *args.Call) (starlark.Value, error) {
	n := networkOf(c)
	n.version = 6
	if !c.Has("ttl") {
		n.ttl = 255 // RFC 4861, 7.1: anything less came through a router
	}
	typ := uint8(args.Or(c, "type", int64(neighborSolicitation)))
	return newFrame(c, func(s Sender) ([]byte, error) {
		n := n
		if router := typ == routerAdvertisement || typ == redirect; router && !n.src.IsValid() {
			n.src = linkLocal(s.MAC) // RFC 4861, 6.1.2 and 8.1
		}
		src, dst, err := n.addresses(s)
		if err != nil {
			return nil, err
		}
		target, own := dst, src
		if typ == neighborAdvertisement {
			target = own
		}
		target = args.Or(c, "target_ip", target)
		if !target.Is6() {
			return nil, c.Errorf("target_ip", "", "target_ip: %s is not an IPv6 address", target)
		}
		if typ == neighborSolicitation && !c.Has("dst_ip") {
			n.dst = solicited(target)
		}
		mac := args.Or(c, "link_mac", s.MAC)
		return n.around(s, protoICMPv6, func(src, to netip.Addr) []byte {
			return icmpMessage(typ, 0, src, to, ndpBody(typ, target, dst, mac))
		})
	})
}

// ICMPv6 types of neighbour discovery.
const (
	routerSolicitation    = 133
	routerAdvertisement   = 134
	neighborSolicitation  = 135
	neighborAdvertisement = 136
	redirect              = 137
)

// linkLocal is the address that a card gives itself (RFC 4291, appendix A).
func linkLocal(m frame.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// solicited is the solicited-node multicast address (RFC 4291, 2.7.1).
func solicited(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 0x02, 10: 0, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// ndpBody is a message of RFC 4861, 4 behind type, code and checksum, with one
// link-layer address option: type, length in units of 8 bytes, MAC.
func ndpBody(typ uint8, target, dst netip.Addr, mac frame.MAC) []byte {
	source := append([]byte{1, 1}, mac[:]...)
	owner := append([]byte{2, 1}, mac[:]...)
	reserved := make([]byte, 4)
	switch typ {
	case routerSolicitation:
		return slices.Concat(reserved, source)
	case routerAdvertisement:
		// Hop limit, flags, router lifetime in seconds; reachable and
		// retransmission time left to the host.
		return slices.Concat([]byte{64, 0, 0x07, 0x08}, make([]byte, 8), source)
	case neighborAdvertisement:
		return slices.Concat([]byte{0x20, 0, 0, 0}, target.AsSlice(), owner) // override
	case redirect:
		return slices.Concat(reserved, target.AsSlice(), dst.AsSlice(), owner)
	}
	return slices.Concat(reserved, target.AsSlice(), source)
}
