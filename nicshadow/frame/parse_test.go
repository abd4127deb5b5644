package frame_test

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"sekimori/nicshadow/frame"
)

// value is field f of k as a user would write it.
func value(k *frame.Key, f frame.Field) string {
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

// all is every field that the frame has.
func all(k *frame.Key) map[string]string {
	m := make(map[string]string)
	for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
		if k.Class().Has(f) {
			m[f.String()] = value(k, f)
		}
	}
	return m
}

func TestFields(t *testing.T) {
	ethernet := map[string]string{
		"eth.dst": "02:00:00:00:00:02", "eth.src": "02:00:00:00:00:05",
		"vlan.id": "0", "vlan.tags": "0", "eth.len": "60",
	}
	tests := []struct {
		name, frame string
		class       frame.Class
		want        map[string]string
	}{
		{"arp", arpRequest, frame.ClassARP, map[string]string{
			"eth.dst": "ff:ff:ff:ff:ff:ff", "eth.type": "2054", "arp.op": "1",
			"arp.sha": "02:00:00:00:00:05", "arp.spa": "10.0.0.5",
			"arp.tha": "00:00:00:00:00:00", "arp.tpa": "10.0.0.2",
		}},
		{"ipv4 tcp", ipv4TCP, frame.ClassIPv4TCP, map[string]string{
			"eth.type": "2048", "ip4.src": "10.0.0.5", "ip4.dst": "93.184.216.34",
			"ip.proto": "6", "ip.ttl": "64", "ip.dscp": "10", "ip.frag": "0",
			"port.src": "40000", "port.dst": "443",
			"tcp.syn": "1", "tcp.ack": "0", "tcp.fin": "0", "tcp.rst": "0",
		}},
		{"ipv4 udp", ipv4UDP, frame.ClassIPv4UDP, map[string]string{
			"eth.type": "2048", "ip4.src": "10.0.0.5", "ip4.dst": "10.0.0.8",
			"ip.proto": "17", "ip.ttl": "64", "ip.dscp": "0", "ip.frag": "0",
			"port.src": "40000", "port.dst": "53",
		}},
		{"ipv4 icmp", ipv4ICMP, frame.ClassIPv4ICMP, map[string]string{
			"eth.type": "2048", "ip4.src": "10.0.0.5", "ip4.dst": "10.0.0.8",
			"ip.proto": "1", "ip.ttl": "64", "ip.dscp": "0", "ip.frag": "0",
			"icmp.type": "8", "icmp.code": "0", "icmp.about4": "0.0.0.0",
		}},
		{"ipv6 tcp", ipv6TCP, frame.ClassIPv6TCP, map[string]string{
			"eth.type": "34525", "eth.len": "74", "ip6.src": "2001:db8::5", "ip6.dst": "2001:db8::8",
			"ip.proto": "6", "ip.ttl": "64", "ip.dscp": "5", "ip.frag": "0",
			"port.src": "40000", "port.dst": "80",
			"tcp.syn": "0", "tcp.ack": "1", "tcp.fin": "0", "tcp.rst": "0",
		}},
		{"neighbour solicitation", neighbourSolicitation, frame.ClassIPv6NDP, map[string]string{
			"eth.dst": "33:33:ff:00:00:08", "eth.type": "34525", "eth.len": "86",
			"ip6.src": "2001:db8::5", "ip6.dst": "ff02::1:ff00:8",
			"ip.proto": "58", "ip.ttl": "255", "ip.dscp": "0", "ip.frag": "0",
			"icmp.type": "135", "icmp.code": "0",
			"ndp.target": "2001:db8::8", "ndp.mac": "02:00:00:00:00:05",
		}},
		{"neighbour advertisement", neighbourAdvertisement, frame.ClassIPv6NDP, map[string]string{
			"eth.type": "34525", "eth.len": "86", "ip6.src": "2001:db8::5", "ip6.dst": "2001:db8::8",
			"ip.proto": "58", "ip.ttl": "255", "ip.dscp": "0", "ip.frag": "0",
			"icmp.type": "136", "icmp.code": "0",
			"ndp.target": "2001:db8::5", "ndp.mac": "02:00:00:00:00:05",
		}},
		{"router advertisement", routerAdvertisement, frame.ClassIPv6NDP, map[string]string{
			"eth.dst": "33:33:00:00:00:01", "eth.type": "34525", "eth.len": "78",
			"ip6.src": "fe80::5", "ip6.dst": "ff02::1",
			"ip.proto": "58", "ip.ttl": "255", "ip.dscp": "0", "ip.frag": "0",
			"icmp.type": "134", "icmp.code": "0",
			"ndp.target": "::", "ndp.mac": "02:00:00:00:00:05",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, r := parse(t, tt.frame)
			if r != frame.OK || k.Class() != tt.class {
				t.Fatalf("Parse = %v, class %v; want ok, %v", r, k.Class(), tt.class)
			}
			got := all(&k)
			for name, v := range ethernet {
				if _, ok := tt.want[name]; !ok {
					tt.want[name] = v
				}
			}
			for name, want := range tt.want {
				if got[name] != want {
					t.Errorf("%s = %q, want %q", name, got[name], want)
				}
				delete(got, name)
			}
			if len(got) != 0 {
				t.Errorf("more fields than wanted: %v", got)
			}
		})
	}
}

// Every prefix of a frame is either refused or parsed alike: none reads
// behind its end, and none that lost a header passes.
func TestTruncated(t *testing.T) {
	for _, text := range []string{
		arpRequest, ipv4TCP, ipv4UDP, ipv4ICMP, ipv6TCP,
		neighbourSolicitation, neighbourAdvertisement, routerAdvertisement, deepIPv6,
	} {
		whole := unhex(t, text)
		var want frame.Key
		if r := frame.Parse(whole, &want); r != frame.OK {
			t.Fatalf("whole frame: %v", r)
		}
		end := packetEnd(whole)
		for n := range len(whole) {
			var k frame.Key
			// A copy of its own, so that reading behind the end is a panic.
			r := frame.Parse(append([]byte(nil), whole[:n]...), &k)
			switch {
			case n < end && r == frame.OK:
				t.Errorf("%d of %d bytes: ok", n, len(whole))
			case n < end && k.Class() != frame.ClassNone:
				t.Errorf("%d of %d bytes: %v but class %v", n, len(whole), r, k.Class())
			case n >= end && (r != frame.OK || k.Class() != want.Class()):
				t.Errorf("%d of %d bytes, padding cut: %v", n, len(whole), r)
			}
		}
	}
}

// packetEnd is where the packet in an untagged frame ends and padding begins.
func packetEnd(b []byte) int {
	switch b[12] {
	case 0x86:
		return 14 + 40 + int(b[18])<<8 + int(b[19])
	}
	if b[13] == 6 {
		return 14 + 28
	}
	return 14 + int(b[16])<<8 + int(b[17])
}

// A key that was used before shows nothing of the frame before.
func TestKeyIsReset(t *testing.T) {
	frames := []string{arpRequest, ipv4TCP, ipv4UDP, ipv4ICMP, ipv6TCP, neighbourSolicitation, routerAdvertisement,
		swap(t, neighbourSolicitation, "01 01 02", "0e 01 02")}
	for _, first := range frames {
		for _, second := range frames {
			k, _ := parse(t, first)
			frame.Parse(unhex(t, second), &k)
			want, _ := parse(t, second)
			if k.Class() != want.Class() || !maps.Equal(all(&k), all(&want)) {
				t.Errorf("parsed over another: %v, want %v", all(&k), all(&want))
			}
		}
		k, _ := parse(t, first)
		if r := frame.Parse(nil, &k); r != frame.Truncated || k.Class() != frame.ClassNone {
			t.Errorf("Parse(nil) = %v, class %v", r, k.Class())
		}
	}
}

func TestNoAllocation(t *testing.T) {
	for _, text := range []string{arpRequest, ipv4TCP, ipv6TCP, neighbourSolicitation, deepIPv6} {
		b := unhex(t, text)
		var k frame.Key
		if n := testing.AllocsPerRun(100, func() { frame.Parse(b, &k) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestTooLong(t *testing.T) {
	b := make([]byte, frame.MaxLength+1)
	copy(b, unhex(t, ipv4TCP))
	var k frame.Key
	if r := frame.Parse(b, &k); r != frame.TooLong {
		t.Errorf("Parse = %v", r)
	}
}

// The table of fields agrees with itself: names are unique, no two fields of
// one class overlap in the key, and every class has the fields of its layers.
func TestFieldTable(t *testing.T) {
	names := make(map[string]bool)
	for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
		if names[f.String()] || !f.Valid() || f.Classes() == 0 || f.Width() == 0 {
			t.Errorf("field %d: %+v", f, f.Info())
		}
		names[f.String()] = true
		if g, ok := frame.FieldNamed(f.String()); !ok || g != f {
			t.Errorf("FieldNamed(%q) = %v", f, g)
		}
		if f.Classes().Has(frame.ClassNone) {
			t.Errorf("%v in a frame of no class", f)
		}
	}
	for c := frame.ClassNone; c < frame.NumClasses; c++ {
		var used frame.Key
		used.Words[frame.ClassWord] = 0xff
		for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
			if !c.Has(f) {
				continue
			}
			i := f.Info()
			mask, words := ^uint64(0), 2
			if i.Width < 128 {
				mask, words = (1<<i.Width-1)<<i.Shift, 1
			}
			for w := range words {
				if used.Words[int(i.Word)+w]&mask != 0 {
					t.Errorf("class %v: %v overlaps another field", c, f)
				}
				used.Words[int(i.Word)+w] |= mask
			}
		}
		if got, ok := frame.ClassNamed(c.String()); c != frame.ClassNone && (!ok || got != c) {
			t.Errorf("ClassNamed(%q) = %v", c, got)
		}
	}
	if frame.ClassNone.Has(frame.EthSrc) || frame.NumClasses.Has(frame.EthSrc) {
		t.Error("a frame of no class has fields")
	}
}

func TestReasonNames(t *testing.T) {
	names := make(map[string]bool)
	for r := frame.Unparsed; r < frame.NumReasons; r++ {
		if r.String() == "" || names[r.String()] {
			t.Errorf("reason %d is named %q", r, r)
		}
		names[r.String()] = true
	}
}

func TestMAC(t *testing.T) {
	m, err := frame.ParseMAC("02:00:0a:4D:00:03")
	if err != nil || m.String() != "02:00:0a:4d:00:03" || m.Uint64() != 0x02000a4d0003 || m.Group() {
		t.Errorf("ParseMAC = %v, %v", m, err)
	}
	if frame.MACFromUint64(m.Uint64()) != m {
		t.Errorf("MACFromUint64 = %v", frame.MACFromUint64(m.Uint64()))
	}
	for _, s := range []string{"", "02:00", "0200.0a4d.0003", "02:00:0a:4d:00:03:04:05", "02:00:0a:4d:00:0g"} {
		if m, err := frame.ParseMAC(s); err == nil {
			t.Errorf("ParseMAC(%q) = %v", s, m)
		}
	}
}
