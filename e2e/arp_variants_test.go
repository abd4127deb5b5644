package e2e_test

// arpVariants are the lies told in ARP. Unless a variant says otherwise they
// claim to alice that bob is at mallory's address.
func arpVariants() []variant {
	claim := arpBody{op: arpReply, sha: mallory.mac, spa: bob.ip4, tha: alice.mac, tpa: alice.ip4}
	ask := arpBody{op: arpRequest, sha: mallory.mac, spa: bob.ip4, tpa: alice.ip4}
	forged := arp(alice.mac, mallory.mac, claim)
	asked := arp(alice.mac, mallory.mac, ask)
	with := func(change func(*arpBody)) []byte {
		b := claim
		change(&b)
		return arp(alice.mac, mallory.mac, b)
	}

	v := []variant{
		hostile("reply", "what arpspoof sends: an answer nobody asked for", "guard arp", poisons, forged),
		hostile("reply_broadcast", "the same to all stations", "guard arp", poisons, arp(broadcast, mallory.mac, claim)),
		hostile("reply_multicast", "the same to a multicast group", "guard arp", poisons, arp(allHosts4, mallory.mac, claim)),
		hostile("gratuitous_request", "bob announces himself at mallory's address", "guard arp", poisons,
			arp(broadcast, mallory.mac, arpBody{op: arpRequest, sha: mallory.mac, spa: bob.ip4, tpa: bob.ip4})),
		hostile("gratuitous_reply", "the same as an answer", "guard arp", poisons,
			arp(broadcast, mallory.mac, arpBody{op: arpReply, sha: mallory.mac, spa: bob.ip4, tha: broadcast, tpa: bob.ip4})),
		hostile("gratuitous_unicast", "the same to alice alone", "guard arp", poisons,
			arp(alice.mac, mallory.mac, arpBody{op: arpRequest, sha: mallory.mac, spa: bob.ip4, tpa: bob.ip4})),
		hostile("request_broadcast", "bob asks for alice from mallory's address: a request fills the table too", "guard arp", poisons,
			arp(broadcast, mallory.mac, ask)),
		hostile("request_unicast", "the same to alice alone", "guard arp", poisons, asked),
		hostile("request_creates", "an entry for a station that alice never asked for", "guard arp", poisons,
			arp(alice.mac, mallory.mac, arpBody{op: arpRequest, sha: mallory.mac, spa: nobody.ip4, tpa: alice.ip4})),
		hostile("request_for_bob", "bob asks for himself at a third station", "guard arp", poisons,
			arp(broadcast, mallory.mac, arpBody{op: arpRequest, sha: mallory.mac, spa: bob.ip4, tpa: nobody.ip4})),
		hostile("probe_alice", "a probe of alice's address, who must believe it is in use (RFC 5227)", "guard arp", arrives,
			arp(broadcast, mallory.mac, arpBody{op: arpRequest, sha: mallory.mac, spa: zero4, tpa: alice.ip4})),
		hostile("probe_bob", "a probe of bob's address", "guard arp", arrives,
			arp(broadcast, mallory.mac, arpBody{op: arpRequest, sha: mallory.mac, spa: zero4, tpa: bob.ip4})),
		hostile("claims_alice", "alice's own address claimed to alice: a conflict she must give way to", "guard arp", arrives,
			arp(alice.mac, mallory.mac, arpBody{op: arpReply, sha: mallory.mac, spa: alice.ip4, tha: alice.mac, tpa: alice.ip4})),
		hostile("claims_alice_broadcast", "alice's address claimed to everybody", "guard arp", poisons,
			arp(broadcast, mallory.mac, arpBody{op: arpRequest, sha: mallory.mac, spa: alice.ip4, tpa: alice.ip4})),
		hostile("ether_source_unlike_sender", "eth.src is nobody's, the body claims bob", "guard mac", poisons,
			arp(alice.mac, nobody.mac, claim)),
		hostile("sender_unlike_ether_source", "eth.src is mallory's own, the body sends bob's traffic to nobody", "guard mac", poisons,
			with(func(b *arpBody) { b.sha = nobody.mac })),
		hostile("sender_is_bob", "mallory's own address bound to bob's card", "guard mac", poisons,
			with(func(b *arpBody) { b.sha, b.spa = bob.mac, mallory.ip4 })),
		hostile("sender_broadcast", "bob's traffic goes to everybody", "guard mac", poisons, with(func(b *arpBody) { b.sha = broadcast })),
		hostile("sender_multicast", "bob's traffic goes to a group", "guard mac", poisons, with(func(b *arpBody) { b.sha = allHosts4 })),
		hostile("sender_zero", "bob's traffic goes nowhere", "guard mac", poisons, with(func(b *arpBody) { b.sha = mac{} })),
		hostile("sender_ip_broadcast", "a claim to the broadcast address", "guard arp", arrives, with(func(b *arpBody) { b.spa = netip4(255, 255, 255, 255) })),
		hostile("mac_theft", "alice hears the truth about bob, but the switch learns bob at mallory's port", "guard mac", moves,
			arp(alice.mac, bob.mac, arpBody{op: arpReply, sha: bob.mac, spa: bob.ip4, tha: alice.mac, tpa: alice.ip4})),
	}
	v = append(v, tagVariants(asked)...)
	v = append(v, snapVariants(forged)...)
	return append(v, headerVariants(with, forged)...)
}

// tagVariants hide asked behind VLAN tags. Linux strips any number of tags
// with VID 0 before it looks at the EtherType (CVE-2021-27853), so a rule
// about ARP sees none.
func tagVariants(asked []byte) []variant {
	q, ad := tag{tagQ, 0}, tag{tagAD, 0}
	type t = []tag
	var v []variant
	for _, c := range []struct {
		name   string
		would  string
		reason string
		effect effect
		tags   []tag
	}{
		{"vlan0_q", "one priority tag", "guard vlan", poisons, t{q}},
		{"vlan0_q_pcp7", "one priority tag that has a priority", "guard vlan", poisons, t{{tagQ, 7 << 13}}},
		{"vlan0_q_dei", "one priority tag, drop eligible", "guard vlan", poisons, t{{tagQ, 1 << 12}}},
		{"vlan0_ad", "one service tag", "guard vlan", poisons, t{ad}},
		{"vlan0_q_q", "two", "guard vlan", poisons, t{q, q}},
		{"vlan0_ad_q", "two, in the order of the standard", "guard vlan", poisons, t{ad, q}},
		{"vlan0_q_ad", "two, in the other order", "guard vlan", poisons, t{q, ad}},
		{"vlan0_ad_ad", "two service tags", "guard vlan", poisons, t{ad, ad}},
		{"vlan0_q_q_q", "three", "too many vlan tags", poisons, t{q, q, q}},
		{"vlan0_ad_q_q", "three, mixed", "too many vlan tags", poisons, t{ad, q, q}},
		{"vlan0_ad_ad_q", "three, mixed", "too many vlan tags", poisons, t{ad, ad, q}},
		{"vlan1_q", "the usual default VLAN", "guard vlan", arrives, t{{tagQ, 1}}},
		{"vlan100_ad", "a provider's VLAN", "guard vlan", arrives, t{{tagAD, 100}}},
		{"vlan4095_q", "the reserved VLAN", "guard vlan", arrives, t{{tagQ, 4095}}},
		{"vlan0_q_vlan100_q", "priority tag, then a VLAN", "guard vlan", arrives, t{q, {tagQ, 100}}},
		{"tpid_9100", "the tag of before the standard", "guard vlan", arrives, t{{tagOld, 0}}},
		{"tpid_9100_q", "and a priority tag inside", "guard vlan", arrives, t{{tagOld, 0}, q}},
	} {
		v = append(v, hostile(c.name, "the request that poisons, behind "+c.would, c.reason, c.effect, tagged(asked, c.tags...)))
	}
	return v
}

// snapVariants carry forged in 802.3 frames. Linux itself does not read ARP
// there, other stacks do (CVE-2021-27862).
func snapVariants(forged []byte) []variant {
	rfc1042, bridgeTunnel := [3]byte{}, [3]byte{0, 0, 0xf8}
	return []variant{
		hostile("snap_rfc1042", "the answer in LLC/SNAP", "llc frame", arrives, snap(forged, rfc1042, 0)),
		hostile("snap_bridge_tunnel", "the same with the OUI of 802.1H", "llc frame", arrives, snap(forged, bridgeTunnel, 0)),
		hostile("snap_length_long", "the same, its length beyond the end", "llc frame", arrives, snap(forged, rfc1042, 100)),
		hostile("snap_length_short", "the same, its length too small", "llc frame", arrives, snap(forged, rfc1042, -20)),
		hostile("snap_length_zero", "the same, its length nought", "llc frame", arrives, snap(forged, rfc1042, -(8+28))),
		hostile("snap_vlan0", "the same behind a priority tag", "llc frame", arrives, tagged(snap(forged, rfc1042, 0), tag{tagQ, 0})),
		hostile("stp_bpdu", "a spanning tree BPDU: mallory offers to be the root bridge", "llc frame", arrives,
			cat([]byte{0x01, 0x80, 0xc2, 0, 0, 0}, mallory.mac[:], be16(38), []byte{0x42, 0x42, 3}, make([]byte, 35))),
	}
}

// headerVariants are ARP with a header that is not that of IPv4 over Ethernet,
// and frames shorter or longer than they say. Some stacks read them all the
// same: Linux takes hardware type 6 for 1.
func headerVariants(with func(func(*arpBody)) []byte, forged []byte) []variant {
	rarp := func(etherType, op uint16) []byte {
		b := with(func(b *arpBody) { b.op = op })
		return cat(b[:12], be16(etherType), b[14:])
	}
	htype0 := cat(forged)
	htype0[15] = 0
	truth := arp(alice.mac, mallory.mac, arpBody{op: arpReply, sha: mallory.mac, spa: mallory.ip4, tha: alice.mac, tpa: alice.ip4})
	return []variant{
		hostile("htype_0", "hardware type 0", "malformed arp", arrives, htype0),
		hostile("htype_6", "hardware type 6, IEEE 802, which Linux takes for Ethernet", "malformed arp", poisons, with(func(b *arpBody) { b.htype = 6 })),
		hostile("htype_24", "hardware type 24, IEEE 1394", "malformed arp", arrives, with(func(b *arpBody) { b.htype = 24 })),
		hostile("hlen_8", "hardware addresses said to be 8 long", "malformed arp", arrives, with(func(b *arpBody) { b.hlen = 8 })),
		hostile("hlen_255", "hardware addresses beyond the end", "malformed arp", arrives, with(func(b *arpBody) { b.hlen = 255 })),
		hostile("plen_16", "protocol addresses said to be 16 long", "malformed arp", arrives, with(func(b *arpBody) { b.plen = 16 })),
		hostile("ptype_ipv6", "protocol type IPv6", "malformed arp", arrives, with(func(b *arpBody) { b.ptype = etherIPv6 })),
		hostile("ptype_arp", "protocol type ARP", "malformed arp", arrives, with(func(b *arpBody) { b.ptype = etherARP })),
		hostile("op_0", "opcode 0", "malformed arp", arrives, with(func(b *arpBody) { b.op = 0 })),
		hostile("op_4", "opcode 4, an answer of RARP", "malformed arp", arrives, with(func(b *arpBody) { b.op = 4 })),
		hostile("op_9", "opcode 9, an answer of InARP", "malformed arp", arrives, with(func(b *arpBody) { b.op = 9 })),
		hostile("op_512", "opcode 2 in the wrong byte order", "malformed arp", arrives, with(func(b *arpBody) { b.op = 512 })),
		hostile("rarp_reply", "a RARP answer", "unspoken ethertype", arrives, rarp(etherRARP, 4)),
		hostile("rarp_request", "a RARP request", "unspoken ethertype", arrives, rarp(etherRARP, 3)),
		hostile("ethertype_0835", "ARP under the EtherType that libvirt lets out with any content", "unspoken ethertype", arrives, rarp(0x0835, 2)),
		hostile("truncated_body", "ARP that ends before its target address", "malformed arp", arrives, forged[:len(forged)-4]),
		hostile("truncated_header", "ARP that ends in its fixed part", "malformed arp", harmless, forged[:14+6]),
		hostile("truncated_ethernet", "an Ethernet header and nothing", "malformed arp", harmless, forged[:14]),
		hostile("trailer_long", "the answer with 1400 bytes behind it", "trailing bytes", poisons, cat(forged, make([]byte, 1400))),
		hostile("trailer_covert", "a true answer that carries 1400 bytes out", "trailing bytes", arrives, cat(truth, make([]byte, 1400))),
	}
}
