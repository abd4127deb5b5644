package policy_test

import (
	"strings"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

type fields = map[frame.Field]any

// TestLayers is the rule of the three layers, and what fragments meet.
func TestLayers(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		class      frame.Class
		fields     fields
		forward    bool
		kind       rule.WhyKind
		why        string
	}{
		{"nothing is allowed by nothing", ``, frame.ClassIPv4TCP, nil, false, rule.WhyUnspoken, "ipv4"},
		{"link alone judges nothing", `allow_ethernet = True`, frame.ClassARP, nil, false, rule.WhyUnspoken, "arp"},
		{"other ethertypes", `allow_ethernet = True, allow_ipv4 = True`, frame.ClassOther, nil, false, rule.WhyUnspoken, "ethertype"},
		{"other ethertypes, transport only", `allow_ethernet = True, allow_tcp = True`, frame.ClassOther, nil, false, rule.WhyUnspoken, "ethertype"},
		{"network alone decides for all above", `allow_ipv4 = True`, frame.ClassIPv4UDP, nil, true, rule.WhyPredicate, "allow_ipv4"},
		{"also other protocols", `allow_ipv4 = True`, frame.ClassIPv4Other, nil, true, rule.WhyPredicate, "allow_ipv4"},
		{"also fragments", `allow_ipv4 = True`, frame.ClassIPv4Fragment, fields{frame.IPProtocol: 6}, true, rule.WhyPredicate, "allow_ipv4"},
		{"but not for the other family", `allow_ipv4 = True`, frame.ClassIPv6TCP, nil, false, rule.WhyUnspoken, "ipv6"},
		{"nor for ARP", `allow_ipv4 = True`, frame.ClassARP, nil, false, rule.WhyUnspoken, "arp"},
		{"transport alone, over either", `allow_tcp = True`, frame.ClassIPv6TCP, nil, true, rule.WhyPredicate, "allow_tcp"},
		{"transport alone says nothing of ARP", `allow_tcp = True`, frame.ClassARP, nil, false, rule.WhyUnspoken, "arp"},
		{"tcp without udp drops udp", `allow_ipv4 = True, allow_tcp = True`, frame.ClassIPv4UDP, nil, false, rule.WhyUnspoken, "udp"},
		{"and icmp", `allow_ipv4 = True, allow_tcp = True`, frame.ClassIPv4ICMP, nil, false, rule.WhyUnspoken, "icmp"},
		{"and other protocols", `allow_ipv4 = True, allow_tcp = True`, frame.ClassIPv4Other, nil, false, rule.WhyUnspoken, "protocol"},
		{"arp has no transport", `allow_arp = True, allow_ipv4 = True, allow_tcp = True`, frame.ClassARP, nil, true, rule.WhyPredicate, "allow_arp"},
		{"both must say yes", `allow_ipv4 = False, allow_tcp = True`, frame.ClassIPv4TCP, nil, false, rule.WhyPredicate, "allow_ipv4"},
		{"the link too", `allow_ethernet = False, allow_ipv4 = True`, frame.ClassIPv4TCP, nil, false, rule.WhyPredicate, "allow_ethernet"},
		{"icmp judges ICMPv6", `allow_icmp = True`, frame.ClassIPv6ICMP, nil, true, rule.WhyPredicate, "allow_icmp"},
		{"and neighbour discovery", `allow_icmp = True`, frame.ClassIPv6NDP, nil, true, rule.WhyPredicate, "allow_icmp"},
		{"unless ndp is there", `allow_icmp = True, allow_ndp = False`, frame.ClassIPv6NDP, nil, false, rule.WhyPredicate, "allow_ndp"},
		{"ndp alone leaves icmp unspoken", `allow_ndp = True`, frame.ClassIPv6ICMP, nil, false, rule.WhyUnspoken, "icmp"},
		{"fragments of tcp pass a constant", `allow_tcp = True`, frame.ClassIPv4Fragment, fields{frame.IPProtocol: 6}, true, rule.WhyPredicate, "allow_tcp"},
		{"fragments of udp without allow_udp", `allow_tcp = True`, frame.ClassIPv4Fragment, fields{frame.IPProtocol: 17}, false, rule.WhyUnspoken, "udp"},
		{"fragments of something else", `allow_tcp = True`, frame.ClassIPv6Fragment, fields{frame.IPProtocol: 47}, false, rule.WhyUnspoken, "protocol"},
		{"fragments have no ports", `allow_tcp = lambda dst_port: dst_port == 80`, frame.ClassIPv4Fragment, fields{frame.IPProtocol: 6}, false, rule.WhyFragment, "allow_tcp"},
		{"a field not looked at does no harm", `allow_tcp = lambda dst_port, dst_ip: dst_ip in net("10.0.0.0/8") or dst_port == 80`, frame.ClassIPv4Fragment, fields{frame.IPProtocol: 6}, true, rule.WhyPredicate, "allow_tcp"},
		{"negation does not turn a missing field into yes", `allow_tcp = lambda syn: not syn`, frame.ClassIPv4Fragment, fields{frame.IPProtocol: 6}, false, rule.WhyFragment, "allow_tcp"},
		{"nor does an unused variable", `allow_tcp = lambda dst_port: [dst_port == 80] and True`, frame.ClassIPv6Fragment, fields{frame.IPProtocol: 6}, false, rule.WhyFragment, "allow_tcp"},
		{"nor returning it", `allow_tcp = lambda dst_port: dst_port`, frame.ClassIPv6Fragment, fields{frame.IPProtocol: 6}, false, rule.WhyFragment, "allow_tcp"},
		{"dhcp is udp", `allow_udp = True`, frame.ClassIPv4DHCP, nil, true, rule.WhyPredicate, "allow_udp"},
		{"dhcp over ipv6 too", `allow_udp = lambda dst_port: dst_port == 547`, frame.ClassIPv6DHCP, fields{frame.DstPort: 547}, true, rule.WhyPredicate, "allow_udp"},
		{"without udp it is unspoken", `allow_tcp = True`, frame.ClassIPv4DHCP, nil, false, rule.WhyUnspoken, "udp"},
		{"unless dhcp is there", `allow_udp = True, allow_dhcp = False`, frame.ClassIPv4DHCP, nil, false, rule.WhyPredicate, "allow_dhcp"},
		{"dhcp alone leaves udp unspoken", `allow_dhcp = True`, frame.ClassIPv4UDP, nil, false, rule.WhyUnspoken, "udp"},
		{"fields of dhcp", `allow_dhcp = lambda op, message_type, requested_ip, server_ip: op == 1 and message_type == 3 and requested_ip == ip("10.0.0.7") and server_ip == ip("10.0.0.1")`,
			frame.ClassIPv4DHCP, fields{frame.DHCPType: 3, frame.DHCPRequested4: "10.0.0.7", frame.DHCPServer4: "10.0.0.1"}, true, rule.WhyPredicate, "allow_dhcp"},
		{"fields of dhcpv6", `allow_dhcp = lambda message_type, requested_ip, server_ip: message_type == 3 and requested_ip == ip("fd00::7") and server_ip == ip("::")`,
			frame.ClassIPv6DHCP, fields{frame.DHCPType: 3, frame.DHCPRequested6: "fd00::7"}, true, rule.WhyPredicate, "allow_dhcp"},
		{"direction", `allow_arp = lambda direction: direction == "egress"`, frame.ClassARP, nil, true, rule.WhyPredicate, "allow_arp"},
		{"mac of the ARP body", `allow_arp = lambda dst_mac: dst_mac == mac("02:00:00:00:00:77")`, frame.ClassARP, fields{frame.ARPTargetMAC: frame.MAC{2, 0, 0, 0, 0, 0x77}}, true, rule.WhyPredicate, "allow_arp"},
		{"fields of lower layers", `allow_tcp = lambda src_mac, dst_ip, ttl, hop_limit, vlan: src_mac.is_local and ttl == hop_limit and vlan == 0`, frame.ClassIPv6TCP, nil, true, rule.WhyPredicate, "allow_tcp"},
		{"families do not mix", `allow_tcp = lambda dst_ip: dst_ip in net("0.0.0.0/0") or dst_ip < ip("255.255.255.255")`, frame.ClassIPv6TCP, nil, false, rule.WhyPredicate, "allow_tcp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := "P = policy(" + tt.args + ")\n"
			p, prog := compile(t, src)
			forward, why := agree(t, src, p, prog, key(tt.class, tt.fields))
			if forward != tt.forward || why.Kind != tt.kind || why.Name != tt.why {
				t.Errorf("policy(%s) on %s = %v, %v %q; want %v, %v %q", tt.args, tt.class, forward, why.Kind, why.Name, tt.forward, tt.kind, tt.why)
			}
			if why.Pos.Line != 1 {
				t.Errorf("the reason has line %d, want 1", why.Pos.Line)
			}
		})
	}
}

// TestGuards sends what guards are there against, past predicates that allow
// everything; each frame passes once its guard is off.
func TestGuards(t *testing.T) {
	const all = "allow_arp = True, allow_ipv4 = True, allow_ipv6 = True"
	other := frame.MAC{2, 0, 10, 0, 0, 9}
	for _, tt := range []struct {
		name   string
		class  frame.Class
		fields fields
		guard  string // "" where it passes
	}{
		{"honest arp", frame.ClassARP, nil, ""},
		{"honest ipv4", frame.ClassIPv4TCP, nil, ""},
		{"honest ipv6", frame.ClassIPv6TCP, nil, ""},
		{"vlan tag", frame.ClassIPv4TCP, fields{frame.VLANTags: 1}, "vlan"},
		{"source mac", frame.ClassIPv4TCP, fields{frame.EthSrc: other}, "mac"},
		{"arp sender mac", frame.ClassARP, fields{frame.ARPSenderMAC: other}, "mac"},
		{"ipv4 source", frame.ClassIPv4UDP, fields{frame.IPv4Src: "10.0.0.9"}, "ip"},
		{"dhcp client source", frame.ClassIPv4UDP, fields{frame.IPv4Src: "0.0.0.0", frame.SrcPort: 68, frame.DstPort: 67}, "ip"},
		{"ipv6 source", frame.ClassIPv6UDP, fields{frame.IPv6Src: "fd00::9"}, "ip"},
		{"own link-local", frame.ClassIPv6UDP, fields{frame.IPv6Src: "fe80::aff:fe00:5"}, ""},
		{"link-local of another", frame.ClassIPv6UDP, fields{frame.IPv6Src: "fe80::aff:fe00:9"}, "ip"},
		{"unspecified source", frame.ClassIPv6UDP, fields{frame.IPv6Src: "::"}, "ip"},
		{"mld report of the unspecified source", frame.ClassIPv6ICMP, fields{frame.IPv6Src: "::", frame.ICMPType: 143}, ""},
		{"echo from the unspecified source", frame.ClassIPv6ICMP, fields{frame.IPv6Src: "::", frame.ICMPType: 128}, "ip"},
		{"duplicate address detection", frame.ClassIPv6NDP, fields{frame.IPv6Src: "::", frame.ICMPType: 135, frame.NDPTarget: "fd00::5", frame.NDPLinkMAC: 0}, ""},
		{"detection of another's address", frame.ClassIPv6NDP, fields{frame.IPv6Src: "::", frame.ICMPType: 135, frame.NDPTarget: "fd00::9", frame.NDPLinkMAC: 0}, "ip"},
		{"arp sender", frame.ClassARP, fields{frame.ARPSenderIP: "10.0.0.9"}, "arp"},
		{"arp probe of the own address", frame.ClassARP, fields{frame.ARPSenderIP: "0.0.0.0", frame.ARPTargetIP: "10.0.0.5"}, ""},
		{"arp probe of another's", frame.ClassARP, fields{frame.ARPSenderIP: "0.0.0.0", frame.ARPTargetIP: "10.0.0.9"}, "arp"},
		{"arp reply of nobody", frame.ClassARP, fields{frame.ARPSenderIP: "0.0.0.0", frame.ARPTargetIP: "10.0.0.5", frame.ARPOp: 2}, "arp"},
		{"solicitation", frame.ClassIPv6NDP, fields{frame.NDPTarget: "fd00::9"}, ""},
		{"solicitation with a stranger's link address", frame.ClassIPv6NDP, fields{frame.NDPTarget: "fd00::9", frame.NDPLinkMAC: other}, "ndp"},
		{"advertisement", frame.ClassIPv6NDP, fields{frame.ICMPType: 136}, ""},
		{"advertisement without a link address", frame.ClassIPv6NDP, fields{frame.ICMPType: 136, frame.NDPLinkMAC: 0}, ""},
		{"advertisement of another's address", frame.ClassIPv6NDP, fields{frame.ICMPType: 136, frame.NDPTarget: "fd00::9"}, "ndp"},
		{"advertisement with a stranger's link address", frame.ClassIPv6NDP, fields{frame.ICMPType: 136, frame.NDPLinkMAC: other}, "ndp"},
		{"router solicitation", frame.ClassIPv6NDP, fields{frame.ICMPType: 133, frame.NDPTarget: "::"}, ""},
		{"router solicitation with a stranger's link address", frame.ClassIPv6NDP, fields{frame.ICMPType: 133, frame.NDPTarget: "::", frame.NDPLinkMAC: other}, "ndp"},
		{"router advertisement", frame.ClassIPv6NDP, fields{frame.ICMPType: 134, frame.NDPTarget: "::", frame.NDPLinkMAC: other}, "ra"},
		{"redirect", frame.ClassIPv6NDP, fields{frame.ICMPType: 137, frame.NDPTarget: "fd00::9"}, "ra"},
		{"icmp redirect", frame.ClassIPv4ICMP, fields{frame.ICMPType: 5}, "ra"},
		{"icmp error", frame.ClassIPv4ICMP, fields{frame.ICMPType: 3, frame.ICMPAbout4: "10.0.0.5"}, ""},
		{"icmp error about another's packet", frame.ClassIPv4ICMP, fields{frame.ICMPType: 3, frame.ICMPCode: 4, frame.ICMPAbout4: "10.0.0.9"}, "ip"},
		{"icmpv6 error", frame.ClassIPv6ICMP, fields{frame.ICMPType: 1, frame.ICMPAbout6: "fd00::5"}, ""},
		{"icmpv6 error about another's packet", frame.ClassIPv6ICMP, fields{frame.ICMPType: 2, frame.ICMPAbout6: "fd00::9"}, "ip"},
		{"redirect of another's packet", frame.ClassIPv4ICMP, fields{frame.ICMPType: 5, frame.ICMPAbout4: "10.0.0.9"}, "ra"},
		{"dhcp client", frame.ClassIPv4UDP, fields{frame.SrcPort: 68, frame.DstPort: 67}, ""},
		{"dhcpv6 client", frame.ClassIPv6UDP, fields{frame.SrcPort: 546, frame.DstPort: 547}, ""},
		{"dhcp of the own card", frame.ClassIPv4DHCP, fields{frame.SrcPort: 68, frame.DstPort: 67}, ""},
		{"dhcpv6 of the own card", frame.ClassIPv6DHCP, fields{frame.SrcPort: 546, frame.DstPort: 547}, ""},
		{"dhcp for another's card", frame.ClassIPv4DHCP, fields{frame.SrcPort: 68, frame.DstPort: 67, frame.DHCPClientMAC: other}, "dhcp"},
		{"dhcp server's answer", frame.ClassIPv4DHCP, fields{frame.SrcPort: 67, frame.DstPort: 67, frame.DHCPOp: 2}, "dhcp"},
		{"dhcp relay", frame.ClassIPv4DHCP, fields{frame.SrcPort: 68, frame.DstPort: 67, frame.DHCPRelayed: 1}, "dhcp"},
		{"dhcpv6 server's answer", frame.ClassIPv6DHCP, fields{frame.SrcPort: 1547, frame.DstPort: 547, frame.DHCPOp: 2}, "dhcp"},
		{"dhcpv6 relay", frame.ClassIPv6DHCP, fields{frame.SrcPort: 546, frame.DstPort: 547, frame.DHCPRelayed: 1}, "dhcp"},
		{"dhcp to clients", frame.ClassIPv4DHCP, fields{frame.SrcPort: 1067, frame.DstPort: 68}, "dhcp"},
		{"dhcp server at another port", frame.ClassIPv4UDP, fields{frame.SrcPort: 1067, frame.DstPort: 68}, "dhcp"},
		{"dhcpv6 server at another port", frame.ClassIPv6UDP, fields{frame.SrcPort: 1547, frame.DstPort: 546}, "dhcp"},
		{"dhcp server", frame.ClassIPv4UDP, fields{frame.SrcPort: 67}, "dhcp"},
		{"dhcpv6 server", frame.ClassIPv6UDP, fields{frame.SrcPort: 547}, "dhcp"},
		{"port 547 is nothing in IPv4", frame.ClassIPv4UDP, fields{frame.SrcPort: 547}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := key(tt.class, tt.fields)
			src := "\nP = policy(" + all + ")\n"
			p, prog := compile(t, src)
			forward, why := agree(t, src, p, prog, k)
			if forward != (tt.guard == "") || !forward && (why.Kind != rule.WhyGuard || why.Name != tt.guard) {
				t.Errorf("%s = %v, %v %q; want guard %q", tt.class, forward, why.Kind, why.Name, tt.guard)
			}
			if why.Pos.Line != 2 {
				t.Errorf("the reason has line %d, want 2", why.Pos.Line)
			}
			if tt.guard == "" {
				return
			}
			for _, off := range []string{`["` + tt.guard + `"]`, `"off"`} {
				src := "P = policy(" + all + ", guard = " + off + ")\n"
				p, prog := compile(t, src)
				if forward, why := agree(t, src, p, prog, k); !forward {
					t.Errorf("guard = %s: still dropped by %v %q", off, why.Kind, why.Name)
				}
			}
		})
	}
}

// TestPositions: a drop names the line of the expression that decided.
func TestPositions(t *testing.T) {
	src := `
def helper(a):
    if a == ip("10.0.0.9"):
        return True
    return False

def allow_ipv4(dst_ip, ttl):
    near = dst_ip in net("10.0.0.0/24")
    if ttl < 10:
        return False
    return (near and
            helper(dst_ip) and
            ttl != 99)

def allow_arp(dst_ip):
    pass

P = policy(
    allow_ipv4,
    allow_arp,
    allow_icmp = True,
)
`
	p, prog := compile(t, src)
	for _, tt := range []struct {
		class  frame.Class
		fields fields
		line   uint32
	}{
		{frame.ClassIPv4ICMP, fields{frame.IPTTL: 5}, 10},
		{frame.ClassIPv4ICMP, fields{frame.IPv4Dst: "11.0.0.1"}, 8},
		{frame.ClassIPv4ICMP, fields{frame.IPv4Dst: "10.0.0.8"}, 5},
		{frame.ClassIPv4ICMP, fields{frame.IPTTL: 99}, 13},
		{frame.ClassARP, nil, 15},
		{frame.ClassIPv4ICMP, nil, 18},                       // forwarded by allow_icmp = True
		{frame.ClassIPv4ICMP, fields{frame.ICMPType: 5}, 18}, // guard
		{frame.ClassIPv4TCP, nil, 18},                        // unspoken
	} {
		_, why := agree(t, src, p, prog, key(tt.class, tt.fields))
		if why.Pos.Line != tt.line || prog.File(why.Pos) != "p.star" {
			t.Errorf("%s %v: decided at %s:%d; want line %d", tt.class, tt.fields, prog.File(why.Pos), why.Pos.Line, tt.line)
		}
	}
}

// TestPlace: guards name the outermost line that led to the policy.
func TestPlace(t *testing.T) {
	p, prog := compile(t, "def tenant(x):\n    return policy(allow_ipv4 = x)\n\nP = tenant(True)\n")
	if got := p.Pos().String(); got != "p.star:4:11" {
		t.Errorf("Pos() = %s; want p.star:4:11", got)
	}
	out := prog.Run(key(frame.ClassIPv4TCP, fields{frame.VLANTags: 1}))
	if why := prog.Why(out.PC); why.Pos.Line != 4 {
		t.Errorf("guard at line %d; want 4", why.Pos.Line)
	}
	out = prog.Run(key(frame.ClassIPv4TCP, nil))
	if why := prog.Why(out.PC); why.Pos.Line != 2 {
		t.Errorf("constant predicate at line %d; want 2", why.Pos.Line)
	}
}

// TestLarge: a large collection becomes one lookup, however it is written.
func TestLarge(t *testing.T) {
	for _, src := range []string{
		manyPolicy(100_000),
		"PEERS = [ip(\"11.0.0.0\") + 3 * i for i in range(2000)]\nP = policy(allow_ipv4 = lambda dst_ip: dst_ip in PEERS)\n",
		"PEERS = [ip(\"11.0.0.0\") + 3 * i for i in range(2000)]\nP = policy(allow_ipv4 = lambda dst_ip: any([dst_ip == p for p in PEERS]))\n",
		"PEERS = [net(ip(\"11.0.0.0\") + 12 * i, 31) for i in range(2000)]\nP = policy(allow_ipv4 = lambda dst_ip: dst_ip in PEERS)\n",
	} {
		p, prog := compile(t, src)
		if prog.Len() > 100 {
			t.Errorf("%d instructions; want a table", prog.Len())
		}
		for addr, want := range map[string]bool{"11.0.0.0": true, "11.0.0.12": true, "11.0.0.2": false, "10.255.255.255": false, "12.0.0.0": false} {
			k := key(frame.ClassIPv4TCP, fields{frame.IPv4Dst: addr})
			if forward, _ := agree(t, src[:min(len(src), 200)], p, prog, k); forward != want {
				t.Errorf("dst_ip %s = %v; want %v", addr, forward, want)
			}
		}
	}
}

// TestPolicyValue is what a policy shows of itself.
func TestPolicyValue(t *testing.T) {
	p := load(t, `P = policy(allow_udp = True, allow_arp = False, allow_ipv6 = True, mode = "audit", guard = ["vlan", "dhcp"])`)
	if got, want := p.String(), "policy(allow_arp, allow_ipv6, allow_udp)"; got != want {
		t.Errorf("String() = %s; want %s", got, want)
	}
	if p.Mode() != "audit" {
		t.Errorf("Mode() = %s; want audit", p.Mode())
	}
	if got := strings.Join(p.GuardsOff(), " "); got != "dhcp vlan" {
		t.Errorf("GuardsOff() = %s; want dhcp vlan", got)
	}
	if _, err := p.Hash(); err == nil {
		t.Error("Hash() = nil error; want unhashable")
	}
	if _, _, err := p.Judge(identity, new(frame.Key)); err == nil {
		t.Error("Judge of an unparsed frame: no error")
	}
	if _, err := exec(`L = [1]
P = policy(allow_arp = lambda op, l = L: op in l)
L.append(2)`); err == nil || !strings.Contains(err.Error(), "frozen") {
		t.Errorf("what a predicate captured can be changed after policy(): %v", err)
	}
}

// TestDeterministic: the same file gives the same program, byte for byte.
func TestDeterministic(t *testing.T) {
	_, first := compile(t, benchPolicy)
	for range 5 {
		if _, again := compile(t, benchPolicy); again.Hash() != first.Hash() {
			t.Fatalf("two programs from one file:\n%s\n%s", rule.Disassemble(first), rule.Disassemble(again))
		}
	}
}

// TestLargeSets: 100,000 MACs, IPv6 addresses and prefixes of both versions
// become one table each, in well under a second.
func TestLargeSets(t *testing.T) {
	const hex = `
HEX = "0123456789abcdef"
def two(n):
    return HEX[n // 16] + HEX[n % 16]
N = 100000
`
	for _, tt := range []struct {
		name, src string
		class     frame.Class
		field     frame.Field
		in, out   any
		kind      rule.TableKind
	}{
		{"macs", `SET = [mac("02:00:07:%s:%s:%s" % (two(i >> 16), two(i >> 8 & 255), two(i & 255))) for i in range(0, 3 * N, 3)]
P = policy(allow_ipv4 = lambda dst_mac: dst_mac in SET)`,
			frame.ClassIPv4TCP, frame.EthDst, frame.MAC{2, 0, 7, 1, 0, 2}, frame.MAC{2, 0, 7, 1, 0, 1}, rule.TableExact64},
		{"ipv6 addresses", `SET = [ip("2001:db8::") + 5 * i for i in range(N)]
P = policy(allow_ipv6 = lambda dst_ip: dst_ip in SET)`,
			frame.ClassIPv6TCP, frame.IPv6Dst, "2001:db8::a", "2001:db8::b", rule.TableExact128},
		{"ipv4 prefixes", `SET = [net(ip("11.0.0.0") + 96 * i, 27 + i % 3) for i in range(N)]
P = policy(allow_ipv4 = lambda dst_ip: dst_ip in SET)`,
			frame.ClassIPv4TCP, frame.IPv4Dst, "11.0.0.31", "11.0.0.32", rule.TablePrefix32},
		{"ipv6 prefixes", `SET = [net(ip("2001:db8::") + (i << 70), 60) for i in range(N)]
P = policy(allow_ipv6 = lambda dst_ip: dst_ip in SET)`,
			frame.ClassIPv6TCP, frame.IPv6Dst, "2001:db8:0:40::1", "2001:db8:0:30::1", rule.TablePrefix128},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := load(t, hex+tt.src)
			prog, err := p.Compile(identity)
			if err != nil {
				t.Fatal(err)
			}
			u := prog.Unit()
			if prog.Len() > 100 || len(u.Tables) != 1 || u.Tables[0].Kind != tt.kind || u.Tables[0].Len() < 50_000 {
				t.Errorf("%d instructions, %d tables; want one of kind %v", prog.Len(), len(u.Tables), tt.kind)
			}
			for v, want := range map[any]bool{tt.in: true, tt.out: false} {
				if forward, _ := agree(t, tt.name, p, prog, key(tt.class, fields{tt.field: v})); forward != want {
					t.Errorf("%v in the set = %v, want %v", v, forward, want)
				}
			}
		})
	}
}
