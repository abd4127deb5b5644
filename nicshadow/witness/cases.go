package witness

import (
	"sync"

	"sekimori/nicshadow/frame"
)

// A variant narrows a class of frames to those that parse: what the parser asks
// of one field given another has to be a variant of its own.
type variant map[frame.Field]Set

// Numbers that the parser looks at.
const (
	etherIPv4, etherARP, etherIPv6 = 0x0800, 0x0806, 0x86dd

	protoICMP, protoTCP, protoUDP, protoICMPv6 = 1, 6, 17, 58

	typeRS, typeRA, typeNS, typeNA, typeRedirect = 133, 134, 135, 136, 137
)

var (
	// unicast are the MAC addresses whose group bit is 0, but for zero.
	unicast = sync.OnceValue(func() Set {
		var out []span
		for first := uint64(0); first < 256; first += 2 {
			out = append(out, span{number(first << 40), number(first<<40 | 1<<40 - 1)})
		}
		out[0].lo = number(1)
		return Set{out}
	})
	linkLocal = Set{[]span{{value{Hi: 0xfe80 << 48}, value{Hi: 0xfebf<<48 | 1<<48 - 1, Lo: ^uint64(0)}}}}
	// singleIPv6 are the addresses that are no group's.
	singleIPv6 = Set{[]span{{value{}, value{Hi: 0xfeff<<48 | 1<<48 - 1, Lo: ^uint64(0)}}}}
	nonZero6   = point(value{}).not(128)
	solicited  = Set{[]span{{value{Hi: 0xff02 << 48, Lo: 0x1ff000000}, value{Hi: 0xff02 << 48, Lo: 0x1ffffffff}}}}

	icmpErrors4 = points(3, 4, 5, 11, 12)
	icmpErrors6 = between(0, 127)
)

// variants are those of a class; nil for a class that this package cannot build
// frames of.
func variants(c frame.Class) []variant {
	own := transportVariants(c)
	var out []variant
	for _, v := range own {
		for _, tags := range []variant{
			{frame.VLANTags: points(0), frame.VLAN: points(0)},
			{frame.VLANTags: points(1, 2), frame.VLAN: all(12)},
		} {
			all := variant{frame.EthSrc: unicast(), frame.EthDst: all(48), frame.Length: lengths(c)}
			for _, from := range []variant{ipVariant(c), v, tags} {
				for f, s := range from {
					all[f] = s
				}
			}
			out = append(out, all)
		}
	}
	return out
}

// lengths are those that a frame of a class can have, tagged or not.
func lengths(c frame.Class) Set {
	if c == frame.ClassARP {
		return between(14+28, 60+8) // what is longer is no padding
	}
	return between(14, frame.MaxLength)
}

func ipVariant(c frame.Class) variant {
	switch {
	case c.Has(frame.IPv4Src):
		return variant{frame.EtherType: points(etherIPv4)}
	case c.Has(frame.IPv6Src):
		return variant{frame.EtherType: points(etherIPv6)}
	}
	return nil
}

func transportVariants(c frame.Class) []variant {
	proto := func(n uint64) variant { return variant{frame.IPProtocol: points(n)} }
	switch c {
	case frame.ClassARP:
		return []variant{{frame.EtherType: points(etherARP), frame.ARPOp: points(1, 2)}}
	case frame.ClassOther:
		return []variant{{frame.EtherType: between(0x600, 0xffff).And(points(etherIPv4, etherARP, etherIPv6, 0x8100, 0x88a8, 0x9100).not(16))}}
	case frame.ClassIPv4TCP, frame.ClassIPv6TCP:
		return []variant{proto(protoTCP)}
	case frame.ClassIPv4UDP:
		return []variant{{frame.IPProtocol: points(protoUDP), frame.DstPort: dhcpPorts.not(16)}}
	case frame.ClassIPv6UDP:
		return []variant{{frame.IPProtocol: points(protoUDP), frame.DstPort: dhcp6Ports.not(16)}}
	case frame.ClassIPv4DHCP:
		return dhcpVariants()
	case frame.ClassIPv6DHCP:
		return dhcp6Variants()
	case frame.ClassIPv4Other:
		return []variant{{frame.IPProtocol: points(protoICMP, protoTCP, protoUDP).not(8)}}
	case frame.ClassIPv6Other:
		return []variant{{frame.IPProtocol: points(0, protoTCP, protoUDP, 43, 44, protoICMPv6, 60).not(8)}}
	case frame.ClassIPv4Fragment:
		return []variant{{frame.IPFragment: points(1)}}
	case frame.ClassIPv6Fragment: // behind the fragment header nothing is looked at
		return []variant{{frame.IPFragment: points(1)}}
	case frame.ClassIPv4ICMP:
		return icmpVariants(protoICMP, icmpErrors4, frame.ICMPAbout4)
	case frame.ClassIPv6ICMP:
		return icmpVariants(protoICMPv6, icmpErrors6, frame.ICMPAbout6)
	case frame.ClassIPv6NDP:
		return ndpVariants()
	}
	return nil
}

// icmpVariants are errors, which quote a packet, and all else.
func icmpVariants(proto uint64, errors Set, about frame.Field) []variant {
	rest := errors.not(8)
	if proto == protoICMPv6 {
		rest = rest.And(between(typeRS, typeRedirect).not(8))
	}
	return []variant{
		{frame.IPProtocol: points(proto), frame.ICMPType: errors, frame.IPFragment: points(0), about: point(value{}).not(about.Width())},
		{frame.IPProtocol: points(proto), frame.ICMPType: rest, about: point(value{})},
	}
}

// ndpVariants are the messages of RFC 4861 under its rules for receivers.
func ndpVariants() []variant {
	of := func(typ uint64, more variant) variant {
		v := variant{
			frame.IPProtocol: points(protoICMPv6), frame.IPTTL: points(255), frame.IPFragment: points(0),
			frame.ICMPType: points(typ), frame.ICMPCode: points(0), frame.NDPTarget: singleIPv6,
		}
		for f, s := range more {
			v[f] = s
		}
		return v
	}
	none := point(value{})
	return []variant{
		of(typeRS, variant{frame.NDPTarget: none, frame.IPv6Src: nonZero6}),
		of(typeRS, variant{frame.NDPTarget: none, frame.IPv6Src: none, frame.NDPLinkMAC: none}),
		of(typeRA, variant{frame.NDPTarget: none, frame.IPv6Src: linkLocal}),
		of(typeNS, variant{frame.IPv6Src: nonZero6}),
		of(typeNS, variant{frame.IPv6Src: none, frame.NDPLinkMAC: none, frame.IPv6Dst: solicited}),
		of(typeNA, nil),
		of(typeRedirect, variant{frame.IPv6Src: linkLocal, frame.NDPTarget: all(128)}),
	}
}

// domain is where the search of a variant begins.
func (v variant) domain(c frame.Class) *domain {
	d := &domain{}
	for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
		if !c.Has(f) {
			continue
		}
		d.fields[f] = all(f.Width())
		if s, ok := v[f]; ok {
			d.fields[f] = s
		}
	}
	return d
}
