package frames_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/frames"
	"sekimori/starlark/value"
)

// eval makes the frame of an expression.
func eval(expr string) (*frames.Frame, error) {
	env := value.Builtins()
	for name, v := range frames.Predeclared() {
		env[name] = v
	}
	v, err := starlark.EvalOptions(&syntax.FileOptions{}, &starlark.Thread{}, "test", expr, env)
	if err != nil {
		return nil, err
	}
	return v.(*frames.Frame), nil
}

func build(t *testing.T, expr string, s frames.Sender) []byte {
	t.Helper()
	f, err := eval(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	data, err := f.Bytes(s)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return data
}

// field is a field of a parsed frame as text.
func field(k *frame.Key, name string) string {
	f, ok := frame.FieldNamed(name)
	if !ok || !k.Class().Has(f) {
		return "none"
	}
	hi, lo := k.Wide(f)
	switch f.Kind() {
	case frame.KindMAC:
		return frame.MACFromUint64(lo).String()
	case frame.KindIPv4:
		return netip.AddrFrom4([4]byte{byte(lo >> 24), byte(lo >> 16), byte(lo >> 8), byte(lo)}).String()
	case frame.KindIPv6:
		var b [16]byte
		for i := range 8 {
			b[i], b[8+i] = byte(hi>>(56-8*i)), byte(lo>>(56-8*i))
		}
		return netip.AddrFrom16(b).String()
	}
	return fmt.Sprint(lo)
}

// Each builder's frame is what the strict parser says it is, and what gopacket
// writes of what it read.
func TestBuilders(t *testing.T) {
	for _, c := range []struct{ expr, class, fields string }{
		{"arp()", "arp", "eth.src=02:00:00:00:00:02 eth.dst=ff:ff:ff:ff:ff:ff arp.op=1 arp.sha=02:00:00:00:00:02 arp.spa=10.0.0.2 arp.tha=00:00:00:00:00:00 arp.tpa=10.0.0.1 vlan.tags=0"},
		{"arp(op = ARP.REPLY)", "arp", "eth.dst=02:00:00:00:00:01 arp.op=2 arp.tha=02:00:00:00:00:01"},
		{`arp(op = ARP.REPLY, src_mac = "02:00:00:00:00:0a", src_ip = "10.0.0.10", dst_mac = mac("02:00:00:00:00:0b"), dst_ip = ip("10.0.0.11"), eth_src = "02:00:00:00:00:0c", eth_dst = "02:00:00:00:00:0d")`, "arp",
			"eth.src=02:00:00:00:00:0c eth.dst=02:00:00:00:00:0d arp.sha=02:00:00:00:00:0a arp.spa=10.0.0.10 arp.tha=02:00:00:00:00:0b arp.tpa=10.0.0.11"},
		{"arp(vlan = 0)", "arp", "vlan.tags=1 vlan.id=0"},
		{"vlan(arp(vlan = 7), 100)", "arp", "vlan.tags=2 vlan.id=100"},
		{"vlan(tcp(), id = 5, priority = 3, tpid = 0x88a8)", "ipv4-tcp", "vlan.tags=1 vlan.id=5"},
		{"tcp()", "ipv4-tcp", "ip4.src=10.0.0.2 ip4.dst=10.0.0.1 ip.proto=6 ip.ttl=64 ip.dscp=0 ip.frag=0 port.src=40000 port.dst=80 tcp.syn=1 tcp.ack=0 tcp.fin=0 tcp.rst=0"},
		{`tcp(src_port = 1, dst_port = 65535, ack = True, fin = True, payload = b"odd", ttl = 3, dscp = 63)`, "ipv4-tcp", "port.src=1 port.dst=65535 tcp.syn=0 tcp.ack=1 tcp.fin=1 tcp.rst=0 ip.ttl=3 ip.dscp=63"},
		{"tcp(rst = True)", "ipv4-tcp", "tcp.rst=1 tcp.syn=0"},
		{`tcp(dst_ip = "fd00::9")`, "ipv6-tcp", "ip6.src=fd00::2 ip6.dst=fd00::9 ip.proto=6 tcp.syn=1"},
		{`tcp(src_ip = "2001:db8::1", dscp = 10)`, "ipv6-tcp", "ip6.src=2001:db8::1 ip6.dst=fd00::1 ip.dscp=10"},
		{"udp(src_port = 68, dst_port = 69)", "ipv4-udp", "port.src=68 port.dst=69 ip.proto=17"},
		{`udp(dst_ip = "224.0.0.251", dst_port = 5353)`, "ipv4-udp", "eth.dst=01:00:5e:00:00:fb"},
		{`udp(dst_ip = "255.255.255.255")`, "ipv4-udp", "eth.dst=ff:ff:ff:ff:ff:ff"},
		{`udp(dst_ip = "ff02::fb", payload = "text")`, "ipv6-udp", "eth.dst=33:33:00:00:00:fb ip6.src=fd00::2"},
		{"icmp()", "ipv4-icmp", "icmp.type=8 icmp.code=0"},
		{"icmp(type = 3, code = 1)", "ipv4-icmp", "icmp.type=3 icmp.code=1 icmp.about4=10.0.0.2"},
		{`icmp(type = 3, code = 4, about_ip = "10.0.0.3")`, "ipv4-icmp", "icmp.type=3 icmp.code=4 icmp.about4=10.0.0.3"},
		{`icmp(type = 2, dst_ip = "fd00::9", about_ip = "fd00::8")`, "ipv6-icmp", "icmp.type=2 icmp.about6=fd00::8"},
		{`icmp(dst_ip = "fd00::9")`, "ipv6-icmp", "icmp.type=128 ip.proto=58"},
		{"ipv4()", "ipv4-udp", "port.src=40000 port.dst=80"},
		{`ipv4(protocol = 47, payload = b"gre")`, "ipv4-other", "ip.proto=47"},
		{`ipv4(fragment_offset = 1480, payload = b"later")`, "ipv4-fragment", "ip.frag=1 ip.proto=17"},
		{`udp(more_fragments = True, payload = b"12345678")`, "ipv4-udp", "ip.frag=1 port.dst=80"},
		{`ipv6(protocol = 47, payload = b"gre", hop_limit = 1)`, "ipv6-other", "ip.proto=47 ip.ttl=1"},
		{`ipv6(fragment_offset = 1480, payload = b"later")`, "ipv6-fragment", "ip.frag=1 ip.proto=17"},
		{"ndp()", "ipv6-ndp", "icmp.type=135 ip6.src=fd00::2 ip6.dst=ff02::1:ff00:1 eth.dst=33:33:ff:00:00:01 ndp.target=fd00::1 ndp.mac=02:00:00:00:00:02 ip.ttl=255"},
		{`ndp(type = 136, target_ip = "fd00::2", link_mac = "02:00:00:00:00:09")`, "ipv6-ndp", "icmp.type=136 ndp.target=fd00::2 ndp.mac=02:00:00:00:00:09 ip6.dst=fd00::1"},
		{`ndp(type = 133, dst_ip = "ff02::2")`, "ipv6-ndp", "icmp.type=133 ndp.target=::"},
		{`ndp(type = 134, dst_ip = "ff02::1")`, "ipv6-ndp", "icmp.type=134 ip6.src=fe80::ff:fe00:2"},
		{"ndp(type = 137)", "ipv6-ndp", "icmp.type=137 ndp.target=fd00::1"},
		{"dhcp()", "ipv4-dhcp", "ip4.src=0.0.0.0 ip4.dst=255.255.255.255 port.src=68 port.dst=67 eth.dst=ff:ff:ff:ff:ff:ff"},
		{`dhcp(message_type = 3, requested_ip = "10.0.0.2", server_ip = "10.0.0.1")`, "ipv4-dhcp", "ip4.src=0.0.0.0 port.dst=67 dhcp.op=1 dhcp.type=3 dhcp.addr4=10.0.0.2 dhcp.server4=10.0.0.1 dhcp.mac=02:00:00:00:00:02"},
		{`dhcp(message_type = 7, client_ip = "10.0.0.2")`, "ipv4-dhcp", "ip4.src=10.0.0.2 ip4.dst=10.0.0.1 eth.dst=02:00:00:00:00:01"},
		{`dhcp(message_type = 2, your_ip = "10.0.0.9")`, "ipv4-dhcp", "ip4.src=10.0.0.2 port.src=67 port.dst=68 dhcp.op=2 dhcp.type=2 dhcp.addr4=10.0.0.9 dhcp.xid=1"},
		{`dhcp(version = 6)`, "ipv6-dhcp", "ip6.src=fe80::ff:fe00:2 ip6.dst=ff02::1:2 port.src=546 port.dst=547"},
		{`dhcp(message_type = 7, version = 6, dst_ip = "fd00::9")`, "ipv6-dhcp", "port.src=547 port.dst=546 ip6.dst=fd00::9"},
		{`dhcp(requested_ip = "fd00::7")`, "ipv6-dhcp", "port.src=546"},
		{`ethernet(ethertype = 0x88cc, payload = b"lldp", dst_mac = "01:80:c2:00:00:0e")`, "other", "eth.type=35020 eth.dst=01:80:c2:00:00:0e eth.len=60"},
		{`raw("ffffffffffff 02:00:00:00:00:02 88cc")`, "other", "eth.len=14"},
	} {
		data := build(t, c.expr, frames.DefaultSender())
		var k frame.Key
		if r := frame.Parse(data, &k); r != frame.OK || k.Class().String() != c.class {
			t.Errorf("%s: %s %s; want %s", c.expr, r, k.Class(), c.class)
			continue
		}
		for _, f := range strings.Fields(c.fields) {
			name, want, _ := strings.Cut(f, "=")
			if got := field(&k, name); got != want {
				t.Errorf("%s: %s = %s; want %s", c.expr, name, got, want)
			}
		}
		if again := byGopacket(t, c.expr, data); again != nil && !bytes.Equal(unpad(again), unpad(data)) {
			t.Errorf("%s:\n got %x\nwant %x (gopacket)", c.expr, data, again)
		}
	}
}

// unpad cuts zeros at the end: a tag pushed later leaves the padding longer.
func unpad(b []byte) []byte { return bytes.TrimRight(b, "\x00") }

// byGopacket decodes a frame and serializes it again with lengths and
// checksums computed anew; nil where gopacket cannot write what it reads.
func byGopacket(t *testing.T, expr string, data []byte) []byte {
	t.Helper()
	if strings.HasPrefix(expr, "raw(") {
		return nil // shorter than Ethernet pads to
	}
	p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil && !strings.Contains(expr, "raw(") && !strings.Contains(expr, "later") && !strings.Contains(expr, "gre") && !strings.Contains(expr, "lldp") {
		t.Errorf("%s: gopacket: %v", expr, e.Error())
	}
	var all []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		if l.LayerType() == layers.LayerTypeIPv6Fragment || l.LayerType() == gopacket.LayerTypeDecodeFailure {
			return nil
		}
		s, ok := l.(gopacket.SerializableLayer)
		if !ok {
			return nil
		}
		if c, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := c.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
		}
		if l.LayerType() == gopacket.LayerTypePayload && p.NetworkLayer() == nil && p.Layer(layers.LayerTypeARP) != nil {
			continue // ARP's padding
		}
		all = append(all, s)
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatalf("%s: gopacket: %v", expr, err)
	}
	return buf.Bytes()
}

// DHCP messages carry what was asked for, as gopacket reads it.
func TestDHCP(t *testing.T) {
	data := build(t, `dhcp(message_type = 3, requested_ip = "10.0.0.7", server_ip = "10.0.0.1", client_mac = "02:00:00:00:00:0a", xid = 7)`, frames.DefaultSender())
	d, ok := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeDHCPv4).(*layers.DHCPv4)
	if !ok {
		t.Fatal("gopacket finds no DHCPv4")
	}
	got := fmt.Sprint(d.Operation, " ", d.Xid, " ", d.ClientHWAddr, " ", d.Options)
	if want := "Request 7 02:00:00:00:00:0a [Option(MessageType:Request), Option(RequestIP:10.0.0.7), Option(ServerID:10.0.0.1)]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	data = build(t, `dhcp(message_type = 3, requested_ip = "fd00::7", client_mac = "02:00:00:00:00:0a", xid = 7)`, frames.DefaultSender())
	d6, ok := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeDHCPv6).(*layers.DHCPv6)
	if !ok {
		t.Fatal("gopacket finds no DHCPv6")
	}
	if d6.MsgType != layers.DHCPv6MsgTypeRequest || len(d6.Options) != 2 || d6.Options[0].Code != layers.DHCPv6OptClientID || d6.Options[1].Code != layers.DHCPv6OptIANA || len(d6.Options[1].Data) != 12+28 {
		t.Errorf("DHCPv6 = %v %v", d6.MsgType, d6.Options)
	}
}

// A frame is a recipe: what is left out comes from whoever sends it.
func TestSender(t *testing.T) {
	s := frames.Sender{MAC: frame.MAC{2, 0, 0, 0, 0, 7}, Addrs: []netip.Addr{netip.MustParseAddr("fd00::7"), netip.MustParseAddr("10.9.9.7")}}
	for expr, want := range map[string]string{
		"arp()":                      "eth.src=02:00:00:00:00:07 arp.sha=02:00:00:00:00:07 arp.spa=10.9.9.7",
		"tcp()":                      "eth.src=02:00:00:00:00:07 ip4.src=10.9.9.7",
		`icmp(dst_ip = "fd00::1")`:   "ip6.src=fd00::7",
		"ndp(type = 136)":            "ndp.target=fd00::7 ndp.mac=02:00:00:00:00:07",
		"vlan(udp(), 3)":             "ip4.src=10.9.9.7",
		`tcp(src_ip = "10.0.0.99")`:  "ip4.src=10.0.0.99",
		"ethernet(ethertype=0x1234)": "eth.src=02:00:00:00:00:07",
	} {
		var k frame.Key
		if r := frame.Parse(build(t, expr, s), &k); r != frame.OK {
			t.Errorf("%s: %s", expr, r)
		}
		for _, f := range strings.Fields(want) {
			name, value, _ := strings.Cut(f, "=")
			if got := field(&k, name); got != value {
				t.Errorf("%s: %s = %s; want %s", expr, name, got, value)
			}
		}
	}
	f, err := eval("arp()")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Bytes(frames.Sender{MAC: s.MAC, Addrs: s.Addrs[:1]}); err == nil {
		t.Error("arp() of a sender without IPv4: no error")
	}
}

func TestBuilderErrors(t *testing.T) {
	for expr, want := range map[string]string{
		"arp(1)":                  "arp: 1 arguments without name",
		"arp(dst = 1)":            `arp: unknown argument "dst"`,
		`arp(dst_ip = "fd00::1")`: "of the wrong IP version",
		`tcp(src_ip = "fd00::1", dst_ip = "10.0.0.1")`: "of the wrong IP version",
		"tcp(dst_port = 65536)":                        "want an integer from 0 to 65535",
		"tcp(syn = 1)":                                 "want True or False, got int 1",
		"udp(fragment_offset = 3)":                     "3 is no multiple of 8",
		"ethernet()":                                   `missing argument "ethertype"`,
		"ethernet(ethertype = 100)":                    "want an integer from 1536",
		"raw(\"xy\")":                                  "invalid byte",
		"raw(1)":                                       "want bytes or hex digits",
		"vlan(arp(), 4096)":                            "want an integer from 0 to 4095",
		"vlan(1)":                                      "want a frame",
		"vlan(raw(b\"short\"))":                        "no place for a tag",
		"ndp(type = 128)":                              "want an integer from 133 to 137",
		`ndp(target_ip = "10.0.0.1")`:                  "not an IPv6 address",
		"udp(payload = \"x\" * 66000)":                 "longer than an IP packet",
	} {
		if _, err := eval(expr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", expr, err, want)
		}
	}
}

func TestText(t *testing.T) {
	for expr, want := range map[string]string{
		"arp()": "arp()",
		`tcp(dst_ip = "10.0.0.9", syn = False, payload = b"abc")`: "tcp(syn = False, dst_ip = 10.0.0.9, payload = 3 bytes)",
		`raw("ffff")`:         "raw(ffff)",
		"vlan(arp(), id = 2)": "vlan(frame = arp(), id = 2)",
	} {
		f, err := eval(expr)
		if err != nil || f.String() != want {
			t.Errorf("%s: %v, %v; want %s", expr, f, err, want)
		}
	}
}

func TestOpen(t *testing.T) {
	l, err := frames.Open("../../testdata/pcap/arpspoof.pcap")
	if err != nil || l.Len() != 5 {
		t.Fatalf("Open: %v, %v; want 5 frames", l, err)
	}
	if got := l.Index(0).String(); got != "../../testdata/pcap/arpspoof.pcap: frame 1" {
		t.Errorf("text = %s", got)
	}
	bad := filepath.Join(t.TempDir(), "bad.pcap")
	if err := os.WriteFile(bad, []byte("not a recording"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{bad, "nothere.pcap"} {
		if _, err := frames.Open(path); err == nil {
			t.Errorf("Open(%s): no error", path)
		}
	}
}
