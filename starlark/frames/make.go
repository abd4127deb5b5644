package frames

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/args"
)

// newFrame is a recipe, tried out at once so that its errors come up where it
// is written. A sender without the address it needs is found when it is judged.
func newFrame(c *args.Call, build func(Sender) ([]byte, error)) (starlark.Value, error) {
	if args.Get[int64](c, "fragment_offset")%8 != 0 {
		return nil, c.Errorf("fragment_offset", "", "fragment_offset: %d is no multiple of 8", args.Get[int64](c, "fragment_offset"))
	}
	if _, err := build(DefaultSender()); err != nil {
		return nil, c.Errorf("", "", "%v", err)
	}
	return &Frame{text: callText(c), build: build}, nil
}

// callText is the call as one could have written it, arguments sorted.
func callText(c *args.Call) string {
	var parts []string
	for _, p := range c.Builtin.Params {
		v, ok := c.Vals[p.Name]
		if !ok {
			continue
		}
		text := fmt.Sprint(v)
		switch v := v.(type) {
		case bool:
			text = starlark.Bool(v).String()
		case []byte:
			text = fmt.Sprintf("%d bytes", len(v))
		}
		parts = append(parts, p.Name+" = "+text)
	}
	return c.Builtin.Name + "(" + strings.Join(parts, ", ") + ")"
}

func arpParams() []args.Param {
	return []args.Param{
		{Name: "op", Type: args.Int(0, 65535), Default: "ARP.REQUEST", Doc: "ARP.REQUEST or ARP.REPLY"},
		{Name: "src_mac", Type: args.MAC, Default: "the sender's own", Doc: "sender hardware address of the ARP body"},
		{Name: "src_ip", Type: args.IP, Default: "the sender's own", Doc: "sender protocol address"},
		{Name: "dst_mac", Type: args.MAC, Default: "zero in a request, else the peer's", Doc: "target hardware address of the ARP body"},
		{Name: "dst_ip", Type: args.IP, Default: `"10.0.0.1"`, Doc: "target protocol address"},
		{Name: "eth_src", Type: args.MAC, Default: "the sender's own", Doc: "source of the Ethernet header"},
		{Name: "eth_dst", Type: args.MAC, Default: "broadcast for a request, else dst_mac", Doc: "destination of the Ethernet header"},
		{Name: "vlan", Type: args.Int(0, 4095), Default: "None", Doc: "VLAN identifier of an 802.1Q tag"},
	}
}

func newARP(c *args.Call) (starlark.Value, error) {
	op := args.Or(c, "op", int64(1))
	n := network{src: args.Get[netip.Addr](c, "src_ip"), dst: args.Get[netip.Addr](c, "dst_ip"), version: 4}
	target, to := frame.MAC{}, broadcast
	if op != 1 {
		target = args.Or(c, "dst_mac", peerMAC)
		to = target
	}
	target = args.Or(c, "dst_mac", target)
	l := linkOf(c, "eth_src", "eth_dst")
	return newFrame(c, func(s Sender) ([]byte, error) {
		src, dst, err := n.addresses(s)
		if err != nil {
			return nil, err
		}
		sha := args.Or(c, "src_mac", s.MAC)
		return l.around(s, to, typeARP, arpPacket(uint16(op), sha, src, target, dst)), nil
	})
}

func newEthernet(c *args.Call) (starlark.Value, error) {
	l, typ, body := linkOf(c, "src_mac", "dst_mac"), args.Get[int64](c, "ethertype"), payload(c)
	return newFrame(c, func(s Sender) ([]byte, error) {
		return l.around(s, peerMAC, uint16(typ), body), nil
	})
}

func newIP(version int) func(*args.Call) (starlark.Value, error) {
	return func(c *args.Call) (starlark.Value, error) {
		n, body := networkOf(c), payload(c)
		n.version = version
		proto := uint8(args.Or(c, "protocol", int64(protoUDP)))
		return newFrame(c, func(s Sender) ([]byte, error) {
			return n.around(s, proto, func(src, dst netip.Addr) []byte {
				if len(body) == 0 && proto == protoUDP && n.offset == 0 {
					return udpDatagram(defaultSrcPort, defaultDstPort, src, dst, nil)
				}
				return body
			})
		})
	}
}

func newTCP(c *args.Call) (starlark.Value, error) {
	n, body := networkOf(c), payload(c)
	h := tcpHeader{
		src: uint16(args.Or(c, "src_port", int64(defaultSrcPort))), dst: uint16(args.Or(c, "dst_port", int64(defaultDstPort))),
		ack: args.Get[bool](c, "ack"), fin: args.Get[bool](c, "fin"), rst: args.Get[bool](c, "rst"),
	}
	h.syn = args.Or(c, "syn", !h.ack && !h.fin && !h.rst)
	return newFrame(c, func(s Sender) ([]byte, error) {
		return n.around(s, protoTCP, func(src, dst netip.Addr) []byte { return h.segment(src, dst, body) })
	})
}

func newUDP(c *args.Call) (starlark.Value, error) {
	n, body := networkOf(c), payload(c)
	from, to := uint16(args.Or(c, "src_port", int64(defaultSrcPort))), uint16(args.Or(c, "dst_port", int64(defaultDstPort)))
	return newFrame(c, func(s Sender) ([]byte, error) {
		return n.around(s, protoUDP, func(src, dst netip.Addr) []byte { return udpDatagram(from, to, src, dst, body) })
	})
}

// Echo requests, RFC 792 and RFC 4443.
const (
	echoRequest   = 8
	echoRequestV6 = 128
)

func newICMP(c *args.Call) (starlark.Value, error) {
	n, data := networkOf(c), payload(c)
	return newFrame(c, func(s Sender) ([]byte, error) {
		src, _, err := n.addresses(s)
		if err != nil {
			return nil, err
		}
		proto, typ := uint8(protoICMP), int64(echoRequest)
		if src.Is6() {
			proto, typ = protoICMPv6, echoRequestV6
		}
		typ = args.Or(c, "type", typ)
		return n.around(s, proto, func(src, dst netip.Addr) []byte {
			body := append([]byte{0, 1, 0, 1}, data...) // identifier, sequence number
			if isICMPError(uint8(typ), src) && len(data) == 0 {
				body = append(make([]byte, 4), quote(dst, args.Or(c, "about_ip", src))...)
			}
			return icmpMessage(uint8(typ), uint8(args.Get[int64](c, "code")), src, dst, body)
		})
	})
}

// newVLAN pushes a tag between the addresses and the EtherType.
func newVLAN(c *args.Call) (starlark.Value, error) {
	inner := args.Get[*Frame](c, "frame")
	tag := make([]byte, 4)
	binary.BigEndian.PutUint16(tag, uint16(args.Or(c, "tpid", int64(0x8100))))
	binary.BigEndian.PutUint16(tag[2:], uint16(args.Get[int64](c, "priority"))<<13|uint16(args.Get[int64](c, "id")))
	f, err := newFrame(c, func(s Sender) ([]byte, error) {
		data, err := inner.Bytes(s)
		if err != nil {
			return nil, err
		}
		if len(data) < 12 {
			return nil, fmt.Errorf("a frame of %d bytes has no place for a tag", len(data))
		}
		return slices.Concat(data[:12], tag, data[12:]), nil
	})
	return f, err
}
