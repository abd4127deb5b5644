package policy

import (
	"net/netip"
	"slices"

	"sekimori/nicshadow/frame"
)

// A guard is a rule about the NIC's identity that comes before any predicate.
type guard uint8

// The guards, in the order they are asked.
const (
	guardVLAN guard = iota // no VLAN tags
	guardMAC               // source MAC, and ARP sender MAC, are the own one
	guardIP                // IP source is an own address, and what ICMP errors are about
	guardARP               // ARP sender address is an own one
	guardNDP               // neighbour discovery speaks of own addresses only
	guardRA                // no router advertisements, no redirects
	guardDHCP              // no DHCP servers, no relays, no clients with another's MAC
)

// guardNames are what guard = [...] and the reason of a drop call them.
var guardNames = []string{"vlan", "mac", "ip", "arp", "ndp", "ra", "dhcp"}

// A guardSet is a set of guards, one bit each.
type guardSet uint8

const allGuards guardSet = 1<<(guardDHCP+1) - 1

func (s guardSet) has(g guard) bool { return s>>g&1 != 0 }

// names are the guards of the set, sorted.
func (s guardSet) names() []string {
	var out []string
	for i, name := range guardNames {
		if s.has(guard(i)) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// A clause is one alternative of a guard: it holds if all its tests do.
type clause []fieldTest

// A fieldTest holds if the field is in the set, or, where not is set, if it
// is not. What depends on the identity is of it.
type fieldTest struct {
	field frame.Field
	not   bool
	of    ownSet
	set   set // where of is fixed
}

// An ownSet names a set that depends on the identity.
type ownSet uint8

const (
	fixed      ownSet = iota
	ownMAC            // the own MAC
	ownLink           // the own MAC, or none (all zero)
	own4              // own IPv4 addresses
	own6              // own IPv6 addresses
	zeroIf6           // the unspecified address, if there is any own IPv6 address
	about4            // own IPv4 addresses, or none (all zero)
	about6            // own IPv6 addresses, or none (all zero)
	zeroIfDHCP        // the unspecified address, if DHCP may give one
)

// A check is a guard for one class of frames: it drops unless one of the
// clauses holds.
type check struct {
	guard guard
	any   []clause
}

// ICMPv6 and neighbour discovery types (RFC 4861, RFC 2710, RFC 3810).
const (
	typeMLDReport  = 131
	typeMLDDone    = 132
	typeRS         = 133
	typeRA         = 134
	typeNS         = 135
	typeNA         = 136
	typeRedirect   = 137
	typeMLD2Report = 143

	typeRedirect4 = 5 // ICMP (RFC 792)
	typeRA4       = 9 // ICMP (RFC 1256)
)

// ownAddrs are the addresses that the NIC may send from, by family. With any
// IPv6 address comes the link-local address of the MAC (RFC 4291, appendix A),
// which the kernel gives itself without being asked.
func (id Identity) ownAddrs() (v4, v6 []u128) {
	for _, a := range id.Addrs {
		a = a.Unmap()
		if a.Is4() {
			v4 = append(v4, u128Of(a))
		} else {
			v6 = append(v6, u128Of(a))
		}
	}
	if len(v6) > 0 || id.DHCP6 {
		v6 = append(v6, u128Of(id.linkLocal()))
	}
	return v4, v6
}

// linkLocal is fe80:: and the modified EUI-64 of the MAC.
func (id Identity) linkLocal() netip.Addr {
	m := id.MAC
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// own is what an identity's guards compare with.
type own [zeroIfDHCP + 1]set

func (id Identity) own() *own {
	v4, v6 := id.ownAddrs()
	mac := u128{0, id.MAC.Uint64()}
	o := &own{
		ownMAC: point(mac), ownLink: pointSet([]u128{{}, mac}), own4: pointSet(v4), own6: pointSet(v6),
		about4: pointSet(append(v4, u128{})), about6: pointSet(append(v6, u128{})),
	}
	if len(v6) > 0 {
		o[zeroIf6] = zero
	}
	if id.DHCP4 {
		o[zeroIfDHCP] = zero
	}
	return o
}

// leased reports whether what DHCP gave the card counts as well.
func (t *fieldTest) leased(id *Identity) bool {
	switch t.of {
	case own4, about4:
		return id.DHCP4
	case own6, about6:
		return id.DHCP6
	}
	return false
}

// setOf is what the field is compared with.
func (t *fieldTest) setOf(o *own) set {
	if t.of == fixed {
		return t.set
	}
	return o[t.of]
}

var zero = point(u128{})

// classChecks are the guards for the frames of each class.
var classChecks = func() (out [frame.NumClasses][]check) {
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		out[c] = checksOf(c)
	}
	return out
}()

func checksOf(c frame.Class) []check {
	var out []check
	add := func(g guard, any ...clause) { out = append(out, check{g, any}) }
	is := func(f frame.Field, ns ...uint64) fieldTest { return fieldTest{field: f, set: numbers(ns...)} }
	not := func(f frame.Field, ns ...uint64) fieldTest {
		return fieldTest{field: f, set: numbers(ns...), not: true}
	}
	of := func(f frame.Field, o ownSet) fieldTest { return fieldTest{field: f, of: o} }

	// First, so that what follows is what it is for any datagram.
	switch c {
	case frame.ClassIPv4DHCP:
		// A server keeps its leases by chaddr: one client that asks under many
		// of them takes all addresses there are.
		add(guardDHCP, clause{is(frame.DHCPOp, 1), is(frame.DHCPRelayed, 0), of(frame.DHCPClientMAC, ownMAC)})
	case frame.ClassIPv6DHCP:
		add(guardDHCP, clause{is(frame.DHCPOp, 1), is(frame.DHCPRelayed, 0)})
	}
	add(guardVLAN, clause{is(frame.VLANTags, 0)})
	add(guardMAC, clause{of(frame.EthSrc, ownMAC)})
	switch family(c) {
	case family4:
		any := []clause{{of(frame.IPv4Src, own4)}}
		if c == frame.ClassIPv4DHCP { // who has no address yet asks for one
			any = append(any, clause{of(frame.IPv4Src, zeroIfDHCP)})
		}
		add(guardIP, any...)
		// An error message is about a packet that was sent to its author.
		// Receivers believe it of any packet: mallory, who tells alice that
		// what she sends to bob is too long, has changed her route to bob.
		if c == frame.ClassIPv4ICMP {
			add(guardIP, clause{of(frame.ICMPAbout4, about4)}, clause{is(frame.ICMPType, typeRedirect4)}) // a redirect is guardRA's
		}
	case family6:
		any := []clause{{of(frame.IPv6Src, own6)}}
		// The unspecified address is a source in the probe of duplicate
		// address detection (RFC 4862, 5.4.2), and in MLD reports before
		// there is an address (RFC 3590).
		switch c {
		case frame.ClassIPv6NDP:
			any = append(any, clause{of(frame.IPv6Src, zeroIf6), is(frame.ICMPType, typeNS), of(frame.NDPTarget, own6)})
		case frame.ClassIPv6ICMP:
			any = append(any, clause{of(frame.IPv6Src, zeroIf6), is(frame.ICMPType, typeMLDReport, typeMLDDone, typeMLD2Report)})
		}
		add(guardIP, any...)
		if c == frame.ClassIPv6ICMP {
			add(guardIP, clause{of(frame.ICMPAbout6, about6)})
		}
	}
	switch c {
	case frame.ClassARP:
		add(guardMAC, clause{of(frame.ARPSenderMAC, ownMAC)})
		// A request from 0.0.0.0 probes for its target (RFC 5227, 2.1.1). A
		// probe for the address of another is a denial of service.
		add(guardARP, clause{of(frame.ARPSenderIP, own4)},
			clause{is(frame.ARPSenderIP, 0), is(frame.ARPOp, 1), of(frame.ARPTargetIP, own4)})
	case frame.ClassIPv4ICMP:
		add(guardRA, clause{not(frame.ICMPType, typeRedirect4, typeRA4)})
	case frame.ClassIPv6NDP:
		add(guardRA, clause{not(frame.ICMPType, typeRA, typeRedirect)})
		// RS and NS may carry the own link-layer address or none; NA speaks
		// for an own address only. RA and redirect are not this guard's.
		add(guardNDP, clause{not(frame.ICMPType, typeNA), of(frame.NDPLinkMAC, ownLink)},
			clause{of(frame.NDPTarget, own6), of(frame.NDPLinkMAC, ownLink)},
			clause{is(frame.ICMPType, typeRA, typeRedirect)})
	case frame.ClassIPv4UDP, frame.ClassIPv4DHCP:
		// Clients look at the port their answer comes to, not at the one it
		// comes from.
		add(guardDHCP, clause{not(frame.SrcPort, 67), not(frame.DstPort, 68)})
	case frame.ClassIPv6UDP, frame.ClassIPv6DHCP:
		add(guardDHCP, clause{not(frame.SrcPort, 547), not(frame.DstPort, 546)})
	}
	return out
}

// holds evaluates a check in plain Go, for [Policy.Judge].
func (ch check) holds(id *Identity, o *own, k *frame.Key, m *Memory) bool {
	return slices.ContainsFunc(ch.any, func(c clause) bool {
		return !slices.ContainsFunc(c, func(t fieldTest) bool {
			v := keyField(k, t.field)
			in := t.setOf(o).contains(v) || t.leased(id) && m.leased(t.field.Width() == 128, v)
			return in == t.not
		})
	})
}

// keyField reads a field of any width.
func keyField(k *frame.Key, f frame.Field) u128 {
	if f.Width() == 128 {
		hi, lo := k.Wide(f)
		return u128{hi, lo}
	}
	return u128{0, k.Uint(f)}
}

// numbers is the set of some integers.
func numbers(ns ...uint64) set {
	out := make([]span, len(ns))
	for i, n := range ns {
		out[i] = span{u128{0, n}, u128{0, n}}
	}
	return makeSet(out)
}
