package frames

import (
	"encoding/hex"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"sekimori/starlark/args"
)

// typeBytes is a bytes literal or a string.
var typeBytes = args.Type{Name: "bytes such as b\"...\"", Convert: func(v starlark.Value) (any, error) {
	switch v := v.(type) {
	case starlark.Bytes:
		return []byte(v), nil
	case starlark.String:
		return []byte(v), nil
	}
	return nil, args.Want("bytes such as b\"...\"", v)
}}

// linkParams are the arguments of every builder but arp() and raw().
func linkParams() []args.Param {
	return []args.Param{
		{Name: "src_mac", Type: args.MAC, Default: "the sender's own", Doc: "source of the Ethernet header"},
		{Name: "dst_mac", Type: args.MAC, Default: `that of the destination's group, else "02:00:00:00:00:01"`, Doc: "destination of the Ethernet header"},
		{Name: "vlan", Type: args.Int(0, 4095), Default: "None", Doc: "VLAN identifier of an 802.1Q tag; 0 is a tag too"},
	}
}

// ipParams are the arguments of every builder over IP.
func ipParams() []args.Param {
	return append([]args.Param{
		{Name: "src_ip", Type: args.IP, Default: "the sender's own", Doc: "source address; its version is the frame's"},
		{Name: "dst_ip", Type: args.IP, Default: `"10.0.0.1" or "fd00::1"`, Doc: "destination address"},
		{Name: "ttl", Type: args.Int(0, 255), Default: "64", Doc: "time to live, hop limit"},
		{Name: "dscp", Type: args.Int(0, 63), Default: "0", Doc: "differentiated services code point"},
		{Name: "fragment_offset", Type: args.Int(0, 65528), Default: "0", Doc: "offset of a fragment in bytes, a multiple of 8"},
		{Name: "more_fragments", Type: args.Bool, Default: "False", Doc: "more fragments follow"},
		{Name: "payload", Type: typeBytes, Default: `b""`, Doc: "bytes behind the last header"},
	}, linkParams()...)
}

func builder(name, doc string, params []args.Param, call func(*args.Call) (starlark.Value, error)) *args.Builtin {
	return &args.Builtin{Name: name, Doc: doc, Params: params, Result: "frame", Call: call}
}

// Builtins is the table of the builders.
func Builtins() []*args.Builtin {
	ports := []args.Param{
		{Name: "src_port", Type: args.Int(0, 65535), Default: "40000", Doc: "source port"},
		{Name: "dst_port", Type: args.Int(0, 65535), Default: "80", Doc: "destination port"},
	}
	flags := []args.Param{
		{Name: "syn", Type: args.Bool, Default: "True unless another flag is given", Doc: "SYN"},
		{Name: "ack", Type: args.Bool, Default: "False", Doc: "ACK"},
		{Name: "fin", Type: args.Bool, Default: "False", Doc: "FIN"},
		{Name: "rst", Type: args.Bool, Default: "False", Doc: "RST"},
	}
	proto := []args.Param{{Name: "protocol", Type: args.Int(0, 255), Default: "UDP", Doc: "protocol number: TCP, UDP, ICMP, ..."}}
	proto6 := []args.Param{{Name: "protocol", Type: args.Int(0, 255), Default: "UDP", Doc: "next header: TCP, UDP, ICMPV6, ..."}, {Name: "hop_limit", Type: args.Int(0, 255), Default: "64", Doc: "hop limit"}}
	icmp := []args.Param{
		{Name: "type", Type: args.Int(0, 255), Default: "echo request", Doc: "ICMP type"},
		{Name: "code", Type: args.Int(0, 255), Default: "0", Doc: "ICMP code"},
		{Name: "about_ip", Type: args.IP, Default: "src_ip", Doc: "where the packet was going that an error message without a payload quotes"},
	}
	ndp := []args.Param{
		{Name: "type", Type: args.Int(133, 137), Default: "135", Doc: "133 RS, 134 RA, 135 NS, 136 NA, 137 redirect"},
		{Name: "target_ip", Type: args.IP, Default: `"fd00::1" in a solicitation, else the sender's own`, Doc: "target address"},
		{Name: "link_mac", Type: args.MAC, Default: "the sender's own", Doc: "link-layer address option"},
	}
	return []*args.Builtin{
		builder("arp", "An ARP request or reply.", arpParams(), newARP),
		builder("ethernet", "Any Ethernet frame.", append([]args.Param{
			{Name: "ethertype", Type: args.Int(0x600, 0xffff), Required: true, Doc: "what the payload is: ETHERTYPE.LLDP, 0x1234, ..."},
			{Name: "payload", Type: typeBytes, Default: `b""`, Doc: "bytes behind the header"},
		}, linkParams()...), newEthernet),
		builder("ipv4", "An IPv4 packet with a payload that is not looked into. With protocol TCP, UDP or ICMP the payload must begin with such a header.", append(proto, ipParams()...), newIP(4)),
		builder("ipv6", "An IPv6 packet with a payload that is not looked into.", append(proto6, ipParams()...), newIP(6)),
		builder("tcp", "A TCP segment, over IPv4 unless an address says IPv6.", slices.Concat(ports, flags, ipParams()), newTCP),
		builder("udp", "A UDP datagram, over IPv4 unless an address says IPv6.", slices.Concat(ports, ipParams()), newUDP),
		builder("icmp", "An ICMP message, or ICMPv6 where an address says IPv6; by default an echo request.", append(icmp, ipParams()...), newICMP),
		builder("ndp", "A neighbour discovery message (RFC 4861).", append(ndp, ipParams()...), newNDP),
		builder("dhcp", "A DHCP message: of a client that looks for an address, unless message_type says otherwise.", slices.DeleteFunc(append(dhcpParams(), ipParams()...), func(p args.Param) bool { return p.Name == "payload" }), newDHCP),
		{Name: "vlan", Doc: "A frame inside a VLAN tag. Tags nest: vlan(vlan(arp(), 100), 0).", Params: []args.Param{
			{Name: "frame", Type: args.Of[*Frame]("a frame"), Required: true, Doc: "the frame"},
			{Name: "id", Type: args.Int(0, 4095), Default: "0", Doc: "VLAN identifier; 0 is a priority tag"},
			{Name: "priority", Type: args.Int(0, 7), Default: "0", Doc: "priority code point"},
			{Name: "tpid", Type: args.Int(0x600, 0xffff), Default: "0x8100", Doc: "EtherType of the tag: 0x8100, 0x88a8, ..."},
		}, Positional: 2, Result: "frame", Call: newVLAN},
		{Name: "raw", Doc: "A frame of exactly these bytes.", Params: []args.Param{
			{Name: "data", Type: typeRaw, Required: true, Doc: `bytes (b"\xff..."), or a string of hex digits with any spaces and colons`},
		}, Positional: 1, Result: "frame", Call: func(c *args.Call) (starlark.Value, error) {
			data := args.Get[[]byte](c, "data")
			return Raw(data, "raw("+Dump(data, 32)+")"), nil
		}},
	}
}

// Predeclared are the builders as names of a file.
func Predeclared() starlark.StringDict {
	names := starlark.StringDict{}
	for _, b := range Builtins() {
		names[b.Name] = b.Value()
	}
	return names
}

// typeRaw is bytes, or hex digits.
var typeRaw = args.Type{Name: "bytes or hex digits", Convert: func(v starlark.Value) (any, error) {
	if b, ok := v.(starlark.Bytes); ok {
		return []byte(b), nil
	}
	s, ok := starlark.AsString(v)
	if !ok {
		return nil, args.Want("bytes or hex digits", v)
	}
	data, err := hex.DecodeString(strings.NewReplacer(" ", "", ":", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		return nil, args.Hinted("raw() takes bytes as they are: b\"\\xff\"", "%v", err)
	}
	return data, nil
}}
