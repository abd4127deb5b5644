package e2e_test

import (
	"net/netip"
)

func netip4(a, b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{a, b, c, d}) }

func port(a netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(a, p) }

// ipVariants forge sources of IPv4 and IPv6, and speak as a server that no
// container is.
func ipVariants() []variant {
	send := func(srcMAC mac, src, dst netip.AddrPort) datagram {
		return datagram{dstMAC: alice.mac, srcMAC: srcMAC, src: src.Addr(), dst: dst.Addr(), protocol: 17, payload: udp(src, dst, []byte("forged"))}
	}
	as := func(src, dst netip.Addr) datagram { return send(mallory.mac, port(src, 5000), port(dst, secretPort)) }
	forged := as(bob.ip4, alice.ip4)
	theft := send(bob.mac, port(bob.ip4, 5000), port(alice.ip4, secretPort))
	later := forged
	later.offset, later.payload = 1480, []byte("the rest")

	offer := send(mallory.mac, port(mallory.ip4, 67), port(netip4(255, 255, 255, 255), 68))
	offer.dstMAC = broadcast
	offer.payload = udp(port(offer.src, 67), port(offer.dst, 68), dhcpOffer())
	toAlice := send(mallory.mac, port(mallory.ip4, 67), port(alice.ip4, 68))
	toAlice.payload = udp(port(mallory.ip4, 67), port(alice.ip4, 68), dhcpOffer())
	hidden := send(mallory.mac, port(mallory.ip4, 1067), port(alice.ip4, 68))
	hidden.payload = udp(port(mallory.ip4, 1067), port(alice.ip4, 68), dhcpOffer())
	offer6 := send(mallory.mac, port(mallory.local6, 547), port(alice.local6, 546))
	offer6.payload = udp(port(mallory.local6, 547), port(alice.local6, 546), dhcp6Reply())
	starve := send(mallory.mac, port(mallory.ip4, 68), port(alice.ip4, 67))
	starve.payload = udp(port(mallory.ip4, 68), port(alice.ip4, 67), dhcpDiscover(bob.mac))
	overload := offer
	overload.payload = udp(port(offer.src, 67), port(offer.dst, 68), cat(dhcpOffer()[:243], []byte{52, 1, 1, 255}))
	part := offer
	part.payload, part.more = offer.payload[:248], 1

	return []variant{
		hostile("ipv4_source", "a datagram from bob's address", "guard ip", arrives, forged.bytes()),
		hostile("ipv4_source_nobody", "a datagram from an address that nobody has", "guard ip", arrives, as(nobody.ip4, alice.ip4).bytes()),
		hostile("ipv4_source_alice", "a datagram from alice to alice", "guard ip", arrives, as(alice.ip4, alice.ip4).bytes()),
		hostile("ipv4_source_loopback", "a datagram from 127.0.0.1", "guard ip", arrives, as(netip4(127, 0, 0, 1), alice.ip4).bytes()),
		hostile("ipv4_source_zero", "a datagram from 0.0.0.0 that is no DHCP", "guard ip", arrives, as(zero4, alice.ip4).bytes()),
		hostile("ipv4_source_fragment", "a later fragment from bob's address", "guard ip", arrives, later.bytes()),
		hostile("ipv4_source_vlan0_q", "the same datagram behind a priority tag", "guard vlan", arrives, tagged(forged.bytes(), tag{tagQ, 0})),
		hostile("ipv4_source_vlan0_ad_q", "the same behind two", "guard vlan", arrives, tagged(forged.bytes(), tag{tagAD, 0}, tag{tagQ, 0})),
		hostile("ipv4_mac_theft", "a datagram as bob whole: the switch learns bob at mallory's port", "guard mac", moves, theft.bytes()),
		hostile("mac_theft_other", "the same with an EtherType that nobody reads", "guard mac", moves, ether(alice.mac, bob.mac, 0x88b5, make([]byte, 46))),
		hostile("mac_group", "a source address that is a group", "group source mac", harmless, ether(alice.mac, allHosts4, etherIPv4, forged.bytes()[14:])),
		hostile("ethertype_other", "an EtherType that no predicate names", "unspoken ethertype", arrives, ether(alice.mac, mallory.mac, 0x88b5, make([]byte, 46))),
		hostile("ipv6_source", "a datagram from bob's IPv6 address", "guard ip", arrives, as(bob.ip6, alice.ip6).bytes()),
		hostile("ipv6_source_local", "a datagram from bob's link-local address", "guard ip", arrives, as(bob.local6, alice.local6).bytes()),
		hostile("dhcp_offer", "a DHCP server's answer: mallory as router and resolver", "guard dhcp", arrives, offer.bytes()),
		hostile("dhcp_offer_unicast", "the same to alice alone", "guard dhcp", arrives, toAlice.bytes()),
		hostile("dhcp_offer_vlan0", "the same behind a priority tag", "guard dhcp", arrives, tagged(offer.bytes(), tag{tagQ, 0})),
		hostile("dhcp_offer_port", "the same from another port, at which no client looks", "guard dhcp", arrives, hidden.bytes()),
		hostile("dhcp_other_client", "a question for a lease in bob's name: one client takes all addresses", "guard dhcp", arrives, starve.bytes()),
		hostile("dhcp_overload", "an answer whose options go on in its file name", "malformed dhcp", arrives, overload.bytes()),
		hostile("dhcp_fragment", "the first fragment of an answer", "malformed dhcp", harmless, part.bytes()),
		hostile("icmp_too_long", "what alice sends to bob is too long: Linux changes her route to him", "guard ip", arrives, tooLong4()),
		hostile("icmp6_too_big", "the same in IPv6", "guard ip", arrives, tooBig6()),
		hostile("dhcp6_reply", "a DHCPv6 server's answer", "guard dhcp", arrives, offer6.bytes()),
	}
}

// tooLong4 is mallory's word that alice's echo reply to bob needs fragments of
// 552 bytes (RFC 792, RFC 1191).
func tooLong4() []byte {
	lost := datagram{src: alice.ip4, dst: bob.ip4, protocol: 1, payload: make([]byte, 16)}.bytes()[14:]
	b := cat([]byte{3, 4, 0, 0, 0, 0}, be16(552), lost)
	sum := checksum(b)
	b[2], b[3] = byte(sum>>8), byte(sum)
	return datagram{dstMAC: alice.mac, srcMAC: mallory.mac, src: mallory.ip4, dst: alice.ip4, protocol: 1, payload: b}.bytes()
}

// tooBig6 is the same of IPv6's least MTU (RFC 4443, 3.2).
func tooBig6() []byte {
	lost := datagram{src: alice.ip6, dst: bob.ip6, protocol: 58, payload: icmp6(alice.ip6, bob.ip6, 129, 0, make([]byte, 12))}.bytes()[14:]
	return datagram{dstMAC: alice.mac, srcMAC: mallory.mac, src: mallory.ip6, dst: alice.ip6, protocol: 58,
		payload: icmp6(mallory.ip6, alice.ip6, 2, 0, cat(be16(0), be16(1280), lost))}.bytes()
}

// dhcpDiscover is a DHCPDISCOVER of a client.
func dhcpDiscover(client [6]byte) []byte {
	return cat([]byte{1, 1, 6, 0}, []byte("XID?"), make([]byte, 20), client[:], make([]byte, 10+64+128), []byte{99, 130, 83, 99, 53, 1, 1, 255})
}

// dhcp6Reply gives alice an address (RFC 8415, 7.3, 21.4 and 21.6).
func dhcp6Reply() []byte {
	address := cat(be16(5), be16(24), alice.ip6.AsSlice(), make([]byte, 8))
	return cat([]byte{7, 1, 2, 3}, be16(3), be16(uint16(12+len(address))), make([]byte, 12), address)
}

// dhcpOffer is a DHCPOFFER for alice that names mallory as router and
// resolver (RFC 2131, section 2; RFC 2132).
func dhcpOffer() []byte {
	b := cat([]byte{2, 1, 6, 0}, []byte("XID!"), make([]byte, 8), alice.ip4.AsSlice(), mallory.ip4.AsSlice(), make([]byte, 4),
		alice.mac[:], make([]byte, 10+64+128), []byte{99, 130, 83, 99}, []byte{53, 1, 2})
	for _, option := range []byte{54, 3, 6} { // server, router, resolver
		b = cat(b, []byte{option, 4}, mallory.ip4.AsSlice())
	}
	return cat(b, []byte{255})
}

// ndpVariants are the same lies in IPv6: neighbour discovery (RFC 4861) has no
// more proof than ARP.
func ndpVariants() []variant {
	nd := func(src, dst netip.Addr, typ uint8, body []byte) datagram {
		to := alice.mac
		if dst.IsMulticast() {
			to = groupMAC(dst)
		}
		return datagram{dstMAC: to, srcMAC: mallory.mac, src: src, dst: dst, protocol: 58, hops: 255, payload: icmp6(src, dst, typ, 0, body)}
	}
	const (
		override  = 0x20
		solicited = 0x40
		router    = 0x80
	)
	na := func(src, dst netip.Addr, flags byte, options ...[]byte) datagram {
		return nd(src, dst, 136, cat([]byte{flags, 0, 0, 0}, bob.ip6.AsSlice(), cat(options...)))
	}
	ns := func(src, dst, target netip.Addr, options ...[]byte) datagram {
		return nd(src, dst, 135, cat(make([]byte, 4), target.AsSlice(), cat(options...)))
	}
	target := func(m mac) []byte { return cat([]byte{2, 1}, m[:]) }
	source := func(m mac) []byte { return cat([]byte{1, 1}, m[:]) }
	plain := na(bob.ip6, alice.ip6, override, target(mallory.mac))
	behind := func(header uint8, ext []byte) []byte {
		d := plain
		d.protocol, d.payload = header, cat(ext, d.payload)
		return d.bytes()
	}
	low := plain
	low.hops = 64
	router1 := func(src netip.Addr, dst netip.Addr) datagram {
		prefix := cat([]byte{3, 4, 64, 0xc0}, []byte{0, 0, 7, 8}, []byte{0, 0, 3, 0x84}, make([]byte, 4), netip.MustParseAddr("fd66::").AsSlice())
		return nd(src, dst, 134, cat([]byte{64, 0, 7, 8}, make([]byte, 8), source(mallory.mac), prefix))
	}
	redirect := nd(mallory.local6, alice.ip6, 137, cat(make([]byte, 4), mallory.local6.AsSlice(), bob.ip6.AsSlice(), target(mallory.mac)))
	dad := ns(zero6, solicitedNode(alice.ip6), alice.ip6)

	return []variant{
		hostile("na_override", "an advertisement nobody asked for: bob is at mallory's address", "guard ip", poisons, plain.bytes()),
		hostile("na_all_nodes", "the same to all nodes", "guard ip", poisons, na(bob.ip6, allNodes6, override, target(mallory.mac)).bytes()),
		hostile("na_solicited", "the same, as if it had been asked for", "guard ip", poisons, na(bob.ip6, alice.ip6, override|solicited, target(mallory.mac)).bytes()),
		hostile("na_router", "the same, and bob is a router", "guard ip", poisons, na(bob.ip6, alice.ip6, override|router, target(mallory.mac)).bytes()),
		hostile("na_own_source", "the same from mallory's true address", "guard ndp", poisons, na(mallory.ip6, alice.ip6, override, target(mallory.mac)).bytes()),
		hostile("na_own_local_source", "the same from mallory's true link-local address", "guard ndp", poisons, na(mallory.local6, alice.ip6, override, target(mallory.mac)).bytes()),
		hostile("na_two_options", "two options, of which Linux believes the first", "malformed ndp", poisons, na(bob.ip6, alice.ip6, override, target(mallory.mac), target(bob.mac)).bytes()),
		hostile("na_no_option", "no address: bob is no router", "guard ip", arrives, na(bob.ip6, alice.ip6, override).bytes()),
		hostile("na_link_nobody", "mallory's own address bound to nobody's card", "guard ndp", poisons,
			nd(mallory.ip6, alice.ip6, 136, cat([]byte{override, 0, 0, 0}, mallory.ip6.AsSlice(), target(nobody.mac))).bytes()),
		hostile("na_hop_limit", "from beyond a router, so the receiver must drop it", "malformed ndp", arrives, low.bytes()),
		hostile("na_vlan0", "the advertisement behind a priority tag", "guard vlan", poisons, tagged(plain.bytes(), tag{tagQ, 0})),
		hostile("na_vlan0_ad_q", "the same behind two", "guard vlan", poisons, tagged(plain.bytes(), tag{tagAD, 0}, tag{tagQ, 0})),
		hostile("na_destination_options", "the same behind an extension header", "guard ip", poisons,
			behind(60, []byte{58, 0, 1, 4, 0, 0, 0, 0})),
		hostile("na_hop_by_hop", "the same behind another one", "guard ip", poisons,
			behind(0, []byte{58, 0, 1, 4, 0, 0, 0, 0})),
		hostile("na_atomic_fragment", "the same as the only fragment (RFC 6980)", "fragmented ndp", arrives,
			behind(44, []byte{58, 0, 0, 0, 0, 0, 0, 1})),
		hostile("ns_creates", "bob asks for alice from mallory's address", "guard ip", poisons,
			ns(bob.ip6, solicitedNode(alice.ip6), alice.ip6, source(mallory.mac)).bytes()),
		hostile("ns_unicast", "the same to alice alone", "guard ip", poisons, ns(bob.ip6, alice.ip6, alice.ip6, source(mallory.mac)).bytes()),
		hostile("ns_link_nobody", "mallory asks, to be answered at nobody's card", "guard ndp", poisons,
			ns(mallory.ip6, alice.ip6, alice.ip6, source(nobody.mac)).bytes()),
		hostile("ns_dad_alice", "a probe of alice's address, who must believe it is in use", "guard ip", arrives, dad.bytes()),
		hostile("ra_router", "mallory is the router, and fd66::/64 is here", "guard ra", reroutes, router1(mallory.local6, allNodes6).bytes()),
		hostile("ra_forged", "the same as bob", "guard ip", poisons, router1(bob.local6, allNodes6).bytes()),
		hostile("ra_unicast", "the same to alice alone", "guard ra", reroutes, router1(mallory.local6, alice.local6).bytes()),
		hostile("ra_vlan0", "the same behind a priority tag", "guard vlan", reroutes, tagged(router1(mallory.local6, allNodes6).bytes(), tag{tagQ, 0})),
		hostile("redirect", "the way to bob is through mallory", "guard ra", arrives, redirect.bytes()),
	}
}
