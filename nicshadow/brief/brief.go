// Package brief says in one line what an Ethernet frame is: for drop logs,
// captures and explanations. What the parser refused is described by its
// addresses and EtherType alone: nothing here parses further.
package brief

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"sekimori/nicshadow/frame"
)

// Frame describes the frame b that parsed into k, or that did not parse if k
// has class ClassNone. Of a frame that did not parse, the first 14 bytes of b
// are looked at. length is that of the whole frame, of which b may be the
// beginning.
func Frame(k *frame.Key, b []byte, length int) string {
	c := k.Class()
	switch {
	case c == frame.ClassNone:
		return raw(b, length)
	case c == frame.ClassARP:
		return tags(k) + arp(k)
	case c == frame.ClassOther:
		return tags(k) + fmt.Sprintf("%v -> %v ethertype %#04x length %d",
			mac(k, frame.EthSrc), mac(k, frame.EthDst), k.Uint(frame.EtherType), length)
	}
	return tags(k) + ip(k) + fmt.Sprintf(" length %d", length)
}

func raw(b []byte, length int) string {
	if len(b) < 14 {
		return fmt.Sprintf("%d bytes", length)
	}
	return fmt.Sprintf("%v -> %v type %#04x length %d",
		frame.MAC(b[6:12]), frame.MAC(b[:6]), uint16(b[12])<<8|uint16(b[13]), length)
}

// tags names VLAN tags, which are easily overlooked and often an attack.
func tags(k *frame.Key) string {
	switch n := k.Uint(frame.VLANTags); n {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("vlan %d ", k.Uint(frame.VLAN))
	default:
		return fmt.Sprintf("vlan %d (%d tags) ", k.Uint(frame.VLAN), n)
	}
}

func arp(k *frame.Key) string {
	sip, tip := addr(k, frame.ARPSenderIP), addr(k, frame.ARPTargetIP)
	sha := mac(k, frame.ARPSenderMAC)
	var s string
	if k.Uint(frame.ARPOp) == 1 {
		s = fmt.Sprintf("arp request who-has %v tell %v at %v", tip, sip, sha)
	} else {
		s = fmt.Sprintf("arp reply %v is-at %v -> %v", sip, sha, tip)
	}
	if src := mac(k, frame.EthSrc); src != sha {
		s += fmt.Sprintf(" from %v", src)
	}
	return s
}

func ip(k *frame.Key) string {
	src, dst := frame.IPv4Src, frame.IPv4Dst
	c := k.Class()
	if c.Has(frame.IPv6Src) {
		src, dst = frame.IPv6Src, frame.IPv6Dst
	}
	s, d := addr(k, src), addr(k, dst)
	switch c {
	case frame.ClassIPv4TCP, frame.ClassIPv6TCP:
		return fmt.Sprintf("tcp %v -> %v%s", port(k, s, frame.SrcPort), port(k, d, frame.DstPort), flags(k))
	case frame.ClassIPv4UDP, frame.ClassIPv6UDP:
		return fmt.Sprintf("udp %v -> %v", port(k, s, frame.SrcPort), port(k, d, frame.DstPort))
	case frame.ClassIPv4ICMP, frame.ClassIPv6ICMP:
		name := "icmp"
		if c == frame.ClassIPv6ICMP {
			name = "icmpv6"
		}
		return fmt.Sprintf("%s %v -> %v type %d code %d", name, s, d, k.Uint(frame.ICMPType), k.Uint(frame.ICMPCode))
	case frame.ClassIPv4DHCP, frame.ClassIPv6DHCP:
		return dhcp(k, port(k, s, frame.SrcPort), port(k, d, frame.DstPort))
	case frame.ClassIPv6NDP:
		return ndp(k, s, d)
	case frame.ClassIPv4Fragment, frame.ClassIPv6Fragment:
		return fmt.Sprintf("ip fragment %v -> %v protocol %d", s, d, k.Uint(frame.IPProtocol))
	}
	return fmt.Sprintf("ip %v -> %v protocol %d", s, d, k.Uint(frame.IPProtocol))
}

var ndpNames = [...]string{"router solicitation", "router advertisement", "neighbour solicitation", "neighbour advertisement", "redirect"}

func ndp(k *frame.Key, src, dst netip.Addr) string {
	name := "ndp"
	if i := int(k.Uint(frame.ICMPType)) - 133; i >= 0 && i < len(ndpNames) {
		name = ndpNames[i]
	}
	s := fmt.Sprintf("%s %v -> %v", name, src, dst)
	if t := addr(k, frame.NDPTarget); !t.IsUnspecified() {
		s += fmt.Sprintf(" target %v", t)
	}
	if m := k.Uint(frame.NDPLinkMAC); m != 0 {
		s += fmt.Sprintf(" link %v", frame.MACFromUint64(m))
	}
	return s
}

var (
	dhcpNames  = [...]string{"", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform", "forcerenew"}
	dhcp6Names = [...]string{"", "solicit", "advertise", "request", "confirm", "renew", "rebind", "reply", "release", "decline",
		"reconfigure", "information-request", "relay-forward", "relay-reply"}
)

func dhcp(k *frame.Key, src, dst netip.AddrPort) string {
	protocol, names, about := "dhcp", dhcpNames[:], frame.DHCPRequested4
	if k.Class() == frame.ClassIPv6DHCP {
		protocol, names, about = "dhcpv6", dhcp6Names[:], frame.DHCPRequested6
	}
	s := fmt.Sprintf("%s %s %v -> %v", protocol, names[k.Uint(frame.DHCPType)%uint64(len(names))], src, dst)
	if a := addr(k, about); !a.IsUnspecified() {
		s += fmt.Sprintf(" address %v", a)
	}
	if m := k.Uint(frame.DHCPClientMAC); m != 0 && m != k.Uint(frame.EthSrc) {
		s += fmt.Sprintf(" for %v", frame.MACFromUint64(m))
	}
	return s
}

func flags(k *frame.Key) string {
	var f []string
	for _, x := range []struct {
		f    frame.Field
		name string
	}{{frame.TCPSyn, "syn"}, {frame.TCPAck, "ack"}, {frame.TCPFin, "fin"}, {frame.TCPRst, "rst"}} {
		if k.Uint(x.f) != 0 {
			f = append(f, x.name)
		}
	}
	if f == nil {
		return ""
	}
	return " " + strings.Join(f, ",")
}

func mac(k *frame.Key, f frame.Field) frame.MAC { return frame.MACFromUint64(k.Uint(f)) }

func port(k *frame.Key, a netip.Addr, f frame.Field) netip.AddrPort {
	return netip.AddrPortFrom(a, uint16(k.Uint(f)))
}

// addr is the address in a field of 32 or of 128 bits.
func addr(k *frame.Key, f frame.Field) netip.Addr {
	hi, lo := k.Wide(f)
	return toAddr(f, hi, lo)
}

func toAddr(f frame.Field, hi, lo uint64) netip.Addr {
	if f.Info().Kind == frame.KindIPv4 {
		return netip.AddrFrom4([4]byte{byte(lo >> 24), byte(lo >> 16), byte(lo >> 8), byte(lo)})
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b)
}

// Field writes the value of a field of a frame: see [Value].
func Field(k *frame.Key, f frame.Field) string {
	hi, lo := k.Wide(f)
	return Value(f, hi, lo)
}

// Value writes a value of field f as a person would: an address, a number,
// true or false. hi is 0 but for fields of 128 bits.
func Value(f frame.Field, hi, lo uint64) string {
	switch f.Info().Kind {
	case frame.KindMAC:
		return frame.MACFromUint64(lo).String()
	case frame.KindIPv4, frame.KindIPv6:
		return toAddr(f, hi, lo).String()
	case frame.KindBool:
		return fmt.Sprint(lo != 0)
	default:
		if f == frame.EtherType {
			return fmt.Sprintf("%#04x", lo)
		}
		return fmt.Sprint(lo)
	}
}
