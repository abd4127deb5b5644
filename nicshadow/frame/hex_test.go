package frame_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"sekimori/nicshadow/frame"
)

// unhex reads frames written as hexadecimal, with a comment behind # on each
// line and padding written as 00*N.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	var out []byte
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for _, word := range strings.Fields(line) {
			word, times, many := strings.Cut(word, "*")
			n := 1
			if many {
				n = 0
				for _, c := range times {
					n = n*10 + int(c-'0')
				}
			}
			b, err := hex.DecodeString(word)
			if err != nil {
				t.Fatalf("%q: %v", word, err)
			}
			for range n {
				out = append(out, b...)
			}
		}
	}
	return out
}

// The frames that the tests begin from: one a class, each as a host would
// send it.
const (
	arpRequest = `
		ff ff ff ff ff ff   # destination MAC: broadcast
		02 00 00 00 00 05   # source MAC
		08 06               # EtherType ARP
		00 01               # hardware type: Ethernet
		08 00               # protocol type: IPv4
		06 04               # lengths of addresses
		00 01               # operation: request
		02 00 00 00 00 05   # sender MAC
		0a 00 00 05         # sender IP 10.0.0.5
		00 00 00 00 00 00   # target MAC: not known
		0a 00 00 02         # target IP 10.0.0.2
		00*18               # padding to 60 bytes
	`
	ipv4TCP = `
		02 00 00 00 00 02 02 00 00 00 00 05 08 00
		45                  # version 4, IHL 5
		28                  # DSCP 10, ECN 0
		00 2c               # total length 44
		12 34               # identification
		40 00               # do not fragment, offset 0
		40 06 00 00         # TTL 64, protocol TCP, checksum
		0a 00 00 05         # source 10.0.0.5
		5d b8 d8 22         # destination 93.184.216.34
		9c 40 01 bb         # ports 40000, 443
		00 00 00 01 00 00 00 00
		60 02 fa f0         # data offset 6, SYN, window
		00 00 00 00         # checksum, urgent pointer
		02 04 05 b4         # option: MSS 1460
		00*2                # padding to 60 bytes
	`
	ipv4UDP = `
		02 00 00 00 00 02 02 00 00 00 00 05 08 00
		45 00 00 20 00 00 00 00 40 11 00 00
		0a 00 00 05 0a 00 00 08
		9c 40 00 35         # ports 40000, 53
		00 0c 00 00         # length 12, checksum
		61 62 63 64         # data
		00*14               # padding
	`
	ipv4ICMP = `
		02 00 00 00 00 02 02 00 00 00 00 05 08 00
		45 00 00 1c 00 00 00 00 40 01 00 00
		0a 00 00 05 0a 00 00 08
		08 00 f7 ff 00 00 00 00  # echo request
		00*18
	`
	ipv6TCP = `
		02 00 00 00 00 02 02 00 00 00 00 05 86 dd
		61 40 00 00         # version 6, DSCP 5, flow label
		00 14 06 40         # payload length 20, next header TCP, hop limit 64
		20 01 0d b8 00*11 05
		20 01 0d b8 00*11 08
		9c 40 00 50 00*8
		50 10 00 00 00 00 00 00  # data offset 5, ACK
	`
	neighbourSolicitation = `
		33 33 ff 00 00 08 02 00 00 00 00 05 86 dd
		60 00 00 00 00 20 3a ff  # payload length 32, ICMPv6, hop limit 255
		20 01 0d b8 00*11 05
		ff 02 00*9 01 ff 00 00 08
		87 00 00 00 00*4         # type 135, code 0
		20 01 0d b8 00*11 08     # target
		01 01 02 00 00 00 00 05  # option: source link-layer address
	`
	neighbourAdvertisement = `
		02 00 00 00 00 02 02 00 00 00 00 05 86 dd
		60 00 00 00 00 20 3a ff
		20 01 0d b8 00*11 05
		20 01 0d b8 00*11 08
		88 00 00 00 60 00*3      # type 136, solicited, override
		20 01 0d b8 00*11 05     # target
		02 01 02 00 00 00 00 05  # option: target link-layer address
	`
	routerAdvertisement = `
		33 33 00 00 00 01 02 00 00 00 00 05 86 dd
		60 00 00 00 00 18 3a ff
		fe 80 00*13 05
		ff 02 00*13 01
		86 00 00 00 40 00 07 08 00*8
		01 01 02 00 00 00 00 05
	`
)

// parse parses the frame that text spells.
func parse(t testing.TB, text string) (frame.Key, frame.Reason) {
	t.Helper()
	var k frame.Key
	r := frame.Parse(unhex(t, text), &k)
	return k, r
}

// swap is text with its one old replaced.
func swap(t testing.TB, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q is there %d times", old, strings.Count(text, old))
	}
	return strings.Replace(text, old, new, 1)
}
