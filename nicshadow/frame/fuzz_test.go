package frame_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sekimori/nicshadow/frame"
)

// FuzzParse: Parse never panics, never reads behind the frame, and what it
// accepts gopacket reads the same way, wherever gopacket reads it at all.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		arpRequest, ipv4TCP, ipv4UDP, ipv4ICMP, ipv6TCP, deepIPv6,
		neighbourSolicitation, neighbourAdvertisement, routerAdvertisement,
		ethernetHeader + "81 00 00 00 88 a8 00 05 08 06 " + arpBody,
		ethernetHeader + "00 24 aa aa 03 00 00 00 08 06 " + arpBody,
		ipv4("45 00 00 24 00 01 20 03 40 06 00 00" + hosts4 + "00*16"),
		ipv4("47 00 00 24 00 00 00 00 40 11 00 00" + hosts4 + "83 07 04 0a 00 00 09 00 00 01 00 02 00 08 00 00"),
		// The lengths of ARP summed in 8 bits: gopacket v1.1.19 panics.
		ethernetHeader + "08 06 00 01 08 00 ff ff 00 01 00*40",
	} {
		f.Add(unhex(f, text))
	}
	for _, text := range []string{discover, request, ack} {
		f.Add(dhcp4(f, text))
	}
	for _, text := range []string{solicit, reply} {
		f.Add(dhcp6(f, text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var k frame.Key
		r := frame.Parse(b, &k)
		if r == frame.Unparsed || r >= frame.NumReasons {
			t.Fatalf("Parse = %d", r)
		}
		if r != frame.OK {
			if k.Class() != frame.ClassNone {
				t.Fatalf("%v but class %v", r, k.Class())
			}
			return
		}
		if k.Class() == frame.ClassNone || k.Class() >= frame.NumClasses {
			t.Fatalf("ok but class %d", k.Class())
		}
		p, ok := decode(b)
		if !ok {
			return
		}
		for _, d := range differences(p, &k) {
			t.Error(d)
		}
	})
}

// decode is what gopacket makes of b; false where it panics.
func decode(b []byte) (p gopacket.Packet, ok bool) {
	defer func() {
		if recover() != nil {
			p, ok = nil, false
		}
	}()
	p = gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	return p, p.ErrorLayer() == nil
}

// differences compares the outermost layer of each kind with the key. It
// looks at layers only as far as they follow each other directly: behind a
// tunnel, gopacket sees layers that Parse does not look for.
func differences(p gopacket.Packet, k *frame.Key) []string {
	var out []string
	check := func(f frame.Field, want uint64) {
		if !k.Class().Has(f) {
			out = append(out, fmt.Sprintf("class %v has no %v, gopacket has %#x", k.Class(), f, want))
		} else if got := k.Uint(f); got != want {
			out = append(out, fmt.Sprintf("%v = %#x, gopacket has %#x", f, got, want))
		}
	}
	flag := func(f frame.Field, want bool) {
		var n uint64
		if want {
			n = 1
		}
		check(f, n)
	}
	number := func(b []byte) uint64 {
		var n uint64
		for _, c := range b {
			n = n<<8 | uint64(c)
		}
		return n
	}
	wide := func(f frame.Field, ip net.IP) {
		hi, lo := k.Wide(f)
		if hi != binary.BigEndian.Uint64(ip) || lo != binary.BigEndian.Uint64(ip[8:]) {
			out = append(out, fmt.Sprintf("%v = %x %x, gopacket has %v", f, hi, lo, ip))
		}
	}
	tags := uint64(0)
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.Ethernet:
			check(frame.EthDst, number(l.DstMAC))
			check(frame.EthSrc, number(l.SrcMAC))
		case *layers.Dot1Q:
			if tags++; tags == 1 {
				check(frame.VLAN, uint64(l.VLANIdentifier))
			}
		case *layers.ARP:
			check(frame.ARPOp, uint64(l.Operation))
			check(frame.ARPSenderMAC, number(l.SourceHwAddress))
			check(frame.ARPSenderIP, number(l.SourceProtAddress))
			check(frame.ARPTargetMAC, number(l.DstHwAddress))
			check(frame.ARPTargetIP, number(l.DstProtAddress))
			return out
		case *layers.IPv4:
			check(frame.IPv4Src, number(l.SrcIP.To4()))
			check(frame.IPv4Dst, number(l.DstIP.To4()))
			check(frame.IPProtocol, uint64(l.Protocol))
			check(frame.IPTTL, uint64(l.TTL))
			check(frame.IPDSCP, uint64(l.TOS>>2))
			flag(frame.IPFragment, l.FragOffset != 0 || l.Flags&layers.IPv4MoreFragments != 0)
			if l.FragOffset != 0 || l.Flags&layers.IPv4MoreFragments != 0 || !next4[k.Class()] {
				return out
			}
		case *layers.IPv6:
			wide(frame.IPv6Src, l.SrcIP)
			wide(frame.IPv6Dst, l.DstIP)
			check(frame.IPTTL, uint64(l.HopLimit))
			check(frame.IPDSCP, uint64(l.TrafficClass>>2))
			if k.Class() == frame.ClassIPv6Other || k.Class() == frame.ClassIPv6Fragment {
				return out
			}
		case *layers.TCP:
			check(frame.SrcPort, uint64(l.SrcPort))
			check(frame.DstPort, uint64(l.DstPort))
			flag(frame.TCPSyn, l.SYN)
			flag(frame.TCPAck, l.ACK)
			flag(frame.TCPFin, l.FIN)
			flag(frame.TCPRst, l.RST)
			return out
		case *layers.UDP:
			check(frame.SrcPort, uint64(l.SrcPort))
			check(frame.DstPort, uint64(l.DstPort))
			return out
		case *layers.ICMPv4:
			check(frame.ICMPType, uint64(l.TypeCode.Type()))
			check(frame.ICMPCode, uint64(l.TypeCode.Code()))
			return out
		case *layers.ICMPv6:
			check(frame.ICMPType, uint64(l.TypeCode.Type()))
			check(frame.ICMPCode, uint64(l.TypeCode.Code()))
			return out
		case *layers.IPv6HopByHop, *layers.IPv6Routing, *layers.IPv6Destination:
		default:
			return out // fragments, tunnels and what else gopacket knows
		}
	}
	return out
}

// next4 are the classes behind whose IPv4 header a layer follows that both know.
var next4 = map[frame.Class]bool{
	frame.ClassIPv4TCP: true, frame.ClassIPv4UDP: true, frame.ClassIPv4ICMP: true,
}
