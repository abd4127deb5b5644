package policy_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule/ruletest"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"

	"go.starlark.net/starlark"
)

// A gen writes predicates from a string of bytes, each of them a choice, so
// that the fuzzer can change a program by changing a byte. Behind the end all
// choices are 0, which always leads to a leaf.
type gen struct {
	data   []byte
	name   string   // of the predicate
	params []string // its fields
	vars   []string // integer variables
	depth  int
	lambda int
}

func (g *gen) n(n int) int {
	if len(g.data) == 0 {
		return 0
	}
	b := g.data[0]
	g.data = g.data[1:]
	return int(b) % n
}

func (g *gen) pick(xs ...string) string { return xs[g.n(len(xs))] }

// field is a parameter of one of the kinds, "" where the predicate has none.
func (g *gen) field(names ...string) string {
	var have []string
	for _, p := range g.params {
		if slices.Contains(names, p) {
			have = append(have, p)
		}
	}
	if len(have) == 0 {
		return ""
	}
	return have[g.n(len(have))]
}

var (
	intFields  = []string{"op", "protocol", "ttl", "hop_limit", "dscp", "src_port", "dst_port", "type", "code", "vlan", "vlan_tags", "length", "ethertype", "message_type"}
	boolFields = []string{"syn", "ack", "fin", "rst", "fragment"}
	ipFields   = []string{"src_ip", "dst_ip", "target_ip", "requested_ip", "server_ip"}
	macFields  = []string{"src_mac", "dst_mac", "link_mac"}
)

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// deep reports that the expression must end here.
func (g *gen) deep() bool { return g.depth > 4 || len(g.data) == 0 }

func (g *gen) ip() string {
	g.depth++
	defer func() { g.depth-- }()
	if !g.deep() && g.n(6) == 5 {
		return fmt.Sprintf("(%s if %s else %s)", g.ip(), g.bool(), g.ip())
	}
	if f := g.field(ipFields...); f != "" && g.n(2) == 0 {
		return f
	}
	return g.pick(`ip("10.0.0.9")`, `ip("10.0.0.5")`, `GATEWAY`, `ip("fd00::9")`, `ip("0.0.0.0")`, `ip("255.255.255.255")`, `ip("::")`)
}

func (g *gen) mac() string {
	if f := g.field(macFields...); f != "" && g.n(2) == 0 {
		return f
	}
	return g.pick(`mac("02:00:0a:00:00:09")`, `mac("ff:ff:ff:ff:ff:ff")`, `mac("01:00:5e:00:00:01")`)
}

func (g *gen) nets() string {
	return g.pick(`net("10.0.0.0/24")`, `NETS`, `net("fd00::/64")`, `(ip("10.0.0.9"), GATEWAY)`, `[net("10.0.0.8/29"), ip("fd00::9")]`,
		`MANY`, `{ip("10.0.0.9"): 1, ip("fd00::7"): 2}`, `set([ip("10.0.0.9")])`, `[]`, `net("0.0.0.0/0")`)
}

func (g *gen) int() string {
	g.depth++
	defer func() { g.depth-- }()
	if g.deep() {
		return or(g.field(intFields...), g.pick("1", "6", "80"))
	}
	switch g.n(17) {
	default:
		return or(g.field(intFields...), "7")
	case 4:
		return g.pick("0", "1", "2", "6", "17", "64", "80", "443", "135", "65535", "-1", "1024")
	case 5:
		return fmt.Sprintf("(%s %s %s)", g.int(), g.pick("+", "-", "&", "|", "^"), g.int())
	case 6:
		return fmt.Sprintf("((%s & 0xffff) * %s)", g.int(), g.pick("2", "3", "-1", "1000"))
	case 7:
		return fmt.Sprintf("(%s %s %s)", g.int(), g.pick("//", "%"), g.pick("2", "3", "-3", "7", "256", "(1 + (1 & "+g.int()+"))"))
	case 8:
		return fmt.Sprintf("(%s %s %s)", g.int(), g.pick(">>", "<<"), g.pick("1", "3", "8", "(3 & "+g.int()+")"))
	case 9:
		return g.pick("-", "~", "+") + g.int()
	case 10:
		return fmt.Sprintf("(%s if %s else %s)", g.int(), g.bool(), g.int())
	case 11:
		return fmt.Sprintf("%s(%s, %s)", g.pick("min", "max"), g.int(), g.int())
	case 12:
		return fmt.Sprintf("len([0 for q in range(%s) if %s])", g.pick("1", "2", "3"), g.boolWith("q"))
	case 13:
		return fmt.Sprintf("%s.get(%s, %s)", g.pick("{6: 1, 17: 2}", "{80: 443, 443: 80, 53: 53}"), g.int(), g.int())
	case 14:
		return fmt.Sprintf("twice(%s)", g.int())
	case 15:
		if len(g.vars) > 0 {
			return g.vars[g.n(len(g.vars))]
		}
		return "3"
	case 16:
		return fmt.Sprintf("abs(%s)", g.int())
	}
}

// boolWith is a condition in which an integer variable may occur.
func (g *gen) boolWith(v string) string {
	g.vars = append(g.vars, v)
	defer func() { g.vars = g.vars[:len(g.vars)-1] }()
	return g.bool()
}

func (g *gen) ints() string {
	return g.pick("(80, 443)", "[80, 443, 53, 22, 8080]", "range(10)", "range(1024, 65536)", `ports("80,443,8000-8999")`, "set([6, 17])",
		"{1: 0, 6: 0}", "(0, 1, 2)", "[ports(80), 443]", "range(0, 256, 3)", "[]", "PORTS")
}

func (g *gen) bool() string {
	g.depth++
	defer func() { g.depth-- }()
	if g.deep() {
		return or(g.field(boolFields...), or(g.field(intFields...), "True"))
	}
	switch g.n(24) {
	case 21:
		return g.question()
	case 22:
		return g.pick("limited()", "limited(3)")
	case 0:
		return fmt.Sprintf("%s %s %s", g.int(), g.pick("==", "!=", "<", "<=", ">", ">="), g.int())
	case 1:
		return fmt.Sprintf("%s in %s", g.int(), g.ints())
	case 2:
		return fmt.Sprintf("%s not in %s", g.int(), g.ints())
	case 3:
		return fmt.Sprintf("%s %s %s", g.ip(), g.pick("==", "!="), g.ip())
	case 4:
		return fmt.Sprintf("%s %s %s", g.ip(), g.pick("in", "not in"), g.nets())
	case 5:
		return fmt.Sprintf("%s %s %s", g.mac(), g.pick("==", "!="), g.mac())
	case 6:
		return "(" + g.bool() + " and " + g.bool() + ")"
	case 7:
		return "(" + g.bool() + " or " + g.bool() + ")"
	case 8:
		return "not (" + g.bool() + ")"
	case 9:
		return fmt.Sprintf("(%s if %s else %s)", g.bool(), g.bool(), g.bool())
	case 10:
		return fmt.Sprintf("%s([%s for n in NETS])", g.pick("any", "all"), g.pick(g.ip()+" in n", g.bool()))
	case 11:
		return fmt.Sprintf("%s([%s, %s])", g.pick("any", "all"), g.bool(), g.bool())
	case 12:
		return fmt.Sprintf("allowed(%s, %s)", g.ip(), g.int())
	case 13:
		return fmt.Sprintf("%s.%s", g.mac(), g.pick("is_multicast", "is_broadcast", "is_local"))
	case 14:
		return fmt.Sprintf("%s.%s", g.ip(), g.pick("is_multicast", "is_private", "is_link_local", "is_loopback"))
	case 15:
		return g.pick("True", "False", "None", "0", "1", `""`, `"x"`, "[]")
	case 16:
		return fmt.Sprintf("(%s, %s) in %s", g.ip(), g.int(), g.pick(`[(ip("10.0.0.9"), 80), (GATEWAY, 443)]`, `{(ip("fd00::9"), 6): 1}`))
	case 17:
		return fmt.Sprintf("%s in (%s, %s)", g.ip(), g.ip(), g.ip())
	case 18:
		return fmt.Sprintf("bool(%s)", g.int())
	case 19:
		return fmt.Sprintf("(lambda x: x %s %s)(%s)", g.pick("==", "<"), g.int(), g.int())
	case 20:
		return fmt.Sprintf("%s %s %s", or(g.field(ipFields...), "GATEWAY"), g.pick("<", "<=", ">", ">="), g.pick(`ip("10.0.0.9")`, `ip("fd00::9")`, `ip("0.0.0.0")`, `ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")`))
	}
	return or(g.field(boolFields...), g.int())
}

// question asks what earlier frames left behind.
func (g *gen) question() string {
	rate := g.pick(`rate("1/s")`, `rate("3/s", burst = 2)`, `rate("1000/s", burst = 1)`, `rate("10/m", 4)`)
	switch g.name {
	case "allow_arp", "allow_ndp":
		return g.pick("answered()", rate)
	case "allow_tcp", "allow_udp", "allow_dhcp":
		return g.pick("established()", rate)
	}
	return g.pick("established()", "answered()", rate)
}

func (g *gen) block(indent string, loop bool, b *strings.Builder) {
	for range 1 + g.n(3) {
		g.stmt(indent, loop, b)
	}
}

func (g *gen) stmt(indent string, loop bool, b *strings.Builder) {
	g.depth++
	defer func() { g.depth-- }()
	choice := g.n(9)
	if g.depth > 4 {
		choice %= 4
	}
	switch choice {
	case 0, 1:
		fmt.Fprintf(b, "%sv = %s\n", indent, g.int())
	case 2:
		fmt.Fprintf(b, "%sw, v = v, %s\n", indent, g.int())
	case 3:
		if loop {
			fmt.Fprintf(b, "%sif %s:\n%s    %s\n", indent, g.bool(), indent, g.pick("break", "continue", "return v", "pass"))
			return
		}
		fmt.Fprintf(b, "%sw = (w & 0xffff) + 1\n", indent)
	case 4:
		fmt.Fprintf(b, "%sif %s:\n%s    return %s\n", indent, g.bool(), indent, g.bool())
	case 5:
		fmt.Fprintf(b, "%sif %s:\n", indent, g.bool())
		g.block(indent+"    ", loop, b)
		fmt.Fprintf(b, "%selif %s:\n", indent, g.bool())
		g.block(indent+"    ", loop, b)
		fmt.Fprintf(b, "%selse:\n", indent)
		g.block(indent+"    ", loop, b)
	case 6:
		fmt.Fprintf(b, "%sfor i in %s:\n", indent, g.pick("range(3)", "[80, 443]", "[z for z in (1, 2, 6) if "+g.boolWith("z")+"]"))
		g.vars = append(g.vars, "i")
		g.block(indent+"    ", true, b)
		g.vars = g.vars[:len(g.vars)-1]
	case 7:
		fmt.Fprintf(b, "%sdef f%d(x):\n%s    return %s\n%sv = f%d(%s)\n", indent, g.lambda, indent, g.boolWith("x"), indent, g.lambda, g.int())
		g.lambda++
	case 8:
		fmt.Fprintf(b, "%sv = [%s, %s][%s]\n", indent, g.int(), g.int(), g.pick("0", "1", "-1"))
	}
	if choice == 7 { // v may be anything now
		fmt.Fprintf(b, "%sv = 1 if v else 2\n", indent)
	}
}

// function writes one predicate.
func (g *gen) function(name string, fields []string) string {
	g.name, g.params = name, nil
	for _, f := range fields {
		if g.n(3) > 0 {
			g.params = append(g.params, f)
		}
	}
	g.vars = []string{"v", "w"}
	var b strings.Builder
	fmt.Fprintf(&b, "def %s(%s):\n    v, w = 1, 2\n", name, strings.Join(g.params, ", "))
	g.block("    ", false, &b)
	if g.n(4) > 0 {
		fmt.Fprintf(&b, "    return %s\n", g.bool())
	}
	return b.String()
}

const prelude = `
NETS = [net("10.0.0.0/29"), net("10.0.0.8/30"), net("192.168.0.0/16"), net("fd00::/120")]
GATEWAY = ip("10.0.0.1")
MANY = [ip("10.0.0.0") + i for i in range(0, 40, 3)] + [ip("fd00::") + i for i in range(0, 40, 3)]
PORTS = {80: "http", 443: "https", 22: "ssh", 53: "dns", 8080: "alt"}
def limited(n = 2):
    return rate("%d/s" % n)
def twice(x):
    if x < 0:
        return 0
    return 2 * (x & 0xffff)
def allowed(a, n):
    for x in NETS:
        if a in x:
            return n != 80
    return a == GATEWAY and n
`

// program writes a whole policy.
func (g *gen) program() string {
	var b strings.Builder
	b.WriteString(prelude)
	link := []string{"src_mac", "dst_mac", "ethertype", "vlan", "vlan_tags", "length"}
	ip := []string{"src_ip", "dst_ip", "protocol", "dscp", "fragment"}
	known := []struct {
		name   string
		fields []string
	}{
		{"allow_tcp", slices.Concat([]string{"src_port", "dst_port", "syn", "ack", "fin", "rst", "ttl"}, ip, link[:1])},
		{"allow_arp", []string{"op", "src_mac", "src_ip", "dst_mac", "dst_ip", "length"}},
		{"allow_ipv4", slices.Concat(ip, []string{"ttl"}, link[:2])},
		{"allow_ipv6", slices.Concat(ip, []string{"hop_limit"}, link[:2])},
		{"allow_udp", slices.Concat([]string{"src_port", "dst_port"}, ip)},
		{"allow_icmp", slices.Concat([]string{"type", "code", "hop_limit"}, ip[:2])},
		{"allow_ethernet", link},
		{"allow_ndp", []string{"type", "target_ip", "link_mac", "src_ip"}},
		{"allow_dhcp", []string{"op", "message_type", "requested_ip", "server_ip", "dst_port", "dst_ip"}},
	}
	var args []string
	for i, k := range known {
		switch g.n(3) + b2i(i < 1 || i == 2 || i == 3)*3 { // so that no predicate judges nothing
		case 0:
			continue
		case 1:
			args = append(args, k.name+" = "+g.pick("True", "True", "False"))
		default:
			b.WriteString(g.function(k.name, k.fields))
			args = append(args, k.name+" = "+g.pick(k.name, k.name, k.name, "audit("+k.name+")"))
		}
	}
	if n := g.n(4); n > 0 {
		args = append(args, "guard = "+g.pick(`"off"`, `["ip", "mac"]`, `["arp", "ndp", "ip", "vlan"]`))
	}
	if g.n(3) == 0 {
		args = append(args, g.ingress(&b))
	}
	fmt.Fprintf(&b, "P = policy(%s)\n", strings.Join(args, ", "))
	return b.String()
}

// ingress is a policy for what the container is sent.
func (g *gen) ingress(b *strings.Builder) string {
	b.WriteString(strings.Replace(g.function("allow_ipv4", []string{"src_ip", "dst_ip", "protocol", "ttl", "direction"}), "def allow_ipv4", "def ipv4_in", 1))
	b.WriteString(strings.Replace(g.function("allow_arp", []string{"op", "src_ip", "dst_ip"}), "def allow_arp", "def arp_in", 1))
	return `ingress = {"allow_ipv4": ` + g.pick("ipv4_in", "audit(ipv4_in)") + `, "allow_arp": arp_in, "allow_ipv6": ` + g.pick("True", "audit(False)") + `}`
}

func put(k *frame.Key, f frame.Field, v [2]uint64) {
	if i := f.Info(); i.Width == 128 {
		k.Words[i.Word], k.Words[i.Word+1] = v[0], v[1]
		return
	}
	set(k, f, v[1])
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// randomKey is a frame of any class whose fields are often those that
// policies speak about. It keeps the promises of the parser.
func randomKey(r *rand.Rand) *frame.Key {
	c := frame.Class(1 + r.IntN(int(frame.NumClasses)-1))
	k := key(c, nil)
	for f := frame.Field(1); f < frame.NumFields; f++ {
		if !c.Has(f) || r.IntN(3) == 0 {
			continue
		}
		switch f {
		case frame.EthSrc, frame.ARPSenderMAC, frame.ARPSenderIP, frame.IPv4Src, frame.IPv6Src, frame.VLANTags, frame.DHCPOp, frame.DHCPRelayed, frame.DHCPClientMAC:
			if r.IntN(5) > 0 {
				continue // or hardly a frame gets past the guards
			}
		}
		switch f {
		case frame.EtherType, frame.IPFragment:
			continue
		case frame.IPProtocol:
			if c == frame.ClassIPv4Fragment || c == frame.ClassIPv6Fragment {
				set(k, f, []int{1, 6, 17, 58, 47}[r.IntN(5)])
			}
			continue
		case frame.ARPOp:
			set(k, f, 1+r.IntN(2))
			continue
		case frame.DHCPOp:
			set(k, f, 1+r.IntN(2))
			continue
		case frame.VLANTags:
			set(k, f, max(0, r.IntN(6)-3))
			continue
		case frame.ICMPType:
			if c == frame.ClassIPv6NDP {
				set(k, f, 133+r.IntN(5))
			} else {
				set(k, f, []int{0, 8, 5, 9, 128, 131, 143, 3}[r.IntN(8)])
			}
			continue
		}
		switch f.Kind() {
		case frame.KindBool:
			set(k, f, r.IntN(2))
		case frame.KindMAC:
			set(k, f, []uint64{identity.MAC.Uint64(), 0x02000a000009, 1<<48 - 1, 0x01005e000001, 0, r.Uint64N(1 << 48)}[r.IntN(6)])
		case frame.KindIPv4:
			set(k, f, []string{"10.0.0.5", "10.0.0.9", "10.0.0.1", "0.0.0.0", "10.0.0.8", "192.168.3.4", "255.255.255.255", "224.0.0.1", "10.0.0.12", "8.8.8.8"}[r.IntN(10)])
		case frame.KindIPv6:
			set(k, f, []string{"fd00::5", "fd00::9", "::", "fe80::ff:fe00:5", "ff02::1", "fd00::7", "fd00::c", "2001:db8::1", "fe80::aff:fe00:5", "::1"}[r.IntN(10)])
		default:
			set(k, f, []uint64{0, 1, 2, 6, 17, 22, 53, 64, 67, 80, 443, 547, 8080, 1024, 65535, r.Uint64N(1 << f.Width())}[r.IntN(16)]&(1<<f.Width()-1))
		}
	}
	return k
}

// differ compiles a program written from data and compares it with the oracle
// on frames; ok is false where the program has a mistake.
func differ(t *testing.T, data []byte, seed uint64, frames int) (ok bool) {
	t.Helper()
	return duelOn(t, data, seed, frames, func(*duel) {})
}

// duelOn is differ with something done before the first frame.
func duelOn(t *testing.T, data []byte, seed uint64, frames int, before func(*duel)) (ok bool) {
	src := (&gen{data: data}).program()
	p := load(t, src)
	prog, err := p.Compile(identity)
	if err != nil {
		if !strings.HasPrefix(err.Error(), "p.star:") {
			t.Fatalf("error without a position: %v\n%s", err, src)
		}
		return false
	}
	r := rand.New(rand.NewPCG(seed, 1))
	d := startDuel(t, src, p, prog, identity)
	before(d)
	var earlier [8]*frame.Key
	for i := range frames {
		d.memory.Now += []int64{0, 1, 1e5, 1e8, 3e8, 2e9, 40e9, 200e9}[r.IntN(8)]
		k, ingress := randomKey(r), r.IntN(3) == 0
		if e := earlier[r.IntN(len(earlier))]; e != nil && r.IntN(2) == 0 {
			k = ruletest.Reversed(e)
		}
		earlier[i%len(earlier)] = k
		d.judge(k, ingress)
	}
	return true
}

// TestDifferential compares programs with the interpreter on random
// predicates; FuzzCompile does the same with a guide.
func TestDifferential(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 141))
	programs, good := 700, 0
	if testing.Short() {
		programs = 200
	}
	for i := range programs {
		data := make([]byte, 20+r.IntN(1000))
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		if differ(t, data, uint64(i), 60) {
			good++
		}
	}
	t.Logf("%d of %d programs compile", good, programs)
	if good < programs/2 {
		t.Errorf("only %d of %d random programs compile: the test has lost its grip", good, programs)
	}
}

func FuzzCompile(f *testing.F) {
	r := rand.New(rand.NewPCG(27, 18))
	for range 20 {
		data := make([]byte, 200)
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		f.Add(data, uint64(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) { differ(t, data, seed, 40) })
}

// FuzzSource compiles any text: it may be refused, but nothing panics, and
// what compiles is a program.
func FuzzSource(f *testing.F) {
	for _, name := range []string{"good", "errors", "bench", "tenant", "shapes", "memory"} {
		b, err := os.ReadFile("../../testdata/policy/" + name + ".star")
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(b), "\n---\n") {
			f.Add(part)
		}
	}
	f.Fuzz(func(t *testing.T, src string) {
		thread := new(starlark.Thread)
		thread.SetMaxExecutionSteps(100_000)
		g, err := policy.NewSources(value.Builtins()).Exec(thread, "p.star", src)
		if err != nil {
			return
		}
		p, ok := g["P"].(*policy.Policy)
		if !ok {
			return
		}
		if prog, err := p.Compile(identity); (prog == nil) == (err == nil) {
			t.Fatalf("Compile = %v, %v; want a program or an error", prog, err)
		}
	})
}
