package policy

import "sekimori/nicshadow/frame"

// A pred numbers the predicates in the order they judge a frame.
type pred uint8

const (
	allowEthernet pred = iota
	allowARP
	allowIPv4
	allowIPv6
	allowTCP
	allowUDP
	allowICMP
	allowNDP
	allowDHCP
	numPreds
)

// predNames are the names that policy() knows.
var predNames = []string{"allow_ethernet", "allow_arp", "allow_ipv4", "allow_ipv6", "allow_tcp", "allow_udp", "allow_icmp", "allow_ndp", "allow_dhcp"}

func (p pred) String() string { return predNames[p] }

// Sets of predicates that make up a layer.
const (
	networkLayer   = 1<<allowARP | 1<<allowIPv4 | 1<<allowIPv6
	transportLayer = 1<<allowTCP | 1<<allowUDP | 1<<allowICMP | 1<<allowNDP | 1<<allowDHCP
)

// An ipFamily distinguishes the compilations of one predicate: over IPv4 and
// over IPv6 the parameter src_ip is another field.
type ipFamily uint8

const (
	noFamily ipFamily = iota
	family4
	family6
	numFamilies
)

// A param is what a parameter name stands for in a predicate: the field by
// family, or the direction.
type param struct {
	name  string
	field [numFamilies]frame.Field
}

// direction is a parameter that is no field: "egress" or "ingress".
const direction = "direction"

func everywhere(name string, f frame.Field) param {
	return param{name, [numFamilies]frame.Field{f, f, f}}
}

func byFamily(name string, f4, f6 frame.Field) param {
	return param{name, [numFamilies]frame.Field{frame.FieldInvalid, f4, f6}}
}

var (
	linkParams = []param{
		everywhere("src_mac", frame.EthSrc), everywhere("dst_mac", frame.EthDst),
		everywhere("ethertype", frame.EtherType), everywhere("vlan", frame.VLAN),
		everywhere("vlan_tags", frame.VLANTags), everywhere("length", frame.Length),
		{name: direction},
	}
	ipParams = []param{
		byFamily("src_ip", frame.IPv4Src, frame.IPv6Src), byFamily("dst_ip", frame.IPv4Dst, frame.IPv6Dst),
		everywhere("protocol", frame.IPProtocol), everywhere("dscp", frame.IPDSCP),
		everywhere("fragment", frame.IPFragment),
	}
	ttlParam      = everywhere("ttl", frame.IPTTL)
	hopLimitParam = everywhere("hop_limit", frame.IPTTL)
	portParams    = []param{everywhere("src_port", frame.SrcPort), everywhere("dst_port", frame.DstPort)}
)

// params lists, for each predicate, the parameter names it may have, its own
// first. In allow_arp src_mac and dst_mac are those of the ARP body.
var params = [numPreds][]param{
	allowEthernet: linkParams,
	allowARP: join(list(
		everywhere("op", frame.ARPOp),
		everywhere("src_mac", frame.ARPSenderMAC), everywhere("src_ip", frame.ARPSenderIP),
		everywhere("dst_mac", frame.ARPTargetMAC), everywhere("dst_ip", frame.ARPTargetIP),
	), linkParams[2:]),
	allowIPv4: join(ipParams, list(ttlParam), linkParams),
	allowIPv6: join(ipParams, list(hopLimitParam), linkParams),
	allowTCP: join(portParams, list(
		everywhere("syn", frame.TCPSyn), everywhere("ack", frame.TCPAck),
		everywhere("fin", frame.TCPFin), everywhere("rst", frame.TCPRst),
	), ipParams, list(ttlParam, hopLimitParam), linkParams),
	allowUDP:  join(portParams, ipParams, list(ttlParam, hopLimitParam), linkParams),
	allowICMP: join(icmpParams, ipParams, list(ttlParam, hopLimitParam), linkParams),
	allowNDP: join(icmpParams, list(
		everywhere("target_ip", frame.NDPTarget), everywhere("link_mac", frame.NDPLinkMAC),
	), ipParams, list(ttlParam, hopLimitParam), linkParams),
	allowDHCP: join(list(
		everywhere("op", frame.DHCPOp), everywhere("message_type", frame.DHCPType),
		byFamily("requested_ip", frame.DHCPRequested4, frame.DHCPRequested6),
		byFamily("server_ip", frame.DHCPServer4, frame.DHCPServer6),
	), portParams, ipParams, list(ttlParam, hopLimitParam), linkParams),
}

var icmpParams = []param{everywhere("type", frame.ICMPType), everywhere("code", frame.ICMPCode)}

func list(ps ...param) []param { return ps }

func join(lists ...[]param) []param {
	var out []param
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

// paramNamed finds what a parameter of p stands for.
func (p pred) paramNamed(name string) (param, bool) {
	for _, q := range params[p] {
		if q.name == name {
			return q, true
		}
	}
	return param{}, false
}

// paramNames are the names of the parameters p may have.
func (p pred) paramNames() []string {
	out := make([]string, len(params[p]))
	for i, q := range params[p] {
		out[i] = q.name
	}
	return out
}

// family is the IP version of a class of frames.
func family(c frame.Class) ipFamily {
	switch {
	case c.Has(frame.IPv4Src):
		return family4
	case c.Has(frame.IPv6Src):
		return family6
	}
	return noFamily
}

// network is the predicate of the network layer that judges frames of class
// c; ok is false where there is none.
func network(c frame.Class) (p pred, ok bool) {
	switch {
	case c == frame.ClassARP:
		return allowARP, true
	case family(c) == family4:
		return allowIPv4, true
	case family(c) == family6:
		return allowIPv6, true
	}
	return 0, false
}

// transports gives the predicate of the transport layer by IP protocol.
var transports = []struct {
	protocol uint64
	family   ipFamily // noFamily: either
	pred     pred
}{
	{1, family4, allowICMP}, {6, noFamily, allowTCP}, {17, noFamily, allowUDP}, {58, family6, allowICMP},
}

// transport is the predicate of the transport layer that judges frames of
// class c, given the predicates present; ok is false where there is none, as
// for later fragments, which are told apart by their protocol.
func transport(c frame.Class, present uint) (p pred, ok bool) {
	switch c {
	case frame.ClassIPv4TCP, frame.ClassIPv6TCP:
		return allowTCP, true
	case frame.ClassIPv4UDP, frame.ClassIPv6UDP:
		return allowUDP, true
	case frame.ClassIPv4DHCP, frame.ClassIPv6DHCP:
		if present>>allowDHCP&1 != 0 {
			return allowDHCP, true
		}
		return allowUDP, true
	case frame.ClassIPv4ICMP, frame.ClassIPv6ICMP:
		return allowICMP, true
	case frame.ClassIPv6NDP:
		if present>>allowNDP&1 != 0 {
			return allowNDP, true
		}
		return allowICMP, true
	}
	return 0, false
}

// isFragment reports whether frames of class c are later fragments.
func isFragment(c frame.Class) bool {
	return c == frame.ClassIPv4Fragment || c == frame.ClassIPv6Fragment
}

// spoken names what a class of frames is, for a drop because no predicate
// speaks for it.
var spoken = [frame.NumClasses]struct{ network, transport string }{
	frame.ClassARP:          {"arp", ""},
	frame.ClassOther:        {"ethertype", ""},
	frame.ClassIPv4TCP:      {"ipv4", "tcp"},
	frame.ClassIPv4UDP:      {"ipv4", "udp"},
	frame.ClassIPv4ICMP:     {"ipv4", "icmp"},
	frame.ClassIPv4Other:    {"ipv4", "protocol"},
	frame.ClassIPv4Fragment: {"ipv4", "protocol"},
	frame.ClassIPv6TCP:      {"ipv6", "tcp"},
	frame.ClassIPv6UDP:      {"ipv6", "udp"},
	frame.ClassIPv6ICMP:     {"ipv6", "icmp"},
	frame.ClassIPv6NDP:      {"ipv6", "ndp"},
	frame.ClassIPv6Other:    {"ipv6", "protocol"},
	frame.ClassIPv6Fragment: {"ipv6", "protocol"},
	frame.ClassIPv4DHCP:     {"ipv4", "udp"},
	frame.ClassIPv6DHCP:     {"ipv6", "udp"},
}
