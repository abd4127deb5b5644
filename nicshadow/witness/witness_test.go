package witness_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sekimori/nicshadow/brief"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/witness"
)

// program assembles entries; classes that they do not name drop.
func program(t testing.TB, src string) *rule.Program {
	t.Helper()
	var rest []string
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		if !strings.Contains(src, " "+c.String()) {
			rest = append(rest, c.String())
		}
	}
	if len(rest) > 0 {
		src += "\n.entry " + strings.Join(rest, " ") + "\nret drop, unspoken \"rest\"\n"
	}
	u, err := rule.Assemble(src)
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	p, err := rule.New(u)
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return p
}

const (
	yes = "\nret forward, predicate \"p\"\n"
	no  = "\nno:\nret drop, predicate \"p\"\n"
)

func TestDiff(t *testing.T) {
	entry := func(body string) string { return ".entry ipv4-tcp\n" + body + yes + no }
	for _, c := range []struct {
		name, before, after string
		want                string // field=value of the first change; "" for none
		whole               bool
	}{
		{"same", entry("eq port.dst, 80 else no"), entry("eq port.dst, 80 else no"), "", true},
		{"another form", entry("eq port.dst, 80 else no"), entry("ge port.dst, 80 else no\nle port.dst, 80 else no"), "", true},
		{"another order", entry("eq port.dst, 80 else no\neq ip.ttl, 7 else no"), entry("eq ip.ttl, 7 else no\neq port.dst, 80 else no"), "", true},
		{"one port more", entry("eq port.dst, 80 else no"), entry("range port.dst, 80..81 else no"), "port.dst=81", true},
		{"prefix", entry("mask ip4.dst, 10.0.0.0/8 else no"), entry("mask ip4.dst, 10.0.0.0/9 else no"), "ip4.dst=10.128.0.0", true},
		{"a table", ".table prefix32 { 10.0.0.0/8 192.0.2.1/32 }\n" + entry("in ip4.dst, t0 else no"), entry("mask ip4.dst, 10.0.0.0/8 else no"), "ip4.dst=192.0.2.1", true},
		{"a row", entry("row ip.ttl=7, port.dst=80 else no"), entry("eq ip.ttl, 7 else no"), "ip.ttl=7", true},
		{"two fields", entry("eqf port.src, port.dst else no"), entry("eqf port.src, port.dst else no\neq port.src, 7 else no"), "port.src=40000", true},
		{"bits that are no prefix", entry("mask ip4.dst, 0.0.0.1&0.0.0.255 else no"), entry("mask ip4.dst, 0.0.0.3&0.0.0.255 else no"), "ip.proto=6", true},
		{"arithmetic", entry("ldf r0, port.dst\nldi r1, 1\nadd r0, r1\nldi r1, 81\nreq r0, r1 else no"), entry("eq port.dst, 79 else no"), "port.dst=80", true},
		{"arithmetic that is the same", entry("ldf r0, port.dst\nldi r1, 7\nmod r0, r1\nldi r1, 6\nreq r0, r1 else no"), entry("ldf r0, port.dst\nldi r1, 7\nmod r0, r1\nldi r1, 6\nreq r0, r1 else no"), "", true},
		{"arithmetic said otherwise", entry("ldf r0, port.dst\nldi r1, 1\nadd r0, r1\nldi r1, 81\nreq r0, r1 else no"), entry("eq port.dst, 80 else no"), "", true},
		{"arithmetic on two fields", entry("ldf r0, port.dst\nldf r1, port.src\nadd r0, r1\nldi r1, 81\nreq r0, r1 else no"), entry("ldf r0, port.src\nldf r1, port.dst\nadd r0, r1\nldi r1, 81\nreq r0, r1 else no"), "", false},
		{"a division by zero", entry("ldi r1, 8\nldf r0, port.src\ndiv r1, r0\nldi r2, 100\nrlt r1, r2 else no"), entry("ge ip.ttl, 0 else no"), "port.src=0", true},
		{"what does not parse", ".entry ipv4-udp\neq port.dst, 67 else no" + yes + no, ".entry ipv4-udp" + "\nret drop, predicate \"p\"\n", "", true},
		{"neighbour discovery", ".entry ipv6-ndp\neq ip.ttl, 255 else no\neq icmp.code, 0 else no" + yes + no, ".entry ipv6-ndp" + yes, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := witness.Diff(program(t, c.before), program(t, c.after), witness.Limits{})
			if r.Whole() != c.whole || r.Same() != (c.want == "") {
				t.Fatalf("whole, same = %v, %v; want %v, %v: %+v", r.Whole(), r.Same(), c.whole, c.want == "", r)
			}
			if c.want == "" {
				return
			}
			name, want, _ := strings.Cut(c.want, "=")
			f, _ := frame.FieldNamed(name)
			if got := brief.Field(&r.Changes[0].Key, f); got != want {
				t.Errorf("%s = %s; want %s", name, got, want)
			}
		})
	}
}

// A frame is judged as a change says, whatever the class.
func TestDiffEveryClass(t *testing.T) {
	var entries strings.Builder
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		fmt.Fprintf(&entries, ".entry %s\nret forward, predicate \"p\"\n", c)
	}
	r := witness.Diff(program(t, ""), program(t, entries.String()), witness.Limits{})
	seen := map[frame.Class]bool{}
	for _, c := range r.Changes {
		seen[c.Class] = true
		var k frame.Key
		if reason := frame.Parse(c.Frame, &k); reason != frame.OK || k.Class() != c.Class {
			t.Errorf("%s: parses as %s, %s", c.Class, reason, k.Class())
		}
	}
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		if !seen[c] {
			t.Errorf("%s: no frame found", c)
		}
	}
	if !r.Whole() || len(r.Classes) != int(frame.NumClasses)-1 {
		t.Errorf("searched %+v", r.Searched)
	}
}

// Every key of the searched space has a frame that parses to it: else the space
// would hold frames that nobody can send, and lack some that one can.
func TestSpace(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		n := 0
		for range 300 {
			k := witness.Random(c, random)
			b := witness.Build(k)
			var parsed frame.Key
			reason := frame.Parse(b, &parsed)
			if reason != frame.OK {
				t.Errorf("%s: %s: %.100x", c, reason, b)
				continue
			}
			if parsed.Class() != c {
				t.Errorf("%s: parses as %s: %.100x", c, parsed.Class(), b)
			}
			for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
				if c.Has(f) && f != frame.Length && brief.Field(k, f) != brief.Field(&parsed, f) {
					t.Errorf("%s: %s = %s; want %s", c, f, brief.Field(&parsed, f), brief.Field(k, f))
				}
			}
			n++
		}
		if n == 0 {
			t.Errorf("%s: no key", c)
		}
	}
}

// Random programs: what Diff calls the same, no random frame tells apart, and
// what a random frame tells apart, Diff finds.
func TestDiffAgainstSamples(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	differ := 0
	for range 300 {
		a, b := randomBody(random, 3), randomBody(random, 3)
		if random.IntN(2) == 0 {
			b = a + randomBody(random, 1) // near to it
		}
		p, q := program(t, ".entry ipv4-tcp\n"+a+yes+no), program(t, ".entry ipv4-tcp\n"+b+yes+no)
		r := witness.Diff(p, q, witness.Limits{})
		if !r.Same() {
			differ++
		}
		for range 200 {
			k := witness.Random(frame.ClassIPv4TCP, random)
			for _, f := range []frame.Field{frame.SrcPort, frame.DstPort, frame.IPTTL} {
				k.Set(f, 0, random.Uint64N(6))
			}
			if p.Run(k).Verdict != q.Run(k).Verdict && r.Same() && r.Whole() {
				t.Fatalf("said to be the same, but not for %s:\n%s\n---\n%s", brief.Frame(k, nil, 60), a, b)
			}
		}
	}
	if differ < 50 || differ > 290 {
		t.Errorf("%d of 300 pairs differ: the pairs prove nothing", differ)
	}
}

func randomBody(random *rand.Rand, n int) string {
	fields := []string{"port.src", "port.dst", "ip.ttl"}
	var b strings.Builder
	for range n {
		f, v := fields[random.IntN(3)], random.IntN(6)
		switch random.IntN(6) {
		case 0:
			fmt.Fprintf(&b, "eq %s, %d else no\n", f, v)
		case 1:
			fmt.Fprintf(&b, "ne %s, %d else no\n", f, v)
		case 2:
			fmt.Fprintf(&b, "le %s, %d else no\n", f, v)
		case 3:
			fmt.Fprintf(&b, "gt %s, %d else no\n", f, v)
		case 4:
			fmt.Fprintf(&b, "eqf port.src, port.dst else no\n")
		default:
			fmt.Fprintf(&b, "ldf r0, %s\nldi r1, %d\nrle r0, r1 else no\n", f, v)
		}
	}
	return b.String()
}

func TestLimits(t *testing.T) {
	var body strings.Builder
	for i := range 40 {
		fmt.Fprintf(&body, "ne port.dst, %d else no\n", i)
	}
	p := program(t, ".entry ipv4-tcp\n"+body.String()+yes+no)
	q := program(t, "")
	if r := witness.Diff(p, q, witness.Limits{Steps: 3}); r.Whole() || len(r.Cut) == 0 {
		t.Errorf("three steps: %+v", r.Searched)
	}
	if r := witness.Diff(p, q, witness.Limits{Changes: 1}); len(r.Changes) != 1 {
		t.Errorf("%d changes; want 1", len(r.Changes))
	}
}

func TestForwarded(t *testing.T) {
	p := program(t, ".entry arp\neq arp.op, 1 else no\nmask arp.tpa, 10.0.0.0/30 else no\nne arp.tpa, 10.0.0.1 else no"+yes+no)
	of := func(op uint64) string {
		s, whole := witness.Forwarded(p, frame.ClassARP, frame.ARPTargetIP, map[frame.Field]witness.Set{frame.ARPOp: witness.Point(rule.Const{Lo: op})}, witness.Limits{})
		if !whole {
			t.Error("not whole")
		}
		var out []string
		s.Spans(func(lo, hi rule.Const) bool {
			out = append(out, brief.Value(frame.ARPTargetIP, 0, lo.Lo)+"-"+brief.Value(frame.ARPTargetIP, 0, hi.Lo))
			return true
		})
		return strings.Join(out, " ")
	}
	if got := of(1); got != "10.0.0.0-10.0.0.0 10.0.0.2-10.0.0.3" {
		t.Errorf("requests: %s", got)
	}
	if got := of(2); got != "" {
		t.Errorf("replies: %s", got)
	}
}
