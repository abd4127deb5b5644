package frames

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/args"
)

// A link is what every builder's frame has: Ethernet header and payload.
type link struct {
	src, dst *frame.MAC // nil: the sender's own, the peer's
	vlan     *uint16
}

// serialize writes an Ethernet frame around layers, which begin behind its
// EtherType.
func (l link) serialize(s Sender, dst frame.MAC, typ layers.EthernetType, inner ...gopacket.SerializableLayer) ([]byte, error) {
	src := s.MAC
	if l.src != nil {
		src = *l.src
	}
	if l.dst != nil {
		dst = *l.dst
	}
	eth := &layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: typ}
	all := []gopacket.SerializableLayer{eth}
	if l.vlan != nil {
		eth.EthernetType = layers.EthernetTypeDot1Q
		all = append(all, &layers.Dot1Q{VLANIdentifier: *l.vlan, Type: typ})
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, append(all, inner...)...); err != nil {
		return nil, err
	}
	return slices.Clone(buf.Bytes()), nil
}

// A network is the IP layer of a builder's frame.
type network struct {
	link
	src, dst  netip.Addr // invalid: the sender's own, the peer's
	ttl, dscp uint8
	offset    uint16 // fragment offset in units of 8 bytes
	more      bool   // more fragments follow
	// version is 4 or 6 where the addresses leave it open.
	version int
}

// addresses fills in what the test left out, and settles the IP version.
func (n network) addresses(s Sender) (src, dst netip.Addr, err error) {
	src, dst = n.src, n.dst
	six := n.version == 6 || src.Is6() || dst.Is6()
	if !src.IsValid() {
		i := slices.IndexFunc(s.Addrs, func(a netip.Addr) bool { return a.Is6() == six })
		if i < 0 {
			return src, dst, fmt.Errorf("the sender has no address of the IP version of the frame: give src_ip")
		}
		src = s.Addrs[i]
	}
	if !dst.IsValid() {
		dst = peerIPv4
		if six {
			dst = peerIPv6
		}
	}
	if src.Is6() != dst.Is6() || n.version == 4 && src.Is6() || n.version == 6 && !src.Is6() {
		return src, dst, fmt.Errorf("src_ip %s and dst_ip %s are of the wrong IP version", src, dst)
	}
	return src, dst, nil
}

// checksummed is a transport header whose checksum covers the addresses.
type checksummed interface {
	SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
}

// serialize writes an IP packet around layers, protocol number proto.
func (n network) serialize(s Sender, proto layers.IPProtocol, inner ...gopacket.SerializableLayer) ([]byte, error) {
	src, dst, err := n.addresses(s)
	if err != nil {
		return nil, err
	}
	var ip interface {
		gopacket.SerializableLayer
		gopacket.NetworkLayer
	}
	var extra []gopacket.SerializableLayer
	typ := layers.EthernetTypeIPv4
	if src.Is4() {
		h := &layers.IPv4{Version: 4, IHL: 5, TOS: n.dscp << 2, TTL: n.ttl, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
			FragOffset: n.offset, Id: 1}
		if n.more {
			h.Flags = layers.IPv4MoreFragments
		}
		ip = h
	} else {
		typ = layers.EthernetTypeIPv6
		h := &layers.IPv6{Version: 6, TrafficClass: n.dscp << 2, HopLimit: n.ttl, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		if n.more || n.offset > 0 {
			h.NextHeader = layers.IPProtocolIPv6Fragment
			extra = append(extra, fragmentHeader(proto, n.offset, n.more))
		}
		ip = h
	}
	for _, l := range inner {
		if c, ok := l.(checksummed); ok {
			if err := c.SetNetworkLayerForChecksum(ip); err != nil {
				return nil, err
			}
		}
	}
	all := append([]gopacket.SerializableLayer{ip}, extra...)
	return n.link.serialize(s, macFor(dst), typ, append(all, inner...)...)
}

// fragmentHeader is the IPv6 extension header of RFC 8200, 4.5, which gopacket
// can read but not write.
func fragmentHeader(proto layers.IPProtocol, offset uint16, more bool) gopacket.Payload {
	field := offset << 3
	if more {
		field |= 1
	}
	return gopacket.Payload{byte(proto), 0, byte(field >> 8), byte(field), 0, 0, 0, 1}
}

// macFor is where an IP packet goes on the link: multicast to its group's
// address (RFC 1112, 6.4; RFC 2464, 7), all else to the peer.
func macFor(dst netip.Addr) frame.MAC {
	switch {
	case dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return broadcast
	case dst.Is4() && dst.IsMulticast():
		a := dst.As4()
		return frame.MAC{0x01, 0x00, 0x5e, a[1] & 0x7f, a[2], a[3]}
	case dst.IsMulticast():
		a := dst.As16()
		return frame.MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
	}
	return peerMAC
}

var broadcast = frame.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// linkOf reads the arguments that every builder has.
func linkOf(c *args.Call, src, dst string) link {
	var l link
	if m, ok := c.Vals[src].(frame.MAC); ok {
		l.src = &m
	}
	if m, ok := c.Vals[dst].(frame.MAC); ok {
		l.dst = &m
	}
	if v, ok := c.Vals["vlan"].(int64); ok {
		id := uint16(v)
		l.vlan = &id
	}
	return l
}

// networkOf reads the arguments of the builders over IP.
func networkOf(c *args.Call) network {
	return network{
		link: linkOf(c, "src_mac", "dst_mac"),
		src:  args.Get[netip.Addr](c, "src_ip"), dst: args.Get[netip.Addr](c, "dst_ip"),
		ttl:    uint8(args.Or(c, "ttl", args.Or(c, "hop_limit", int64(64)))),
		dscp:   uint8(args.Get[int64](c, "dscp")),
		offset: uint16(args.Get[int64](c, "fragment_offset") / 8),
		more:   args.Get[bool](c, "more_fragments"),
	}
}

// payload is the bytes behind the last header.
func payload(c *args.Call) gopacket.Payload { return gopacket.Payload(args.Get[[]byte](c, "payload")) }
