package frames

import (
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
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
	typ := uint8(args.Or(c, "type", int64(layers.ICMPv6TypeNeighborSolicitation)))
	return newFrame(c, func(s Sender) ([]byte, error) {
		n := n
		if router := typ == layers.ICMPv6TypeRouterAdvertisement || typ == layers.ICMPv6TypeRedirect; router && !n.src.IsValid() {
			n.src = linkLocal(s.MAC) // RFC 4861, 6.1.2 and 8.1
		}
		src, dst, err := n.addresses(s)
		if err != nil {
			return nil, err
		}
		target, own := dst, src
		if typ == layers.ICMPv6TypeNeighborAdvertisement {
			target = own
		}
		target = args.Or(c, "target_ip", target)
		if !target.Is6() {
			return nil, c.Errorf("target_ip", "", "target_ip: %s is not an IPv6 address", target)
		}
		if typ == layers.ICMPv6TypeNeighborSolicitation && !c.Has("dst_ip") {
			n.dst = solicited(target)
		}
		mac := args.Or(c, "link_mac", s.MAC)
		return n.serialize(s, layers.IPProtocolICMPv6,
			&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, uint8(0))}, ndpBody(typ, target, dst, mac))
	})
}

// linkLocal is the address that a card gives itself (RFC 4291, appendix A).
func linkLocal(m frame.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// solicited is the solicited-node multicast address (RFC 4291, 2.7.1).
func solicited(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 0x02, 10: 0, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// ndpBody is the message behind type, code and checksum.
func ndpBody(typ uint8, target, dst netip.Addr, mac frame.MAC) gopacket.SerializableLayer {
	addr := target.AsSlice()
	source := layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: mac[:]}}
	owner := layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: mac[:]}}
	switch typ {
	case layers.ICMPv6TypeRouterSolicitation:
		return &layers.ICMPv6RouterSolicitation{Options: source}
	case layers.ICMPv6TypeRouterAdvertisement:
		return &layers.ICMPv6RouterAdvertisement{HopLimit: 64, RouterLifetime: 1800, Options: source}
	case layers.ICMPv6TypeNeighborAdvertisement:
		return &layers.ICMPv6NeighborAdvertisement{Flags: 0x20, TargetAddress: addr, Options: owner}
	case layers.ICMPv6TypeRedirect:
		return &layers.ICMPv6Redirect{TargetAddress: addr, DestinationAddress: dst.AsSlice(), Options: owner}
	}
	return &layers.ICMPv6NeighborSolicitation{TargetAddress: addr, Options: source}
}
