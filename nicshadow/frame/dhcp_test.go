package frame_test

import (
	"encoding/binary"
	"maps"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sekimori/nicshadow/frame"
)

// dhcp4 and dhcp6 are datagrams around a message, from client to server.
func dhcp4(t testing.TB, message string) []byte {
	return datagram(t, "08 00", "45 00 00 00 00 00 00 00 40 11 00 00 00*4 ff*4", "00 44 00 43", message)
}

func dhcp6(t testing.TB, message string) []byte {
	return datagram(t, "86 dd", "60 00 00 00 00 00 11 40 fe 80 00*13 05 ff 02 00*11 01 00 02", "02 22 02 23", message)
}

func datagram(t testing.TB, typ, ip, ports, message string) []byte {
	t.Helper()
	head, body := unhex(t, "ff*6 02 00 00 00 00 05 "+typ+" "+ip), unhex(t, message)
	packet := head[14:]
	if packet[0]>>4 == 4 {
		binary.BigEndian.PutUint16(packet[2:], uint16(20+8+len(body)))
	} else {
		binary.BigEndian.PutUint16(packet[4:], uint16(8+len(body)))
	}
	b := append(head, unhex(t, ports)...)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(body)))
	b = append(append(b, 0, 0), body...)
	for len(b) < 60 {
		b = append(b, 0)
	}
	return b
}

const (
	discoverHead = "01 01 06 00 12 34 56 78 00*20 "
	chaddr       = "02 00 00 00 00 05 00*10 00*192 "
	cookie       = "63 82 53 63 "
	discover     = discoverHead + chaddr + cookie + "35 01 01 3d 07 01 02 00 00 00 00 05 ff 00*8"
	request      = discoverHead + chaddr + cookie + "35 01 03 32 04 0a 00 00 07 00 36 04 0a 00 00 01 33 04 00 00 0e 10 ff"
	renewal      = "01 01 06 00 12 34 56 78 00*4 0a 00 00 07 00*12 " + chaddr + cookie + "35 01 03 ff"
	ack          = "02 01 06 00 12 34 56 78 00*8 0a 00 00 07 00*8 " + chaddr + cookie + "35 01 05 36 04 0a 00 00 01 33 04 00 00 0e 10 ff"

	solicit = "01 12 34 56 00 01 00 0a 00 03 00 01 02 00 00 00 00 05 00 03 00 0c 00*12"
	reply   = "07 12 34 56 00 03 00 28 00*12 00 05 00 18 fd 00 00*13 07 00 00 0e 10 00 00 1c 20" + " 00 0c 00 10 fd 00 00*13 01"
)

// TestDHCP reads every field of messages of both versions, and refuses those
// that clients and servers could read in two ways.
func TestDHCP(t *testing.T) {
	bad := map[string]string(nil)
	for _, tt := range []struct {
		name string
		data []byte
		want map[string]string // nil: malformed
	}{
		{"discover", dhcp4(t, discover), map[string]string{"dhcp.op": "1", "dhcp.type": "1", "dhcp.relay": "0", "dhcp.mac": "02:00:00:00:00:05", "dhcp.addr4": "0.0.0.0", "dhcp.server4": "0.0.0.0", "dhcp.xid": "305419896", "dhcp.lease": "0", "port.src": "68", "port.dst": "67"}},
		{"request", dhcp4(t, request), map[string]string{"dhcp.type": "3", "dhcp.addr4": "10.0.0.7", "dhcp.server4": "10.0.0.1", "dhcp.lease": "3600"}},
		{"request of an address that is held", dhcp4(t, renewal), map[string]string{"dhcp.type": "3", "dhcp.addr4": "10.0.0.7"}},
		{"ack", dhcp4(t, ack), map[string]string{"dhcp.op": "2", "dhcp.type": "5", "dhcp.addr4": "10.0.0.7", "dhcp.server4": "10.0.0.1", "dhcp.lease": "3600"}},
		{"relayed", dhcp4(t, swap(t, discover, "00*20 02", "00*16 0a 00 00 09 02")), map[string]string{"dhcp.relay": "1"}},
		{"solicit", dhcp6(t, solicit), map[string]string{"dhcp.op": "1", "dhcp.type": "1", "dhcp.relay": "0", "dhcp.addr6": "::", "dhcp.server6": "::", "dhcp.xid": "1193046", "dhcp.lease": "0"}},
		{"reply", dhcp6(t, reply), map[string]string{"dhcp.op": "2", "dhcp.type": "7", "dhcp.addr6": "fd00::7", "dhcp.server6": "fd00::1", "dhcp.lease": "7200"}},
		{"relay of IPv6", dhcp6(t, "0c 00 00*32 00 09 00 04 01 12 34 56"), map[string]string{"dhcp.op": "1", "dhcp.type": "12", "dhcp.relay": "1", "dhcp.xid": "0"}},

		{"nothing", dhcp4(t, ""), bad},
		{"bootp without a cookie", dhcp4(t, discoverHead+chaddr+"00*64"), bad},
		{"operation 0", dhcp4(t, "00"+discover[2:]), bad},
		{"operation 3", dhcp4(t, "03"+discover[2:]), bad},
		{"a server's type in a request", dhcp4(t, swap(t, discover, "35 01 01", "35 01 05")), bad},
		{"a client's type in a reply", dhcp4(t, swap(t, ack, "35 01 05", "35 01 03")), bad},
		{"type 0", dhcp4(t, swap(t, discover, "35 01 01", "35 01 00")), bad},
		{"type 13, a lease query", dhcp4(t, swap(t, discover, "35 01 01", "35 01 0d")), bad},
		{"type 255", dhcp4(t, swap(t, discover, "35 01 01", "35 01 ff")), bad},
		{"no type", dhcp4(t, swap(t, discover, "35 01 01", "00 00 00")), bad},
		{"type twice", dhcp4(t, swap(t, discover, "35 01 01", "35 01 01 35 01 01")), bad},
		{"type of two bytes", dhcp4(t, swap(t, discover, "35 01 01", "35 02 01 01")), bad},
		{"requested address twice", dhcp4(t, swap(t, request, "32 04 0a 00 00 07", "32 04 0a 00 00 07 32 04 0a 00 00 08")), bad},
		{"requested address of 5 bytes", dhcp4(t, swap(t, request, "32 04 0a 00 00 07", "32 05 0a 00 00 07 00")), bad},
		{"more options in sname", dhcp4(t, swap(t, discover, "35 01 01", "34 01 02 35 01 01")), bad},
		{"options without end", dhcp4(t, swap(t, discover, "ff 00*8", "")), bad},
		{"an option longer than the message", dhcp4(t, swap(t, discover, "ff 00*8", "0c 09 00")), bad},
		{"an option without a length", dhcp4(t, swap(t, discover, "ff 00*8", "0c")), bad},
		{"hardware that is no Ethernet", dhcp4(t, swap(t, discover, "01 01 06", "01 06 06")), bad},
		{"an address of 16 bytes", dhcp4(t, swap(t, discover, "01 01 06", "01 01 10")), bad},
		{"cut in the fixed part", dhcp4(t, discoverHead+chaddr), bad},

		{"nothing, IPv6", dhcp6(t, ""), bad},
		{"type 0, IPv6", dhcp6(t, "00 12 34 56"), bad},
		{"type 14, a lease query of IPv6", dhcp6(t, "0e 12 34 56"), bad},
		{"type 77", dhcp6(t, "4d 12 34 56"), bad},
		{"an option cut short, IPv6", dhcp6(t, "01 12 34 56 00 01"), bad},
		{"an option longer than the message, IPv6", dhcp6(t, "01 12 34 56 00 01 00 02 00"), bad},
		{"an association cut short", dhcp6(t, "01 12 34 56 00 03 00 0b 00*11"), bad},
		{"an address cut short", dhcp6(t, "01 12 34 56 00 04 00 1b 00*4 00 05 00 17 00*23"), bad},
		{"an option in an association cut short", dhcp6(t, "01 12 34 56 00 04 00 07 00*4 00 05 00"), bad},
		{"unicast of 4 bytes", dhcp6(t, "01 12 34 56 00 0c 00 04 00*4"), bad},
		{"relay cut short", dhcp6(t, "0c 00 00*31"), bad},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var k frame.Key
			r := frame.Parse(tt.data, &k)
			if tt.want == nil {
				if r != frame.MalformedDHCP || k.Class() != frame.ClassNone {
					t.Errorf("Parse = %v, class %v; want malformed dhcp", r, k.Class())
				}
				return
			}
			if c := k.Class(); r != frame.OK || c != frame.ClassIPv4DHCP && c != frame.ClassIPv6DHCP {
				t.Fatalf("Parse = %v, class %v; want dhcp", r, c)
			}
			got := all(&k)
			maps.DeleteFunc(got, func(name, _ string) bool { _, ok := tt.want[name]; return !ok })
			if !maps.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestDHCPFragments: the first fragment of a message drops, so no receiver
// ever has a whole one. Who sends from a client's port to another port than a
// server's sends plain UDP.
func TestDHCPFragments(t *testing.T) {
	b := dhcp4(t, discover)
	var k frame.Key
	b[20] = 0x20 // more fragments
	b = b[:14+20+8+240]
	binary.BigEndian.PutUint16(b[16:], 20+8+240)
	if r := frame.Parse(b, &k); r != frame.MalformedDHCP {
		t.Errorf("first fragment: %v, want malformed dhcp", r)
	}
	b = dhcp4(t, discover)
	b[37] = 69
	if r := frame.Parse(b, &k); r != frame.OK || k.Class() != frame.ClassIPv4UDP {
		t.Errorf("to port 69: %v, %v; want udp", r, k.Class())
	}
}

// TestDHCPTruncated: no message that lost bytes passes, and none reads behind
// its end.
func TestDHCPTruncated(t *testing.T) {
	for _, whole := range [][]byte{unhex(t, request), unhex(t, solicit), unhex(t, reply)} {
		four := len(whole) > 240
		for n := range len(whole) {
			make, ports := dhcp6, uint16(547)
			if four {
				make, ports = dhcp4, 67
			}
			b := make(t, "")
			at := 14 + 40
			if four {
				at = 14 + 20
			}
			b = append(append([]byte(nil), b[:at+8]...), whole[:n]...)
			binary.BigEndian.PutUint16(b[at+2:], ports)
			binary.BigEndian.PutUint16(b[at+4:], uint16(8+n))
			if four {
				binary.BigEndian.PutUint16(b[16:], uint16(28+n))
			} else {
				binary.BigEndian.PutUint16(b[18:], uint16(8+n))
			}
			var k frame.Key
			if r := frame.Parse(b[:len(b):len(b)], &k); r == frame.OK && four {
				t.Errorf("%d of %d bytes: ok", n, len(whole))
			}
		}
	}
}

// TestDHCPAgrees: gopacket reads what we accept the same way.
func TestDHCPAgrees(t *testing.T) {
	for _, text := range []string{discover, request, renewal, ack} {
		b := dhcp4(t, text)
		var k frame.Key
		if r := frame.Parse(b, &k); r != frame.OK {
			t.Fatal(r)
		}
		l, ok := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeDHCPv4).(*layers.DHCPv4)
		if !ok {
			t.Fatal("gopacket sees no DHCP")
		}
		if uint64(l.Operation) != k.Uint(frame.DHCPOp) || l.Xid != uint32(k.Uint(frame.DHCPTransaction)) || l.ClientHWAddr.String() != value(&k, frame.DHCPClientMAC) {
			t.Errorf("gopacket: %v; key: %v", l, all(&k))
		}
		for _, o := range l.Options {
			if o.Type == layers.DHCPOptMessageType && uint64(o.Data[0]) != k.Uint(frame.DHCPType) {
				t.Errorf("gopacket: type %d; key: %d", o.Data[0], k.Uint(frame.DHCPType))
			}
		}
	}
}

// BenchmarkDHCP parses what udhcpc sends first.
func BenchmarkDHCP(b *testing.B) {
	data := dhcp4(b, discoverHead+chaddr+cookie+"35 01 01 3d 07 01 02 00 00 00 00 05 39 02 02 40 37 07 01 03 06 0c 0f 1c 2a 3c 0c 75 64 68 63 70 20 31 2e 33 36 2e 31 ff")
	var k frame.Key
	if r := frame.Parse(data, &k); r != frame.OK {
		b.Fatal(r)
	}
	for b.Loop() {
		frame.Parse(data, &k)
	}
}
