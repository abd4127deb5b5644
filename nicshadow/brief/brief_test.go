package brief_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"sekimori/nicshadow/brief"
	"sekimori/nicshadow/frame"
)

// bytes decodes hexadecimal with spaces.
func bytes(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	eth  = "02000000000b 02000000000a "
	ipv4 = eth + "0800 4500 %len 0000 4000 40 %proto 0000 0a00000a 0a00000b "
)

// v4 is an IPv4 frame of a protocol; n is the total length.
func v4(proto, n, rest string) string {
	return strings.NewReplacer("%proto", proto, "%len", n).Replace(ipv4) + rest
}

func TestFrame(t *testing.T) {
	tests := []struct {
		frame, want string
	}{
		{eth + "0806 0001 0800 06 04 0001 02000000000a 0a00000a 000000000000 0a00000b",
			"arp request who-has 10.0.0.11 tell 10.0.0.10 at 02:00:00:00:00:0a"},
		{eth + "0806 0001 0800 06 04 0002 02000000000c 0a00000c 02000000000b 0a00000b",
			"arp reply 10.0.0.12 is-at 02:00:00:00:00:0c -> 10.0.0.11 from 02:00:00:00:00:0a"},
		{eth + "8100 0000 0806 0001 0800 06 04 0002 02000000000a 0a00000c 02000000000b 0a00000b",
			"vlan 0 arp reply 10.0.0.12 is-at 02:00:00:00:00:0a -> 10.0.0.11"},
		{eth + "88a8 0005 8100 0007 0806 0001 0800 06 04 0002 02000000000a 0a00000c 02000000000b 0a00000b",
			"vlan 5 (2 tags) arp reply 10.0.0.12 is-at 02:00:00:00:00:0a -> 10.0.0.11"},
		{v4("06", "0028", "1000 0050 00000001 00000000 5012 0000 0000 0000"),
			"tcp 10.0.0.10:4096 -> 10.0.0.11:80 syn,ack length 54"},
		{v4("06", "0028", "1000 0050 00000001 00000000 5000 0000 0000 0000"),
			"tcp 10.0.0.10:4096 -> 10.0.0.11:80 length 54"},
		{v4("11", "001c", "1000 0035 0008 0000"), "udp 10.0.0.10:4096 -> 10.0.0.11:53 length 42"},
		{v4("01", "001c", "0800 0000 0001 0001"), "icmp 10.0.0.10 -> 10.0.0.11 type 8 code 0 length 42"},
		{v4("2f", "0018", "00000000"), "ip 10.0.0.10 -> 10.0.0.11 protocol 47 length 38"},
		{strings.Replace(v4("11", "001c", "0000000000000000"), "4000 40", "00b9 40", 1), "ip fragment 10.0.0.10 -> 10.0.0.11 protocol 17 length 42"},
		{eth + "86dd 60000000 0018 3a ff fe8000000000000000000000000000 0a fe800000000000000000000000000 00b 8800 0000 60000000 fe80000000000000000000000000000a",
			"neighbour advertisement fe80::a -> fe80::b target fe80::a length 78"},
		{eth + "86dd 60000000 0008 11 40 fe8000000000000000000000000000 0a fe800000000000000000000000000 00b 1000 0035 0008 1234",
			"udp [fe80::a]:4096 -> [fe80::b]:53 length 62"},
		{eth + "88cc 0000", "02:00:00:00:00:0a -> 02:00:00:00:00:0b ethertype 0x88cc length 16"},
		{eth + "0003 aaaa03", "02:00:00:00:00:0a -> 02:00:00:00:00:0b type 0x0003 length 17"},
		{"0102", "2 bytes"},
	}
	for _, tt := range tests {
		b := bytes(t, tt.frame)
		var k frame.Key
		frame.Parse(b, &k)
		if got := brief.Frame(&k, b, len(b)); got != tt.want {
			t.Errorf("Frame(%s)\n = %s; want\n   %s", tt.frame, got, tt.want)
		}
	}
}

func TestField(t *testing.T) {
	b := bytes(t, v4("06", "0028", "1000 0050 00000001 00000000 5012 0000 0000 0000"))
	var k frame.Key
	if r := frame.Parse(b, &k); r != frame.OK {
		t.Fatal(r)
	}
	for f, want := range map[frame.Field]string{
		frame.EthSrc: "02:00:00:00:00:0a", frame.EtherType: "0x0800", frame.IPv4Dst: "10.0.0.11",
		frame.DstPort: "80", frame.TCPSyn: "true", frame.TCPFin: "false",
	} {
		if got := brief.Field(&k, f); got != want {
			t.Errorf("Field(%v) = %s; want %s", f, got, want)
		}
	}
}
