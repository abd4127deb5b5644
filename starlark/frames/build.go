package frames

import (
	"fmt"
	"net/netip"
	"slices"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/args"
)

// A link is what every builder's frame has: Ethernet header and payload.
type link struct {
	src, dst *frame.MAC // nil: the sender's own, the peer's
	vlan     *uint16
}

// around is the Ethernet frame around a packet; dst is where it goes unless the
// test says otherwise.
func (l link) around(s Sender, dst frame.MAC, typ uint16, packet []byte) []byte {
	src := s.MAC
	if l.src != nil {
		src = *l.src
	}
	if l.dst != nil {
		dst = *l.dst
	}
	return ethernetFrame(dst, src, l.vlan, typ, packet)
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

// around is the frame around a transport segment, which may depend on the
// addresses it is sent between.
func (n network) around(s Sender, proto uint8, segment func(src, dst netip.Addr) []byte) ([]byte, error) {
	src, dst, err := n.addresses(s)
	if err != nil {
		return nil, err
	}
	body := segment(src, dst)
	if len(body) > maxPayload {
		return nil, fmt.Errorf("payload of %d bytes is longer than an IP packet", len(body))
	}
	typ, packet := n.ipPacket(src, dst, proto, body)
	return n.link.around(s, macFor(dst), typ, packet), nil
}

// maxPayload leaves room for the headers in the length fields of IP.
const maxPayload = 65000

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
		ttl:    uint8(args.Or(c, "ttl", args.Or(c, "hop_limit", int64(defaultHopLimit)))),
		dscp:   uint8(args.Get[int64](c, "dscp")),
		offset: uint16(args.Get[int64](c, "fragment_offset") / 8),
		more:   args.Get[bool](c, "more_fragments"),
	}
}

// payload is the bytes behind the last header.
func payload(c *args.Call) []byte { return args.Get[[]byte](c, "payload") }
