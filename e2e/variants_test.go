package e2e_test

import (
	"net/netip"
	"testing"
)

// An effect is what a frame does over an unprotected bridge.
type effect int

// The effects, from the least to the most that is seen.
const (
	harmless effect = iota // does not even get to alice
	arrives                // alice receives it
	moves                  // the forwarding table says bob is at mallory's port
	reroutes               // alice's routing table has changed
	poisons                // a neighbour table binds an address to a wrong card
)

func (e effect) String() string {
	return [...]string{"harmless", "arrives", "moves", "reroutes", "poisons"}[e]
}

// A variant is one frame that mallory sends, byte by byte.
type variant struct {
	name    string
	hostile bool
	would   string // what it says or would do
	// reason is the one named reason for which the product drops it.
	reason string
	// control is what it does where nothing protects alice, measured.
	control effect
	frame   []byte
}

func hostile(name, would, reason string, control effect, frame []byte) variant {
	return variant{name, true, would, reason, control, frame}
}

func honest(name, would string, frame []byte) variant {
	return variant{name: name, would: would, control: arrives, frame: frame}
}

// secretPort is where alice listens; a marker sent there follows each frame.
const secretPort = 4001

// honestVariants are what mallory's kernel sends in an honest day. Strict
// filters drop some: libvirt's clean-traffic the probe of RFC 5227 and all of
// IPv6.
func honestVariants() []variant {
	body := func(op uint16, spa, tpa netip.Addr, tha mac) []byte {
		return arpBody{op: op, sha: mallory.mac, spa: spa, tha: tha, tpa: tpa}.bytes()
	}
	ask := body(arpRequest, mallory.ip4, alice.ip4, mac{})
	echo := cat([]byte{8, 0, 0, 0}, be16(1), be16(1), []byte("are you there?"))
	sum := checksum(echo)
	echo[2], echo[3] = byte(sum>>8), byte(sum)
	v6 := func(dst netip.Addr, typ uint8, body []byte) []byte {
		to := alice.mac
		if dst.IsMulticast() {
			to = groupMAC(dst)
		}
		return datagram{dstMAC: to, srcMAC: mallory.mac, src: mallory.ip6, dst: dst, protocol: 58, hops: 255,
			payload: icmp6(mallory.ip6, dst, typ, 0, body)}.bytes()
	}
	link := func(kind byte) []byte { return cat([]byte{kind, 1}, mallory.mac[:]) }
	probe6 := datagram{dstMAC: groupMAC(solicitedNode(mallory.ip6)), srcMAC: mallory.mac, src: zero6, dst: solicitedNode(mallory.ip6),
		protocol: 58, hops: 255, payload: icmp6(zero6, solicitedNode(mallory.ip6), 135, 0, cat(make([]byte, 4), mallory.ip6.AsSlice()))}

	return []variant{
		honest("ask", "who has alice's address", ether(broadcast, mallory.mac, etherARP, ask)),
		honest("ask_padded", "the same, padded to the least length of Ethernet", cat(ether(broadcast, mallory.mac, etherARP, ask), make([]byte, 18))),
		honest("ask_unicast", "is alice still there", ether(alice.mac, mallory.mac, etherARP, ask)),
		honest("answer", "mallory is at mallory's address", ether(alice.mac, mallory.mac, etherARP, body(arpReply, mallory.ip4, alice.ip4, alice.mac))),
		honest("announce", "the same to everybody (RFC 5227, 2.3)", ether(broadcast, mallory.mac, etherARP, body(arpRequest, mallory.ip4, mallory.ip4, mac{}))),
		honest("announce_reply", "the same as an answer", ether(broadcast, mallory.mac, etherARP, body(arpReply, mallory.ip4, mallory.ip4, broadcast))),
		honest("probe_own", "is mallory's own address free (RFC 5227, 2.1)", ether(broadcast, mallory.mac, etherARP, body(arpRequest, zero4, mallory.ip4, mac{}))),
		honest("ping", "an echo request", datagram{dstMAC: alice.mac, srcMAC: mallory.mac, src: mallory.ip4, dst: alice.ip4, protocol: 1, payload: echo}.bytes()),
		honest("solicit", "an IPv6 solicitation", v6(solicitedNode(alice.ip6), 135, cat(make([]byte, 4), alice.ip6.AsSlice(), link(1)))),
		honest("advertise", "an IPv6 advertisement", v6(alice.ip6, 136, cat([]byte{0x60, 0, 0, 0}, mallory.ip6.AsSlice(), link(2)))),
		honest("probe6_own", "is mallory's own IPv6 address free (RFC 4862, 5.4.2)", probe6.bytes()),
		honest("ping6", "an IPv6 echo request", v6(alice.ip6, 128, cat(be16(1), be16(1), []byte("are you there?")))),
	}
}

func allVariants() []variant {
	v := arpVariants()
	v = append(v, ipVariants()...)
	v = append(v, ndpVariants()...)
	return append(v, honestVariants()...)
}

// TestVariants checks the table itself: a name and a purpose each, no name and
// no frame twice, every class there.
func TestVariants(t *testing.T) {
	names, frames := map[string]bool{}, map[string]string{}
	count := map[bool]int{}
	for _, v := range allVariants() {
		if names[v.name] || v.name == "" || v.would == "" {
			t.Errorf("%q: no name or purpose, or the name is taken", v.name)
		}
		if other, ok := frames[string(v.frame)]; ok {
			t.Errorf("%s sends the frame of %s", v.name, other)
		}
		if v.hostile == (v.reason == "") {
			t.Errorf("%s: hostile %v with reason %q", v.name, v.hostile, v.reason)
		}
		names[v.name], frames[string(v.frame)] = true, v.name
		count[v.hostile]++
	}
	if count[true] < 53 || count[false] < 6 {
		t.Errorf("%d hostile and %d honest variants, want 53 and 6 at least", count[true], count[false])
	}
}
