package policy_test

import (
	"strings"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/policy"
)

const second = int64(1e9)

// A turn is one frame of a play: after a pause, one way or the other.
type turn struct {
	after  int64
	in     bool
	class  frame.Class
	fields fields
	want   rule.Verdict
	why    string // predicate or guard; "" for any
}

// play judges frames one after the other by program and oracle.
func play(t *testing.T, d *duel, turns []turn) {
	t.Helper()
	for i, tt := range turns {
		d.memory.Now += tt.after
		v, why := d.judge(key(tt.class, tt.fields), tt.in)
		if v != tt.want || tt.why != "" && why.Name != tt.why {
			t.Errorf("frame %d (%s): %v by %s %q; want %v by %q", i+1, tt.class, v, why.Kind, why.Name, tt.want, tt.why)
		}
	}
}

func repeat(n int, tt turn) []turn {
	out := make([]turn, n)
	for i := range out {
		out[i] = tt
	}
	return out
}

func join(lists ...[]turn) (out []turn) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func TestRate(t *testing.T) {
	udp := func(after int64, port int, want rule.Verdict) turn {
		return turn{after: after, class: frame.ClassIPv4UDP, fields: fields{frame.DstPort: port}, want: want}
	}
	for _, tt := range []struct {
		name, src string
		turns     []turn
	}{
		{"a burst, and then its rate", `P = policy(allow_udp = lambda: rate("10/s", burst = 3))`, join(
			repeat(3, udp(0, 53, rule.Forward)), repeat(3, udp(0, 53, rule.Drop)), []turn{udp(second/10, 53, rule.Forward), udp(0, 53, rule.Drop)},
			[]turn{udp(60*second, 53, rule.Forward)}, repeat(2, udp(0, 53, rule.Forward)), []turn{udp(0, 53, rule.Drop)})},
		{"as many at once as the rate says", `P = policy(allow_udp = lambda: rate("2/m"))`, join(
			repeat(2, udp(0, 53, rule.Forward)), []turn{udp(29*second, 53, rule.Drop), udp(second, 53, rule.Forward)})},
		{"only who asks takes a token", `P = policy(allow_udp = lambda dst_port: dst_port == 53 and rate("1/h"))`, []turn{
			udp(0, 80, rule.Drop), udp(0, 53, rule.Forward), udp(0, 53, rule.Drop), udp(0, 80, rule.Drop)}},
		{"asked and not listened to", `P = policy(allow_udp = lambda dst_port: rate("1/h") and False or dst_port == 53 or rate("1/h", burst = 9))`, repeat(4, udp(0, 80, rule.Forward))},
		{"an answer that nobody uses takes a token", "def u(dst_port):\n    x = f()\n    return dst_port == 53 or f()\ndef f():\n    return rate(\"1/h\")\nP = policy(allow_udp = u)",
			[]turn{udp(0, 53, rule.Forward), udp(0, 80, rule.Drop)}},
		{"one call, one bucket, one answer a frame", `P = policy(allow_udp = lambda: all([rate("2/h") for x in range(5)]))`, []turn{
			udp(0, 53, rule.Forward), udp(0, 53, rule.Forward), udp(0, 53, rule.Drop)}},
		{"two calls, two buckets", `P = policy(allow_udp = lambda: rate("1/h") or
    rate("1/h"))`, []turn{udp(0, 53, rule.Forward), udp(0, 53, rule.Forward), udp(0, 53, rule.Drop)}},
		{"two predicates share a helper's bucket", "def f():\n    return rate(\"2/h\")\nP = policy(allow_udp = lambda: f(), allow_tcp = lambda: f())", []turn{
			udp(0, 53, rule.Forward), {class: frame.ClassIPv6TCP, want: rule.Forward}, udp(0, 53, rule.Drop), {class: frame.ClassIPv4TCP, want: rule.Drop}}},
		{"one predicate asks behind another's yes", `P = policy(allow_ipv4 = lambda: rate("3/h"), allow_udp = lambda dst_port: dst_port == 53)`, []turn{
			udp(0, 53, rule.Forward), udp(0, 80, rule.Drop), udp(0, 53, rule.Forward), udp(0, 53, rule.Drop)}},
		{"guards come first and take none", `P = policy(allow_udp = lambda: rate("1/h"))`, []turn{
			{class: frame.ClassIPv4UDP, fields: fields{frame.VLANTags: 1}, want: rule.Drop, why: "vlan"}, udp(0, 53, rule.Forward), udp(0, 53, rule.Drop)}},
	} {
		t.Run(tt.name, func(t *testing.T) { play(t, newDuel(t, tt.src, identity), tt.turns) })
	}
}

// TestLimitNames: a limit's name stays when lines move, so that a reload goes
// on with its bucket.
func TestLimitNames(t *testing.T) {
	src := "def allow_udp(dst_port):\n    return dst_port == 53 and rate(\"9/s\") or dst_port == 80 and rate(\"9/s\")\nP = policy(allow_udp)\n"
	_, prog := compile(t, src)
	_, moved := compile(t, "\n\nX = 1\n"+strings.Replace(src, "dst_port == 53", "dst_port in (53, 54)", 1))
	want := []rule.Limit{{Name: "allow_udp 9/s", Period: 111111111, Burst: 9}, {Name: "allow_udp 9/s #2", Period: 111111111, Burst: 9}}
	for _, p := range []*rule.Program{prog, moved} {
		if got := p.Limits(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("Limits = %v; want %v", got, want)
		}
	}
}

func TestEstablished(t *testing.T) {
	const server = `P = policy(allow_tcp = lambda src_port: src_port == 80 and established(), allow_icmp = lambda: established(),
    allow_arp = lambda op: op == ARP.REQUEST or answered(), allow_ndp = lambda: answered(), allow_ipv4 = True, allow_ipv6 = True)`
	call := fields{frame.IPv4Src: "10.0.0.9", frame.IPv4Dst: "10.0.0.5", frame.SrcPort: 999, frame.DstPort: 80}
	answer := fields{frame.SrcPort: 80, frame.DstPort: 999}
	ask := fields{frame.ARPSenderIP: "10.0.0.9", frame.ARPTargetIP: "10.0.0.5"}
	reply := fields{frame.ARPOp: 2}
	for _, tt := range []struct {
		name  string
		turns []turn
	}{
		{"who did not call gets no answer", []turn{{class: frame.ClassIPv4TCP, fields: answer, want: rule.Drop, why: "allow_tcp"}}},
		{"who called gets one", []turn{
			{in: true, class: frame.ClassIPv4TCP, fields: call, want: rule.Forward},
			{class: frame.ClassIPv4TCP, fields: answer, want: rule.Forward},
			{after: 7100 * second, class: frame.ClassIPv4TCP, fields: answer, want: rule.Forward},
			{after: 100 * second, class: frame.ClassIPv4TCP, fields: answer, want: rule.Drop},
		}},
		{"a later fragment carries no ports", []turn{
			{in: true, class: frame.ClassIPv4TCP, fields: call, want: rule.Forward},
			{class: frame.ClassIPv4Fragment, fields: fields{frame.IPProtocol: 6}, want: rule.Drop, why: "allow_tcp"},
			{class: frame.ClassIPv4Fragment, fields: fields{frame.IPProtocol: 1}, want: rule.Drop, why: "allow_icmp"},
		}},
		{"a ping", []turn{
			{class: frame.ClassIPv4ICMP, fields: fields{frame.ICMPType: 0}, want: rule.Drop},
			{in: true, class: frame.ClassIPv4ICMP, fields: fields{frame.IPv4Src: "10.0.0.9", frame.IPv4Dst: "10.0.0.5", frame.ICMPType: 8}, want: rule.Forward},
			{class: frame.ClassIPv4ICMP, fields: fields{frame.ICMPType: 0}, want: rule.Forward},
			{class: frame.ClassIPv4ICMP, fields: fields{frame.ICMPType: 8}, want: rule.Drop},
		}},
		{"arp", []turn{
			{class: frame.ClassARP, want: rule.Forward},
			{class: frame.ClassARP, fields: reply, want: rule.Drop, why: "allow_arp"},
			{in: true, class: frame.ClassARP, fields: ask, want: rule.Forward},
			{class: frame.ClassARP, fields: reply, want: rule.Forward},
			{after: 3 * second, class: frame.ClassARP, fields: reply, want: rule.Drop},
		}},
		{"neighbour discovery", []turn{
			{class: frame.ClassIPv6NDP, fields: fields{frame.ICMPType: 136}, want: rule.Drop, why: "allow_ndp"},
			{in: true, class: frame.ClassIPv6NDP, fields: fields{frame.ICMPType: 135, frame.IPv6Src: "fd00::9", frame.NDPTarget: "fd00::5"}, want: rule.Forward},
			{class: frame.ClassIPv6NDP, fields: fields{frame.ICMPType: 136}, want: rule.Forward},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { play(t, newDuel(t, server, identity), tt.turns) })
	}
}

func TestIngress(t *testing.T) {
	in := func(c frame.Class, f fields, want rule.Verdict, why string) turn {
		return turn{in: true, class: c, fields: f, want: want, why: why}
	}
	stranger := fields{frame.EthSrc: frame.MAC{2, 9, 9, 9, 9, 9}, frame.VLANTags: 1, frame.DstPort: 22}
	for _, tt := range []struct {
		name, args string
		turns      []turn
	}{
		{"all comes in where nothing is said", `allow_tcp = False`, []turn{in(frame.ClassIPv4TCP, stranger, rule.Forward, ""), in(frame.ClassOther, nil, rule.Forward, "")}},
		{"nothing comes in by nothing", `allow_tcp = True, ingress = []`, []turn{in(frame.ClassIPv4TCP, nil, rule.Drop, "ipv4"), {class: frame.ClassIPv4TCP, want: rule.Forward}}},
		{"nothing goes out by nothing", `ingress = {"allow_tcp": True}`, []turn{in(frame.ClassIPv4TCP, stranger, rule.Forward, "allow_tcp"), {class: frame.ClassIPv4TCP, want: rule.Drop, why: "ipv4"}, in(frame.ClassIPv4UDP, nil, rule.Drop, "udp")}},
		{"one function for both", `egress = [allow_tcp], ingress = [allow_tcp]`, []turn{
			in(frame.ClassIPv4TCP, fields{frame.DstPort: 80}, rule.Forward, ""), in(frame.ClassIPv4TCP, fields{frame.DstPort: 443}, rule.Drop, "allow_tcp"),
			{class: frame.ClassIPv4TCP, fields: fields{frame.DstPort: 443}, want: rule.Forward}, {class: frame.ClassIPv4TCP, fields: fields{frame.DstPort: 80}, want: rule.Drop},
		}},
		{"dhcp is udp on its way in, too", `ingress = {"allow_udp": lambda src_port: src_port == 67}`, []turn{
			in(frame.ClassIPv4DHCP, fields{frame.SrcPort: 67, frame.DHCPOp: 2}, rule.Forward, ""), in(frame.ClassIPv4DHCP, fields{frame.SrcPort: 68}, rule.Drop, ""),
		}},
		{"answers alone come in", `allow_udp = True, ingress = {"allow_udp": lambda: established()}`, []turn{
			in(frame.ClassIPv4UDP, fields{frame.IPv4Src: "10.0.0.9", frame.IPv4Dst: "10.0.0.5", frame.SrcPort: 53}, rule.Drop, ""),
			{class: frame.ClassIPv4UDP, fields: fields{frame.DstPort: 53}, want: rule.Forward},
			in(frame.ClassIPv4UDP, fields{frame.IPv4Src: "10.0.0.9", frame.IPv4Dst: "10.0.0.5", frame.SrcPort: 53}, rule.Forward, ""),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := "def allow_tcp(dst_port, direction):\n    return dst_port == (80 if direction == \"ingress\" else 443)\nP = policy(" + tt.args + ")\n"
			play(t, newDuel(t, src, identity), tt.turns)
		})
	}
	p := load(t, `P = policy(allow_arp = True, ingress = {"allow_ipv4": True, "allow_arp": True}, budget = 30)`)
	if got, want := p.String(), "policy(allow_arp, ingress = [allow_arp, allow_ipv4])"; got != want {
		t.Errorf("String() = %s; want %s", got, want)
	}
	if !p.JudgesIngress() || p.Budget() != 30 || strings.Join(p.IngressPredicates(), " ") != "allow_arp allow_ipv4" {
		t.Errorf("JudgesIngress = %v, Budget = %d, IngressPredicates = %v", p.JudgesIngress(), p.Budget(), p.IngressPredicates())
	}
	if got, want := load(t, "P = policy(ingress = [])").String(), "policy(ingress = [])"; got != want {
		t.Errorf("String() = %s; want %s", got, want)
	}
}

// TestAudit: the no of a predicate in audit mode is recorded, and counts as a
// yes; that of any other drops.
func TestAudit(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		class      frame.Class
		fields     fields
		want       rule.Verdict
		why        string
	}{
		{"a yes is a yes", `allow_tcp = audit(True)`, frame.ClassIPv4TCP, nil, rule.Forward, "allow_tcp"},
		{"a no passes", `allow_tcp = audit(False)`, frame.ClassIPv4TCP, nil, rule.Audit, "allow_tcp"},
		{"by position", `audit(allow_tcp)`, frame.ClassIPv4TCP, fields{frame.DstPort: 22}, rule.Audit, "allow_tcp"},
		{"the first no is told", `allow_ipv4 = audit(False), allow_tcp = audit(False)`, frame.ClassIPv4TCP, nil, rule.Audit, "allow_ipv4"},
		{"behind a yes", `allow_ipv4 = True, allow_tcp = audit(False)`, frame.ClassIPv4TCP, nil, rule.Audit, "allow_tcp"},
		{"another's no drops", `allow_ipv4 = audit(False), allow_tcp = False`, frame.ClassIPv4TCP, nil, rule.Drop, "allow_tcp"},
		{"also before it", `allow_ethernet = False, allow_ipv4 = audit(False)`, frame.ClassIPv4TCP, nil, rule.Drop, "allow_ethernet"},
		{"what is unspoken drops", `allow_tcp = audit(False)`, frame.ClassIPv4UDP, nil, rule.Drop, "udp"},
		{"guards hold", `allow_tcp = audit(False)`, frame.ClassIPv4TCP, fields{frame.VLANTags: 1}, rule.Drop, "vlan"},
		{"a field that a fragment lacks", `allow_ipv4 = True, allow_tcp = audit(lambda dst_port: dst_port == 80)`, frame.ClassIPv4Fragment, fields{frame.IPProtocol: 6}, rule.Audit, "allow_tcp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := "def allow_tcp(dst_port):\n    return dst_port == 80\nP = policy(" + tt.args + ")\n"
			play(t, newDuel(t, src, identity), []turn{{class: tt.class, fields: tt.fields, want: tt.want, why: tt.why}})
		})
	}
}

// TestDHCP: a card that learns its addresses has those that a server leased to
// it, and no others.
func TestDHCP(t *testing.T) {
	id := policy.Identity{MAC: identity.MAC, DHCP4: true, DHCP6: true}
	const src = "P = policy(allow_arp = True, allow_ipv4 = True, allow_ipv6 = True)\n"
	pass := func(c frame.Class, f fields) turn { return turn{class: c, fields: f, want: rule.Forward} }
	drop := func(c frame.Class, f fields, why string) turn {
		return turn{class: c, fields: f, want: rule.Drop, why: why}
	}
	none := fields{frame.IPv4Src: "0.0.0.0", frame.SrcPort: 68, frame.DstPort: 67}
	ask := fields{frame.IPv4Src: "0.0.0.0", frame.SrcPort: 68, frame.DstPort: 67, frame.DHCPType: 3, frame.DHCPTransaction: 7}
	ack := turn{in: true, class: frame.ClassIPv4DHCP, fields: fields{frame.IPv4Src: "10.0.0.1", frame.SrcPort: 67, frame.DstPort: 68,
		frame.DHCPOp: 2, frame.DHCPType: 5, frame.DHCPTransaction: 7, frame.DHCPRequested4: "10.0.0.5", frame.DHCPLeaseTime: 60}, want: rule.Forward}
	lie := ack
	lie.fields = fields{frame.DHCPOp: 2, frame.DHCPType: 5, frame.DHCPTransaction: 8, frame.DHCPRequested4: "10.0.0.5", frame.DHCPLeaseTime: 60}
	late := drop(frame.ClassIPv4TCP, nil, "ip")
	late.after = 61 * second
	ask6 := fields{frame.IPv6Src: "fe80::aff:fe00:5", frame.SrcPort: 546, frame.DstPort: 547, frame.DHCPType: 3, frame.DHCPTransaction: 9}
	reply := turn{in: true, class: frame.ClassIPv6DHCP, fields: fields{frame.IPv6Src: "fe80::1", frame.SrcPort: 547, frame.DstPort: 546,
		frame.DHCPOp: 2, frame.DHCPType: 7, frame.DHCPTransaction: 9, frame.DHCPRequested6: "fd00::5", frame.DHCPLeaseTime: 60}, want: rule.Forward}
	probe := fields{frame.ARPSenderIP: "0.0.0.0", frame.ARPTargetIP: "10.0.0.5"}
	dad := fields{frame.IPv6Src: "::", frame.ICMPType: 135, frame.NDPTarget: "fd00::5", frame.NDPLinkMAC: 0}
	for _, tt := range []struct {
		name  string
		turns []turn
	}{
		{"before", []turn{
			drop(frame.ClassIPv4TCP, nil, "ip"), drop(frame.ClassARP, nil, "arp"), drop(frame.ClassARP, probe, "arp"),
			drop(frame.ClassIPv4UDP, fields{frame.IPv4Src: "0.0.0.0"}, "ip"), drop(frame.ClassIPv4DHCP, fields{frame.SrcPort: 68, frame.DstPort: 67}, "ip"),
			pass(frame.ClassIPv4DHCP, none), drop(frame.ClassIPv6TCP, nil, "ip"), drop(frame.ClassIPv6NDP, dad, "ip"), pass(frame.ClassIPv6DHCP, ask6),
			drop(frame.ClassIPv4ICMP, fields{frame.IPv4Src: "0.0.0.0"}, "ip"),
		}},
		{"leased", []turn{
			pass(frame.ClassIPv4DHCP, ask), lie, drop(frame.ClassIPv4TCP, nil, "ip"), ack, pass(frame.ClassIPv4TCP, nil), pass(frame.ClassARP, nil), pass(frame.ClassARP, probe),
			drop(frame.ClassIPv4TCP, fields{frame.IPv4Src: "10.0.0.6"}, "ip"), drop(frame.ClassARP, fields{frame.ARPSenderIP: "10.0.0.6"}, "arp"),
			drop(frame.ClassARP, fields{frame.ARPSenderIP: "0.0.0.0", frame.ARPTargetIP: "10.0.0.6"}, "arp"),
			pass(frame.ClassIPv4ICMP, fields{frame.ICMPType: 3, frame.ICMPAbout4: "10.0.0.5"}), drop(frame.ClassIPv4ICMP, fields{frame.ICMPType: 3, frame.ICMPAbout4: "10.0.0.6"}, "ip"),
			late,
		}},
		{"leased, IPv6", []turn{
			pass(frame.ClassIPv6DHCP, ask6), drop(frame.ClassIPv6TCP, nil, "ip"), reply, pass(frame.ClassIPv6TCP, nil), pass(frame.ClassIPv6NDP, dad),
			pass(frame.ClassIPv6NDP, fields{frame.ICMPType: 136}), drop(frame.ClassIPv6NDP, fields{frame.ICMPType: 136, frame.NDPTarget: "fd00::6"}, "ndp"),
			drop(frame.ClassIPv6TCP, fields{frame.IPv6Src: "fd00::6"}, "ip"),
		}},
		{"given back", []turn{
			pass(frame.ClassIPv4DHCP, ask), ack, pass(frame.ClassIPv4DHCP, fields{frame.SrcPort: 68, frame.DstPort: 67, frame.DHCPType: 7}), drop(frame.ClassIPv4TCP, nil, "ip"),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { play(t, newDuel(t, src, id), tt.turns) })
	}
	// The card of before has no lease, whatever is said to it.
	d := newDuel(t, src, policy.Identity{MAC: identity.MAC, Addrs: identity.Addrs[1:]})
	play(t, d, []turn{{class: frame.ClassIPv4DHCP, fields: ask, want: rule.Drop, why: "ip"}, ack, drop(frame.ClassIPv4TCP, nil, "ip")})
}
