package frame_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"sekimori/nicshadow/frame"
)

// deepIPv6 is UDP behind hop-by-hop options, destination options and an
// atomic fragment header.
const deepIPv6 = `
	02 00 00 00 00 02 02 00 00 00 00 05 86 dd
	60 00 00 00 00 24 00 40  # payload length 36, next header hop-by-hop
	20 01 0d b8 00*11 05
	20 01 0d b8 00*11 08
	3c 00 01 04 00 00 00 00  # next: destination options; PadN
	2c 00 01 04 00 00 00 00  # next: fragment
	11 00 00 00 00 00 00 01  # next: UDP; offset 0, no more
	9c 40 00 35 00 0c 00 00 61 62 63 64
`

// ethernetHeader begins the frames; its last two bytes are the EtherType.
const ethernetHeader = "02 00 00 00 00 02 02 00 00 00 00 05 "

// ipv4 is a frame around an IPv4 packet whose header text says the rest of.
func ipv4(text string) string { return ethernetHeader + "08 00 " + text }

// ipv6 is a frame around an IPv6 packet: what follows the version.
func ipv6(text string) string { return ethernetHeader + "86 dd 60 00 00 00 " + text }

// icmp4 is a frame around an ICMP message.
func icmp4(text string) string {
	var n int
	for _, word := range strings.Fields(text) {
		if _, times, many := strings.Cut(word, "*"); many {
			k, _ := strconv.Atoi(times)
			n += k
		} else {
			n++
		}
	}
	return ipv4(fmt.Sprintf("45 00 00 %02x 00*4 40 01 00*2", 20+n) + hosts4 + text)
}

const (
	hosts4  = " 0a 00 00 05 0a 00 00 08 "
	hosts6  = " 20 01 0d b8 00*11 05 20 01 0d b8 00*11 08 "
	quote4  = " 45 00 00 20 00*4 40 11 00*2" + hosts4
	quote6  = " 60 00*3 00 08 11 40" + hosts6
	arpBody = "00 01 08 00 06 04 00 02 02 00 00 00 00 05 0a 00 00 05 02 00 00 00 00 02 0a 00 00 02"
)

// TestEvasion holds the frames that get past filters elsewhere, and those
// near them that must pass.
func TestEvasion(t *testing.T) {
	// The classes of a frame that passes, the reasons of one that does not.
	type want struct {
		reason frame.Reason
		class  frame.Class
	}
	ok := func(c frame.Class) want { return want{frame.OK, c} }
	no := func(r frame.Reason) want { return want{r, frame.ClassNone} }
	tagged := func(tags string) string { return ethernetHeader + tags + " 08 06 " + arpBody + " 00*18" }

	tests := []struct {
		name, frame string
		want        want
	}{
		// VLAN tags: CVE-2021-27853, CVE-2021-27861, VU#855201. The tag is
		// for the policy to see; what lies behind it is parsed all the same.
		{"arp reply", tagged(""), ok(frame.ClassARP)},
		{"arp behind vlan 0", tagged("81 00 00 00"), ok(frame.ClassARP)},
		{"arp behind vlan 5", tagged("81 00 00 05"), ok(frame.ClassARP)},
		{"arp behind 802.1ad vlan 0", tagged("88 a8 00 00"), ok(frame.ClassARP)},
		{"arp behind tpid 0x9100", tagged("91 00 00 00"), ok(frame.ClassARP)},
		{"arp behind two vlan 0", tagged("81 00 00 00 81 00 00 00"), ok(frame.ClassARP)},
		{"arp behind 802.1ad and 802.1q", tagged("88 a8 00 00 81 00 00 00"), ok(frame.ClassARP)},
		{"three vlan 0", tagged("81 00 00 00 81 00 00 00 81 00 00 00"), no(frame.TooManyTags)},
		{"three tags of three kinds", tagged("88 a8 00 00 91 00 00 00 81 00 00 00"), no(frame.TooManyTags)},
		{"tag cut short", ethernetHeader + "81 00 00", no(frame.Truncated)},
		{"tag without a type", ethernetHeader + "81 00 00 00", no(frame.Truncated)},

		// LLC and SNAP: CVE-2021-27854, CVE-2021-27862.
		{"snap arp, RFC 1042", ethernetHeader + "00 24 aa aa 03 00 00 00 08 06 " + arpBody, no(frame.LLC)},
		{"snap arp, bridge tunnel", ethernetHeader + "00 24 aa aa 03 00 00 f8 08 06 " + arpBody, no(frame.LLC)},
		{"snap arp, length 0", ethernetHeader + "00 00 aa aa 03 00 00 00 08 06 " + arpBody, no(frame.LLC)},
		{"snap arp, length 1535", ethernetHeader + "05 ff aa aa 03 00 00 00 08 06 " + arpBody, no(frame.LLC)},
		{"snap arp behind vlan 0", ethernetHeader + "81 00 00 00 00 24 aa aa 03 00 00 00 08 06 " + arpBody, no(frame.LLC)},
		{"bpdu", "01 80 c2 00 00 00 02 00 00 00 00 05 00 26 42 42 03 00*35", no(frame.LLC)},

		// ARP for something else than Ethernet and IPv4.
		{"arp hardware type 6", swap(t, tagged(""), "08 06 00 01", "08 06 00 06"), no(frame.MalformedARP)},
		{"arp hardware type 0", swap(t, tagged(""), "08 06 00 01", "08 06 00 00"), no(frame.MalformedARP)},
		{"arp protocol type 0", swap(t, tagged(""), "08 00 06 04", "00 00 06 04"), no(frame.MalformedARP)},
		{"arp trailer protocol", swap(t, tagged(""), "08 00 06 04", "10 00 06 04"), no(frame.MalformedARP)},
		{"arp hardware length 7", swap(t, tagged(""), "08 00 06 04", "08 00 07 04"), no(frame.MalformedARP)},
		{"arp hardware length 255", swap(t, tagged(""), "08 00 06 04", "08 00 ff 04"), no(frame.MalformedARP)},
		{"arp protocol length 16", swap(t, tagged(""), "08 00 06 04", "08 00 06 10"), no(frame.MalformedARP)},
		{"arp operation 0", swap(t, tagged(""), "06 04 00 02", "06 04 00 00"), no(frame.MalformedARP)},
		{"arp operation 3, RARP", swap(t, tagged(""), "06 04 00 02", "06 04 00 03"), no(frame.MalformedARP)},
		{"arp operation 9, InARP", swap(t, tagged(""), "06 04 00 02", "06 04 00 09"), no(frame.MalformedARP)},
		{"arp operation 0x0102", swap(t, tagged(""), "06 04 00 02", "06 04 01 02"), no(frame.MalformedARP)},
		{"arp with 19 bytes behind", tagged("") + " 00", no(frame.TrailingBytes)},
		{"tagged arp with 18 bytes behind", tagged("81 00 00 00"), ok(frame.ClassARP)},
		{"tagged arp with 19 bytes behind", tagged("81 00 00 00") + " 00", no(frame.TrailingBytes)},
		{"rarp", swap(t, tagged(""), "08 06 00 01", "80 35 00 01"), ok(frame.ClassOther)},
		{"ethertype 0x0835", swap(t, tagged(""), "08 06 00 01", "08 35 00 01"), ok(frame.ClassOther)},

		// Source addresses that bridges must not learn.
		{"broadcast source", "02 00 00 00 00 02 ff ff ff ff ff ff 08 06 " + arpBody, no(frame.GroupSource)},
		{"multicast source", "02 00 00 00 00 02 01 00 5e 00 00 01 08 06 " + arpBody, no(frame.GroupSource)},
		{"zero source", "02 00 00 00 00 02 00 00 00 00 00 00 08 06 " + arpBody, no(frame.ZeroSource)},

		// ICMP errors speak of packets to others: the quote is a field.
		{"icmp error", icmp4("03 04 00*2 00*2 02 28" + quote4), ok(frame.ClassIPv4ICMP)},
		{"icmp error without a quote", icmp4("03 04 00*6"), no(frame.MalformedICMP)},
		{"icmp error with half a quote", icmp4("03 04 00*6 45 00*18"), no(frame.MalformedICMP)},
		{"icmp error that quotes ipv6", icmp4("0b 00 00*6 65 00*19"), no(frame.MalformedICMP)},
		{"icmp error about nobody", icmp4("0c 00 00*6 45 00*19"), no(frame.MalformedICMP)},
		{"icmp error in a first fragment", ipv4("45 00 00 3c 00 01 20 00 40 01 00 00" + hosts4 + "03 04 00*6" + quote4 + "00*12"), no(frame.MalformedICMP)},
		{"icmpv6 error", ipv6("00 30 3a 40" + hosts6 + "02 00 00*4 05 00" + quote6), ok(frame.ClassIPv6ICMP)},
		{"icmpv6 error without a quote", ipv6("00 08 3a 40" + hosts6 + "02 00 00*6"), no(frame.MalformedICMP)},
		{"icmpv6 error of 4 bytes", ipv6("00 04 3a 40" + hosts6 + "7f 00 00*2"), no(frame.MalformedICMP)},
		{"icmpv6 error about nobody", ipv6("00 30 3a 40" + hosts6 + "02 00 00*4 05 00 60 00*39"), no(frame.MalformedICMP)},
		{"icmpv6 error in a first fragment", ipv6("00 38 2c 40" + hosts6 + "3a 00 00 01 00 00 00 01 02 00 00*4 05 00" + quote6), no(frame.MalformedICMP)},

		// IPv4 headers.
		{"ipv4 version 5", ipv4("55 00 00 1c 00 00 00 00 40 11 00 00" + hosts4 + "00 01 00 02 00 08 00 00"), no(frame.MalformedIPv4)},
		{"ipv4 header length 4", ipv4("44 00 00 1c 00 00 00 00 40 11 00 00" + hosts4 + "00 01 00 02 00 08 00 00"), no(frame.MalformedIPv4)},
		{"ipv4 header longer than packet", ipv4("4f 00 00 1c 00 00 00 00 40 11 00 00" + hosts4 + "00 01 00 02 00 08 00 00"), no(frame.MalformedIPv4)},
		{"ipv4 total length below header", ipv4("45 00 00 13 00 00 00 00 40 11 00 00" + hosts4 + "00 01 00 02 00 08 00 00"), no(frame.MalformedIPv4)},
		{"ipv4 total length behind frame", ipv4("45 00 00 1d 00 00 00 00 40 11 00 00" + hosts4 + "00 01 00 02 00 08 00 00"), no(frame.MalformedIPv4)},
		{"ipv4 padded to 60", ipv4("45 00 00 1c 00 00 00 00 40 11 00 00" + hosts4 + "00 01 00 02 00 08 00 00 00*18"), ok(frame.ClassIPv4UDP)},
		{"ipv4 with bytes behind", ipv4("45 00 00 1c 00 00 00 00 40 11 00 00" + hosts4 + "00 01 00 02 00 08 00 00 00*19"), no(frame.TrailingBytes)},
		{"ipv4 reserved flag", ipv4("45 00 00 1c 00 00 80 00 40 11 00 00" + hosts4 + "00 01 00 02 00 08 00 00"), no(frame.MalformedIPv4)},
		{"ipv4 router alert", ipv4("46 00 00 20 00 00 00 00 01 02 00 00" + hosts4 + "94 04 00 00 16 00 00 00 00*4"), ok(frame.ClassIPv4Other)},
		{"ipv4 options, no-ops and end", ipv4("46 00 00 20 00 00 00 00 40 11 00 00" + hosts4 + "01 01 00 ff 00 01 00 02 00 08 00 00"), ok(frame.ClassIPv4UDP)},
		{"ipv4 loose source route", ipv4("47 00 00 24 00 00 00 00 40 11 00 00" + hosts4 + "83 07 04 0a 00 00 09 00 00 01 00 02 00 08 00 00"), no(frame.SourceRoute)},
		{"ipv4 strict source route behind a no-op", ipv4("47 00 00 24 00 00 00 00 40 11 00 00" + hosts4 + "01 89 07 04 0a 00 00 09 00 01 00 02 00 08 00 00"), no(frame.SourceRoute)},
		{"ipv4 option of length 0", ipv4("46 00 00 20 00 00 00 00 40 11 00 00" + hosts4 + "07 00 00 00 00 01 00 02 00 08 00 00"), no(frame.MalformedIPv4)},
		{"ipv4 option behind header", ipv4("46 00 00 20 00 00 00 00 40 11 00 00" + hosts4 + "07 05 00 00 00 01 00 02 00 08 00 00"), no(frame.MalformedIPv4)},
		{"ipv4 option cut short", ipv4("46 00 00 20 00 00 00 00 40 11 00 00" + hosts4 + "01 01 01 07 00 01 00 02 00 08 00 00"), no(frame.MalformedIPv4)},

		// Fragments: RFC 1858, RFC 3128.
		{"first fragment", ipv4("45 00 00 24 00 01 20 00 40 11 00 00" + hosts4 + "00 01 00 02 00 64 00 00 00*8"), ok(frame.ClassIPv4UDP)},
		{"first fragment of 9 bytes", ipv4("45 00 00 1d 00 01 20 00 40 11 00 00" + hosts4 + "00 01 00 02 00 64 00 00 00"), no(frame.MalformedIPv4)},
		{"tiny first fragment", ipv4("45 00 00 1c 00 01 20 00 40 06 00 00" + hosts4 + "00 01 00 02 00 00 00 00"), no(frame.TruncatedHeaders)},
		{"first fragment without the tcp options", ipv4("45 00 00 2c 00 01 20 00 40 06 00 00" + hosts4 + "00 01 00 02 00*8 70 02 00*10"), no(frame.TruncatedHeaders)},
		{"fragment at offset 1", ipv4("45 00 00 24 00 01 00 01 40 06 00 00" + hosts4 + "00*16"), no(frame.FragmentOverlap)},
		{"fragment at offset 2", ipv4("45 00 00 24 00 01 20 02 40 06 00 00" + hosts4 + "00*16"), no(frame.FragmentOverlap)},
		{"fragment at offset 3", ipv4("45 00 00 24 00 01 20 03 40 06 00 00" + hosts4 + "00*16"), ok(frame.ClassIPv4Fragment)},
		{"last fragment", ipv4("45 00 00 17 00 01 00 b9 40 06 00 00" + hosts4 + "00*3"), ok(frame.ClassIPv4Fragment)},
		{"fragment behind 65535", ipv4("45 00 00 24 00 01 1f ff 40 11 00 00" + hosts4 + "00*16"), no(frame.MalformedIPv4)},
		{"empty fragment", ipv4("45 00 00 14 00 01 20 00 40 11 00 00" + hosts4), no(frame.MalformedIPv4)},

		// Transport headers.
		{"tcp data offset 4", strings.Replace(ipv4TCP, "60 02 fa f0", "40 02 fa f0", 1), no(frame.MalformedTCP)},
		{"tcp data offset behind segment", strings.Replace(ipv4TCP, "60 02 fa f0", "70 02 fa f0", 1), no(frame.TruncatedHeaders)},
		{"udp length 7", strings.Replace(ipv4UDP, "00 0c 00 00", "00 07 00 00", 1), no(frame.MalformedUDP)},
		{"udp longer than packet", strings.Replace(ipv4UDP, "00 0c 00 00", "00 0d 00 00", 1), no(frame.MalformedUDP)},
		{"udp shorter than packet", strings.Replace(ipv4UDP, "00 0c 00 00", "00 0b 00 00", 1), no(frame.MalformedUDP)},
		{"icmp of 7 bytes", ipv4("45 00 00 1b 00 00 00 00 40 01 00 00" + hosts4 + "08 00 00 00 00 00 00"), no(frame.TruncatedHeaders)},
		{"4in6's inner packet is not looked at", ipv4("45 00 00 18 00 00 00 00 40 04 00 00" + hosts4 + "45 00 00 00"), ok(frame.ClassIPv4Other)},
		{"icmpv6 over ipv4", ipv4("45 00 00 1c 00 00 00 00 ff 3a 00 00" + hosts4 + "88 00 00 00 00*4"), ok(frame.ClassIPv4Other)},

		// IPv6 headers.
		{"ipv6 version 4", ethernetHeader + "86 dd 40 00 00 00 00 00 3b 40" + hosts6, no(frame.MalformedIPv6)},
		{"ipv6 payload behind frame", ipv6("00 09 11 40" + hosts6 + "00 01 00 02 00 09 00 00"), no(frame.MalformedIPv6)},
		{"ipv6 with bytes behind", ipv6("00 08 11 40" + hosts6 + "00 01 00 02 00 08 00 00 00"), no(frame.TrailingBytes)},
		{"ipv6 no next header", ipv6("00 00 3b 40" + hosts6), ok(frame.ClassIPv6Other)},
		{"jumbogram", ipv6("00 00 00 40" + hosts6 + "11 00 c2 04 00 01 00 08 00 01 00 02 00 00 00 00"), no(frame.TrailingBytes)},
		{"ipv6 authentication header", ipv6("00 0c 33 40" + hosts6 + "11 01 00 00 00*8"), ok(frame.ClassIPv6Other)},
		{"deep chain", deepIPv6, ok(frame.ClassIPv6UDP)},
		{"hop-by-hop not first", ipv6("00 18 3c 40" + hosts6 + "00 00 01 04 00*4 11 00 01 04 00*4 00 01 00 02 00 08 00 00"), no(frame.MalformedIPv6)},
		{"routing type 0", ipv6("00 10 2b 40" + hosts6 + "11 00 00 00 00*4 00 01 00 02 00 08 00 00"), no(frame.SourceRoute)},
		{"routing type 4", ipv6("00 10 2b 40" + hosts6 + "11 00 04 00 00*4 00 01 00 02 00 08 00 00"), ok(frame.ClassIPv6UDP)},
		{"routing type 4, segments left", ipv6("00 10 2b 40" + hosts6 + "11 00 04 01 00*4 00 01 00 02 00 08 00 00"), no(frame.SourceRoute)},
		{"extension header behind packet", ipv6("00 10 3c 40" + hosts6 + "11 01 01 04 00*4 00 01 00 02 00 08 00 00"), no(frame.TruncatedHeaders)},
		{"eight extension headers", ipv6("00 40 3c 40" + hosts6 + strings.Repeat("3c 00 01 04 00*4 ", 8)), no(frame.ExtensionHeaders)},
		{"chain cut", ipv6("00 04 3c 40" + hosts6 + "11 00 01 04"), no(frame.TruncatedHeaders)},

		// IPv6 fragments: RFC 7112, RFC 8200.
		{"ipv6 first fragment", ipv6("00 18 2c 40" + hosts6 + "11 00 00 01 00 00 00 01 00 01 00 02 00 64 00 00 00*8"), ok(frame.ClassIPv6UDP)},
		{"ipv6 later fragment", ipv6("00 18 2c 40" + hosts6 + "11 00 05 00 00 00 00 01 00*16"), ok(frame.ClassIPv6Fragment)},
		{"ipv6 fragment over the header", ipv6("00 18 2c 40" + hosts6 + "06 00 00 08 00 00 00 01 00*16"), no(frame.FragmentOverlap)},
		{"ipv6 chain cut by fragment", ipv6("00 10 2c 40" + hosts6 + "3c 00 00 01 00 00 00 01 3a 01 01 04 00*4"), no(frame.TruncatedHeaders)},
		{"ipv6 two fragment headers", ipv6("00 18 2c 40" + hosts6 + "2c 00 00 00 00 00 00 01 11 00 00 00 00 00 00 02 00 01 00 02 00 08 00 00"), no(frame.MalformedIPv6)},
		{"ipv6 fragment of 9 bytes", ipv6("00 11 2c 40" + hosts6 + "11 00 00 01 00 00 00 01 00 01 00 02 00 64 00 00 00"), no(frame.MalformedIPv6)},
		{"ipv6 fragment with reserved bits", ipv6("00 18 2c 40" + hosts6 + "11 00 05 04 00 00 00 01 00*16"), no(frame.MalformedIPv6)},
		{"ipv6 fragment with a reserved byte", ipv6("00 18 2c 40" + hosts6 + "11 01 05 00 00 00 00 01 00*16"), no(frame.MalformedIPv6)},
		{"ipv6 fragment behind 65535", ipv6("00 18 2c 40" + hosts6 + "11 00 ff f8 00 00 00 01 00*16"), no(frame.MalformedIPv6)},

		// Neighbour discovery: RFC 4861, RFC 6980.
		{"ns with hop limit 254", swap(t, neighbourSolicitation, "3a ff", "3a fe"), no(frame.MalformedNDP)},
		{"ns with code 1", swap(t, neighbourSolicitation, "87 00", "87 01"), no(frame.MalformedNDP)},
		{"ns for a group", swap(t, neighbourSolicitation, "20 01 0d b8 00*11 08", "ff 02 00*13 01"), no(frame.MalformedNDP)},
		{"ns with an option of length 0", swap(t, neighbourSolicitation, "01 01 02", "01 00 02"), no(frame.MalformedNDP)},
		{"ns with an option behind the message", swap(t, neighbourSolicitation, "01 01 02", "01 02 02"), no(frame.MalformedNDP)},
		{"ns with the target's option", swap(t, neighbourSolicitation, "01 01 02", "02 01 02"), no(frame.MalformedNDP)},
		{"ns with a nonce", swap(t, neighbourSolicitation, "01 01 02", "0e 01 02"), ok(frame.ClassIPv6NDP)},
		{"ns with two addresses", swap(t, swap(t, neighbourSolicitation, "00 20 3a", "00 28 3a"),
			"01 01 02 00 00 00 00 05", "01 01 02 00 00 00 00 05 01 01 02 00 00 00 00 06"), no(frame.MalformedNDP)},
		{"probe of the own address", `33 33 ff 00 00 05 02 00 00 00 00 05 86 dd 60 00 00 00 00 18 3a ff
			00*16 ff 02 00*9 01 ff 00 00 05 87 00 00 00 00*4 20 01 0d b8 00*11 05`, ok(frame.ClassIPv6NDP)},
		{"probe to another group", `33 33 00 00 00 01 02 00 00 00 00 05 86 dd 60 00 00 00 00 18 3a ff
			00*16 ff 02 00*13 01 87 00 00 00 00*4 20 01 0d b8 00*11 05`, no(frame.MalformedNDP)},
		{"probe with an address option", swap(t, neighbourSolicitation, "20 01 0d b8 00*11 05", "00*16"), no(frame.MalformedNDP)},
		{"na, solicited, to a group", swap(t, neighbourAdvertisement, "20 01 0d b8 00*11 08", "ff 02 00*13 01"), no(frame.MalformedNDP)},
		{"ra from no link-local address", swap(t, routerAdvertisement, "fe 80", "20 01"), no(frame.MalformedNDP)},
		{"ra cut short", swap(t, swap(t, routerAdvertisement, "00 18 3a", "00 0c 3a"), "00*8\n\t\t01 01 02 00 00 00 00 05", "00*4"), no(frame.MalformedNDP)},
		{"rs", ipv6("00 10 3a ff fe 80 00*13 05 ff 02 00*13 02 85 00 00 00 00*4 01 01 02 00 00 00 00 05"), ok(frame.ClassIPv6NDP)},
		{"rs from nobody", ipv6("00 08 3a ff 00*16 ff 02 00*13 02 85 00 00 00 00*4"), ok(frame.ClassIPv6NDP)},
		{"rs from nobody with an address option", ipv6("00 10 3a ff 00*16 ff 02 00*13 02 85 00 00 00 00*4 01 01 02 00 00 00 00 05"), no(frame.MalformedNDP)},
		{"redirect", ipv6("00 28 3a ff fe 80 00*13 05 20 01 0d b8 00*11 08 89 00 00*6 fe 80 00*13 06 20 01 0d b8 00*11 09"), ok(frame.ClassIPv6NDP)},
		{"redirect of a group", ipv6("00 28 3a ff fe 80 00*13 05 20 01 0d b8 00*11 08 89 00 00*6 fe 80 00*13 06 ff 02 00*13 09"), no(frame.MalformedNDP)},
		{"redirect from no link-local address", ipv6("00 28 3a ff 20 01 00*13 05 20 01 0d b8 00*11 08 89 00 00*6 fe 80 00*13 06 20 01 0d b8 00*11 09"), no(frame.MalformedNDP)},
		{"na behind destination options", ipv6("00 28 3c ff" + hosts6 +
			"3a 00 01 04 00*4 88 00 00 00 60 00*3 20 01 0d b8 00*11 05 02 01 02 00 00 00 00 05"), ok(frame.ClassIPv6NDP)},
		{"na in an atomic fragment", ipv6("00 28 2c ff" + hosts6 +
			"3a 00 00 00 00*4 88 00 00 00 60 00*3 20 01 0d b8 00*11 05 02 01 02 00 00 00 00 05"), no(frame.FragmentedNDP)},
		{"na in a first fragment", ipv6("00 28 2c ff" + hosts6 +
			"3a 00 00 01 00*4 88 00 00 00 60 00*3 20 01 0d b8 00*11 05 02 01 02 00 00 00 00 05"), no(frame.FragmentedNDP)},
		{"echo request over ipv6", ipv6("00 08 3a 40" + hosts6 + "80 00 00 00 00*4"), ok(frame.ClassIPv6ICMP)},
		{"icmpv6 of 3 bytes", ipv6("00 03 3a 40" + hosts6 + "80 00 00"), no(frame.TruncatedHeaders)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, r := parse(t, tt.frame)
			if r != tt.want.reason || k.Class() != tt.want.class {
				t.Errorf("Parse = %v, class %v; want %v, %v", r, k.Class(), tt.want.reason, tt.want.class)
			}
		})
	}
}

// The tag that a policy sees is the outer one, the type that of the payload.
func TestTagFields(t *testing.T) {
	k, r := parse(t, ethernetHeader+"88 a8 e0 07 81 00 00 09 08 06 "+arpBody)
	if r != frame.OK {
		t.Fatal(r)
	}
	if k.Uint(frame.VLAN) != 7 || k.Uint(frame.VLANTags) != 2 || k.Uint(frame.EtherType) != 0x0806 {
		t.Errorf("vlan %d, tags %d, type %#x", k.Uint(frame.VLAN), k.Uint(frame.VLANTags), k.Uint(frame.EtherType))
	}
}

// All fragments are marked, and atomic ones.
func TestFragmentFlag(t *testing.T) {
	for text, want := range map[string]uint64{
		ipv4TCP:  0,
		ipv6TCP:  0,
		deepIPv6: 1,
		ipv4("45 00 00 24 00 01 20 00 40 11 00 00" + hosts4 + "00 01 00 02 00 64 00 00 00*8"): 1,
		ipv4("45 00 00 24 00 01 20 03 40 06 00 00" + hosts4 + "00*16"):                        1,
	} {
		k, r := parse(t, text)
		if r != frame.OK || k.Uint(frame.IPFragment) != want {
			t.Errorf("%s: %v, fragment %d, want %d", text, r, k.Uint(frame.IPFragment), want)
		}
	}
}
