package value

import (
	"fmt"
	"net/netip"

	"sekimori/nicshadow/frame"

	"go.starlark.net/starlark"
)

// Builtins is what this package adds to the language: the constructors and
// the constants. The caller owns the dict; the values are shared and frozen.
func Builtins() starlark.StringDict {
	d := make(starlark.StringDict, len(universe))
	for name, v := range universe {
		d[name] = v
	}
	return d
}

var universe = starlark.StringDict{
	"ip":    starlark.NewBuiltin("ip", makeIP),
	"net":   starlark.NewBuiltin("net", makeNet),
	"mac":   starlark.NewBuiltin("mac", makeMAC),
	"ports": starlark.NewBuiltin("ports", makePortSet),

	// IANA protocol numbers.
	"ICMP":   starlark.MakeInt(1),
	"TCP":    starlark.MakeInt(6),
	"UDP":    starlark.MakeInt(17),
	"ICMPV6": starlark.MakeInt(58),

	// RFC 826.
	"ARP": NewNames("ARP", map[string]int{"REQUEST": 1, "REPLY": 2}),

	// IEEE 802 numbers.
	"ETHERTYPE": NewNames("ETHERTYPE", map[string]int{
		"IPV4": 0x0800, "ARP": 0x0806, "WAKE_ON_LAN": 0x0842, "RARP": 0x8035, "VLAN": 0x8100,
		"IPV6": 0x86dd, "PAUSE": 0x8808, "MPLS": 0x8847, "PPPOE_DISCOVERY": 0x8863, "PPPOE": 0x8864,
		"EAPOL": 0x888e, "QINQ": 0x88a8, "LLDP": 0x88cc, "MACSEC": 0x88e5, "PTP": 0x88f7,
	}),

	// RFC 792.
	"ICMP_TYPE": NewNames("ICMP_TYPE", map[string]int{
		"ECHO_REPLY": 0, "UNREACHABLE": 3, "REDIRECT": 5, "ECHO_REQUEST": 8, "ROUTER_ADVERTISEMENT": 9,
		"ROUTER_SOLICITATION": 10, "TIME_EXCEEDED": 11, "PARAMETER_PROBLEM": 12,
	}),

	// RFC 2131 and RFC 3203.
	"DHCP": NewNames("DHCP", map[string]int{
		"DISCOVER": 1, "OFFER": 2, "REQUEST": 3, "DECLINE": 4, "ACK": 5, "NAK": 6, "RELEASE": 7, "INFORM": 8, "FORCERENEW": 9,
	}),

	// RFC 8415, 7.3.
	"DHCPV6": NewNames("DHCPV6", map[string]int{
		"SOLICIT": 1, "ADVERTISE": 2, "REQUEST": 3, "CONFIRM": 4, "RENEW": 5, "REBIND": 6, "REPLY": 7, "RELEASE": 8,
		"DECLINE": 9, "RECONFIGURE": 10, "INFORMATION_REQUEST": 11, "RELAY_FORWARD": 12, "RELAY_REPLY": 13,
	}),

	// RFC 4443, RFC 2710, RFC 3810, RFC 4861.
	"ICMPV6_TYPE": NewNames("ICMPV6_TYPE", map[string]int{
		"UNREACHABLE": 1, "PACKET_TOO_BIG": 2, "TIME_EXCEEDED": 3, "PARAMETER_PROBLEM": 4,
		"ECHO_REQUEST": 128, "ECHO_REPLY": 129, "MLD_QUERY": 130, "MLD_REPORT": 131, "MLD_DONE": 132,
		"ROUTER_SOLICITATION": 133, "ROUTER_ADVERTISEMENT": 134, "NEIGHBOR_SOLICITATION": 135,
		"NEIGHBOR_ADVERTISEMENT": 136, "REDIRECT": 137, "MLD2_REPORT": 143,
	}),
}

// makeIP is ip(x): an address from a string, or x itself where it is one.
func makeIP(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var x starlark.Value
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &x); err != nil {
		return nil, err
	}
	switch x := x.(type) {
	case IP:
		return x, nil
	case starlark.String:
		return orError(ParseIP(string(x)))
	}
	return nil, fmt.Errorf("ip: got %s, want a string such as \"10.0.0.1\"", x.Type())
}

// makeNet is net(x): a network from a string, or from an ip and a prefix
// length, whose other bits are then cleared.
func makeNet(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var x starlark.Value
	bits := -1
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &x, &bits); err != nil {
		return nil, err
	}
	switch x := x.(type) {
	case Net:
		if len(args) == 1 {
			return x, nil
		}
	case starlark.String:
		if len(args) == 1 {
			return orError(ParseNet(string(x)))
		}
	case IP:
		if len(args) == 2 {
			p := netip.PrefixFrom(x.Addr, bits)
			if !p.IsValid() {
				return nil, fmt.Errorf("net: prefix length %d of %s", bits, x)
			}
			return Net{p.Masked()}, nil
		}
	}
	return nil, fmt.Errorf("net: got %s, want a string such as \"10.0.0.0/24\", or an ip and a prefix length", x.Type())
}

// makeMAC is mac(x): an Ethernet address from a string.
func makeMAC(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var x starlark.Value
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &x); err != nil {
		return nil, err
	}
	switch x := x.(type) {
	case MAC:
		return x, nil
	case starlark.String:
		m, err := frame.ParseMAC(string(x))
		if err != nil {
			return nil, fmt.Errorf("mac %q: want six octets in hex such as \"02:00:0a:00:00:05\"", string(x))
		}
		return MAC{m}, nil
	}
	return nil, fmt.Errorf("mac: got %s, want a string such as \"02:00:0a:00:00:05\"", x.Type())
}

// makePortSet is ports(x, ...): the union of ports, "first-last" strings and
// sets of ports.
func makePortSet(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(kwargs) > 0 {
		return nil, fmt.Errorf("ports: unexpected keyword argument %s", kwargs[0][0])
	}
	var rs []PortRange
	for _, a := range args {
		switch a := a.(type) {
		case Ports:
			rs = append(rs, a.ranges...)
		case starlark.String:
			p, err := ParsePorts(string(a))
			if err != nil {
				return nil, err
			}
			rs = append(rs, p.ranges...)
		case starlark.Int:
			n, ok := a.Int64()
			if !ok || n < 0 || n > 65535 {
				return nil, fmt.Errorf("ports: %s is not a port: want 0 to 65535", a)
			}
			rs = append(rs, PortRange{uint16(n), uint16(n)})
		default:
			return nil, fmt.Errorf("ports: got %s, want an int or a string such as \"8000-8999\"", a.Type())
		}
	}
	return makePorts(rs), nil
}

// orError lets a parser's result be a Starlark value without a typed nil.
func orError[V starlark.Value](v V, err error) (starlark.Value, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}
