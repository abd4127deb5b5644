package rule_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// asking is a program that forwards what one test holds for, either way.
func asking(t testing.TB, test string, limits ...rule.Limit) *rule.Program {
	t.Helper()
	src := ""
	for _, l := range limits {
		src += fmt.Sprintf(".limit %q %d %d\n", l.Name, l.Period, l.Burst)
	}
	entries := " arp other ipv4-tcp ipv4-udp ipv4-dhcp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment\n"
	return assemble(t, src+".entry"+entries+".ingress"+entries+test+` else no
		ret forward, predicate "p"
	no:
		ret drop, predicate "p"
	`)
}

// A packet is a key to be, by its fields.
type packet map[frame.Field]any

func keyOf(c frame.Class, p packet) *frame.Key {
	k := new(frame.Key)
	k.Words[frame.ClassWord] = uint64(c)
	for f, v := range p {
		var hi, lo uint64
		switch v := v.(type) {
		case int:
			lo = uint64(v)
		case frame.MAC:
			lo = v.Uint64()
		case string:
			b := netip.MustParseAddr(v).As16()
			for i := range 8 {
				hi, lo = hi<<8|uint64(b[i]), lo<<8|uint64(b[8+i])
			}
			if f.Width() == 32 {
				hi, lo = 0, lo&0xffffffff
			}
		}
		i := f.Info()
		if i.Width == 128 {
			k.Words[i.Word], k.Words[i.Word+1] = hi, lo
			continue
		}
		k.Words[i.Word] |= lo << i.Shift
	}
	return k
}

// A clock runs a program on one frame after the other.
type clock struct {
	t       testing.TB
	program *rule.Program
	state   *rule.State
	now     int64
}

func newClock(t testing.TB, p *rule.Program) *clock {
	return &clock{t, p, p.NewState(nil), 1}
}

// passes judges a frame and, if it passes or force is set, notes it.
func (c *clock) passes(k *frame.Key, ingress, force bool) bool {
	c.t.Helper()
	m := rule.Moment{State: c.state, Now: c.now, Ingress: ingress}
	got := c.program.RunAt(k, &m)
	if traced := c.program.TraceAt(k, &m, func(int, bool) {}); traced != got {
		c.t.Errorf("RunAt = %v, TraceAt = %v", got, traced)
	}
	if got.Verdict.Passes() || force {
		m.Passed(k)
	}
	return got.Verdict.Passes()
}

func TestRate(t *testing.T) {
	limit := rule.Limit{Name: "a", Period: uint64(100 * time.Millisecond), Burst: 3}
	p := asking(t, "rate l0", limit)
	c := newClock(t, p)
	k := keyOf(frame.ClassIPv4UDP, nil)
	count := func(n int) (passed int) {
		for range n {
			if c.passes(k, false, false) {
				passed++
			}
		}
		return passed
	}
	for i, step := range []struct {
		wait time.Duration
		want int
	}{{0, 3}, {99 * time.Millisecond, 0}, {time.Millisecond, 1}, {250 * time.Millisecond, 2}, {50 * time.Millisecond, 1}, {time.Hour, 3}} {
		c.now += int64(step.wait)
		if got := count(10); got != step.want {
			t.Errorf("step %d: %d of 10 frames pass, want %d", i, got, step.want)
		}
	}
	if got := c.state.Refused(); len(got) != 1 || got[0] != 50 {
		t.Errorf("Refused = %v, want [50]", got)
	}
	// A program with the same limit goes on with its bucket; one with another
	// does not, and going back is no fresh start either.
	other := asking(t, "rate l0", rule.Limit{Name: "b", Period: 1e9, Burst: 1})
	same := asking(t, "rate l1", rule.Limit{Name: "b", Period: 1e9, Burst: 1}, limit)
	for i, step := range []struct {
		to   *rule.Program
		want int
	}{{same, 0}, {other, 1}, {p, 0}, {other, 0}} {
		c.program, c.state = step.to, step.to.NewState(c.state)
		if got := count(10); got != step.want {
			t.Errorf("reload %d: %d frames pass, want %d", i, got, step.want)
		}
	}
	if (&rule.Moment{}).State.Refused() != nil {
		t.Error("no state counts something")
	}
}

// TestRateTogether: goroutines share a bucket, and take no token twice.
func TestRateTogether(t *testing.T) {
	p := asking(t, "rate l0", rule.Limit{Name: "a", Period: 1e9, Burst: 1000})
	s := p.NewState(nil)
	k := keyOf(frame.ClassIPv4UDP, nil)
	var passed [4]int
	var wg sync.WaitGroup
	for i := range passed {
		wg.Go(func() {
			for range 1000 {
				m := rule.Moment{State: s, Now: 1}
				if p.RunAt(k, &m).Verdict.Passes() {
					passed[i]++
				}
			}
		})
	}
	wg.Wait()
	if sum := passed[0] + passed[1] + passed[2] + passed[3]; sum != 1000 {
		t.Errorf("%d frames pass %v, want 1000", sum, passed)
	}
}

// TestFlow: what has been seen from the other side, for how long.
func TestFlow(t *testing.T) {
	four := func(src, dst string, sport, dport int) packet {
		return packet{frame.IPv4Src: src, frame.IPv4Dst: dst, frame.SrcPort: sport, frame.DstPort: dport}
	}
	six := func(src, dst string, sport, dport int) packet {
		return packet{frame.IPv6Src: src, frame.IPv6Dst: dst, frame.SrcPort: sport, frame.DstPort: dport}
	}
	echo := func(src, dst string, typ int) packet {
		return packet{frame.IPv4Src: src, frame.IPv4Dst: dst, frame.ICMPType: typ}
	}
	arp := func(op int, spa, tpa string) packet {
		return packet{frame.ARPOp: op, frame.ARPSenderIP: spa, frame.ARPTargetIP: tpa}
	}
	nd := func(typ int, src, dst, target string) packet {
		return packet{frame.ICMPType: typ, frame.IPv6Src: src, frame.IPv6Dst: dst, frame.NDPTarget: target}
	}
	tcp, udp, icmp, ndp := frame.ClassIPv4TCP, frame.ClassIPv4UDP, frame.ClassIPv4ICMP, frame.ClassIPv6NDP
	for _, tt := range []struct {
		name, test  string
		first, then packet
		class       frame.Class // of both, unless second is given
		second      frame.Class
		sameWay     bool
		after       time.Duration
		want        bool
	}{
		{"answer to a client", "flow", four("10.0.0.9", "10.0.0.5", 999, 80), four("10.0.0.5", "10.0.0.9", 80, 999), tcp, 0, false, time.Hour, true},
		{"two hours later", "flow", four("10.0.0.9", "10.0.0.5", 999, 80), four("10.0.0.5", "10.0.0.9", 80, 999), tcp, 0, false, 2 * time.Hour, false},
		{"to another port", "flow", four("10.0.0.9", "10.0.0.5", 999, 80), four("10.0.0.5", "10.0.0.9", 80, 998), tcp, 0, false, 0, false},
		{"from another port", "flow", four("10.0.0.9", "10.0.0.5", 999, 80), four("10.0.0.5", "10.0.0.9", 81, 999), tcp, 0, false, 0, false},
		{"to another address", "flow", four("10.0.0.9", "10.0.0.5", 999, 80), four("10.0.0.5", "10.0.0.8", 80, 999), tcp, 0, false, 0, false},
		{"by another protocol", "flow", four("10.0.0.9", "10.0.0.5", 999, 80), four("10.0.0.5", "10.0.0.9", 80, 999), tcp, udp, false, 0, false},
		{"by the same side", "flow", four("10.0.0.9", "10.0.0.5", 999, 80), four("10.0.0.9", "10.0.0.5", 999, 80), tcp, 0, true, 0, false},
		{"over udp", "flow", four("10.0.0.9", "10.0.0.5", 999, 53), four("10.0.0.5", "10.0.0.9", 53, 999), udp, 0, false, 179 * time.Second, true},
		{"over udp, too late", "flow", four("10.0.0.9", "10.0.0.5", 999, 53), four("10.0.0.5", "10.0.0.9", 53, 999), udp, 0, false, 180 * time.Second, false},
		{"over ipv6", "flow", six("fd00::9", "fd00::5", 999, 80), six("fd00::5", "fd00::9", 80, 999), frame.ClassIPv6TCP, 0, false, 0, true},
		{"over ipv6, another address", "flow", six("fd00::9", "fd00::5", 999, 80), six("fd00::5", "fd00:0:0:1::9", 80, 999), frame.ClassIPv6TCP, 0, false, 0, false},
		{"echo reply", "flow", echo("10.0.0.9", "10.0.0.5", 8), echo("10.0.0.5", "10.0.0.9", 0), icmp, 0, false, 0, true},
		{"echo request behind an echo request", "flow", echo("10.0.0.9", "10.0.0.5", 8), echo("10.0.0.5", "10.0.0.9", 8), icmp, 0, false, 0, false},
		{"echo reply behind an echo reply", "flow", echo("10.0.0.9", "10.0.0.5", 0), echo("10.0.0.5", "10.0.0.9", 0), icmp, 0, false, 0, false},
		{"unreachable behind an echo request", "flow", echo("10.0.0.9", "10.0.0.5", 8), echo("10.0.0.5", "10.0.0.9", 3), icmp, 0, false, 0, false},
		{"other protocols have no flows", "flow", four("10.0.0.9", "10.0.0.5", 0, 0), four("10.0.0.5", "10.0.0.9", 0, 0), frame.ClassIPv4Other, 0, false, 0, false},
		{"fragments have none", "flow", four("10.0.0.9", "10.0.0.5", 0, 0), four("10.0.0.5", "10.0.0.9", 0, 0), frame.ClassIPv4Fragment, 0, false, 0, false},
		{"arp is no flow", "flow", arp(1, "10.0.0.9", "10.0.0.5"), arp(2, "10.0.0.5", "10.0.0.9"), frame.ClassARP, 0, false, 0, false},

		{"arp answer", "answered", arp(1, "10.0.0.9", "10.0.0.5"), arp(2, "10.0.0.5", "10.0.0.9"), frame.ClassARP, 0, false, 2 * time.Second, true},
		{"arp answer too late", "answered", arp(1, "10.0.0.9", "10.0.0.5"), arp(2, "10.0.0.5", "10.0.0.9"), frame.ClassARP, 0, false, 3 * time.Second, false},
		{"arp answer for another address", "answered", arp(1, "10.0.0.9", "10.0.0.5"), arp(2, "10.0.0.1", "10.0.0.9"), frame.ClassARP, 0, false, 0, false},
		{"arp answer to another", "answered", arp(1, "10.0.0.9", "10.0.0.5"), arp(2, "10.0.0.5", "10.0.0.8"), frame.ClassARP, 0, false, 0, false},
		{"arp request is no answer", "answered", arp(1, "10.0.0.9", "10.0.0.5"), arp(1, "10.0.0.9", "10.0.0.5"), frame.ClassARP, 0, false, 0, false},
		{"arp reply asks nothing", "answered", arp(2, "10.0.0.5", "10.0.0.9"), arp(2, "10.0.0.5", "10.0.0.9"), frame.ClassARP, 0, false, 0, false},
		{"advertisement", "answered", nd(135, "fd00::9", "ff02::1:ff00:5", "fd00::5"), nd(136, "fd00::5", "fd00::9", "fd00::5"), ndp, 0, false, 0, true},
		{"advertisement of another address", "answered", nd(135, "fd00::9", "ff02::1:ff00:5", "fd00::5"), nd(136, "fd00::5", "fd00::9", "fd00::1"), ndp, 0, false, 0, false},
		{"to who probes for an address", "answered", nd(135, "::", "ff02::1:ff00:5", "fd00::5"), nd(136, "fd00::5", "ff02::1", "fd00::5"), ndp, 0, false, 0, true},
		{"unasked, to all", "answered", nd(135, "fd00::9", "ff02::1:ff00:5", "fd00::5"), nd(136, "fd00::5", "ff02::1", "fd00::5"), ndp, 0, false, 0, false},
		{"router", "answered", nd(133, "fe80::5", "ff02::2", "::"), nd(134, "fe80::1", "ff02::1", "::"), ndp, 0, false, 9 * time.Second, true},
		{"redirect", "answered", nd(133, "fe80::5", "ff02::2", "::"), nd(137, "fe80::1", "fe80::5", "::"), ndp, 0, false, 0, false},
		{"tcp is no answer", "answered", four("10.0.0.9", "10.0.0.5", 999, 80), four("10.0.0.5", "10.0.0.9", 80, 999), tcp, 0, false, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.second == 0 {
				tt.second = tt.class
			}
			// Whoever begins: the container, or the others.
			for _, ingress := range []bool{true, false} {
				c := newClock(t, asking(t, tt.test))
				first, then := keyOf(tt.class, tt.first), keyOf(tt.second, tt.then)
				if c.passes(then, ingress == tt.sameWay, false) {
					t.Fatal("passes with nothing before it")
				}
				c.passes(first, ingress, true)
				c.now += int64(tt.after)
				if got := c.passes(then, ingress == tt.sameWay, false); got != tt.want {
					t.Errorf("first on the way in %v: passes = %v, want %v", ingress, got, tt.want)
				}
			}
		})
	}
}

// TestFlowsAreBounded: a flood puts out what was seen longest ago, and nothing
// that was never seen passes.
func TestFlowsAreBounded(t *testing.T) {
	c := newClock(t, asking(t, "flow"))
	flow := func(i int, out bool) *frame.Key {
		a, b, p, q := "10.9.0.1", "10.0.0.5", i&0xffff, i>>16+1
		if out {
			a, b, p, q = b, a, q, p
		}
		return keyOf(frame.ClassIPv4TCP, packet{frame.IPv4Src: a, frame.IPv4Dst: b, frame.SrcPort: p, frame.DstPort: q})
	}
	const flood = 4 * rule.MaxFlows
	for i := range flood {
		c.now++
		c.passes(flow(i, false), true, true)
	}
	known := 0
	for i := range flood {
		if c.passes(flow(i, true), false, false) {
			known++
		}
	}
	if known > rule.MaxFlows || known < rule.MaxFlows*9/10 {
		t.Errorf("%d flows known of %d, want about %d", known, flood, rule.MaxFlows)
	}
	for i := flood; i < 2*flood; i++ {
		if c.passes(flow(i, true), false, false) {
			t.Fatalf("flow %d passes and was never seen", i)
		}
	}
	if !c.passes(flow(flood-1, true), false, false) {
		t.Error("the newest flow is forgotten")
	}
	// A reload keeps them.
	c.state = c.program.NewState(c.state)
	if !c.passes(flow(flood-1, true), false, false) {
		t.Error("a reload forgets the newest flow")
	}
}

// TestLease follows DHCP as a client that is told its address, and as one
// that is lied to.
func TestLease(t *testing.T) {
	mine := frame.MAC{2, 0, 0, 0, 0, 5}
	four := func(op, typ, xid int, addr string, lease int) *frame.Key {
		return keyOf(frame.ClassIPv4DHCP, packet{frame.DHCPOp: op, frame.DHCPType: typ, frame.DHCPTransaction: xid, frame.DHCPClientMAC: mine, frame.DHCPRequested4: addr, frame.DHCPLeaseTime: lease})
	}
	six := func(op, typ, xid int, addr string, lease int) *frame.Key {
		return keyOf(frame.ClassIPv6DHCP, packet{frame.DHCPOp: op, frame.DHCPType: typ, frame.DHCPTransaction: xid, frame.DHCPRequested6: addr, frame.DHCPLeaseTime: lease})
	}
	type step struct {
		k    *frame.Key
		in   bool
		wait time.Duration
	}
	ask, ack := step{k: four(1, 3, 7, "10.0.0.7", 0)}, step{k: four(2, 5, 7, "10.0.0.7", 60), in: true}
	ask6, reply6 := step{k: six(1, 3, 7, "fd00::7", 0)}, step{k: six(2, 7, 7, "fd00::7", 60), in: true}
	other := four(2, 5, 7, "10.0.0.7", 60)
	other.Words[5] ^= 1 << 20
	for _, tt := range []struct {
		name  string
		steps []step
		want  string // 10.0.0.7, fd00::7 or none
	}{
		{"nothing yet", nil, ""},
		{"asked and given", []step{ask, ack}, "10.0.0.7"},
		{"given unasked", []step{ack}, ""},
		{"asked only", []step{ask}, ""},
		{"another transaction", []step{ask, {k: four(2, 5, 8, "10.0.0.7", 60), in: true}}, ""},
		{"for another card", []step{ask, {k: other, in: true}}, ""},
		{"the container answers itself", []step{ask, {k: four(2, 5, 7, "10.0.0.7", 60)}}, ""},
		{"asked from outside", []step{{k: ask.k, in: true}, ack}, ""},
		{"an offer", []step{ask, {k: four(2, 2, 7, "10.0.0.7", 60), in: true}}, ""},
		{"an answer too late", []step{ask, {k: ack.k, in: true, wait: 65 * time.Second}}, ""},
		{"no address", []step{ask, {k: four(2, 5, 7, "0.0.0.0", 60), in: true}}, ""},
		{"the address of a group", []step{ask, {k: four(2, 5, 7, "224.0.0.7", 60), in: true}}, ""},
		{"no time", []step{ask, {k: four(2, 5, 7, "10.0.0.7", 0), in: true}}, ""},
		{"run out", []step{ask, ack, {k: ask.k, wait: 60 * time.Second}}, ""},
		{"renewed", []step{ask, ack, {k: ask.k, wait: 30 * time.Second}, {k: ack.k, in: true}, {k: ask.k, wait: 59 * time.Second}}, "10.0.0.7"},
		{"without end", []step{ask, {k: four(2, 5, 7, "10.0.0.7", 0xffffffff), in: true}, {k: ask.k, wait: 1e6 * time.Hour}}, "10.0.0.7"},
		{"taken back", []step{ask, ack, ask, {k: four(2, 6, 7, "0.0.0.0", 0), in: true}}, ""},
		{"taken back by a stranger", []step{ask, ack, {k: four(2, 6, 9, "0.0.0.0", 0), in: true}}, "10.0.0.7"},
		{"given back", []step{ask, ack, {k: four(1, 7, 9, "10.0.0.7", 0)}}, ""},
		{"declined", []step{ask, ack, {k: four(1, 4, 9, "10.0.0.7", 0)}}, ""},
		{"another address the second time", []step{ask, ack, ask, {k: four(2, 5, 7, "10.0.0.8", 60), in: true}}, ""},

		{"ipv6", []step{ask6, reply6}, "fd00::7"},
		{"ipv6 unasked", []step{reply6}, ""},
		{"ipv6 in answer to ipv4", []step{ask, reply6}, ""},
		{"ipv6, another transaction", []step{ask6, {k: six(2, 7, 8, "fd00::7", 60), in: true}}, ""},
		{"ipv6, the address of a group", []step{ask6, {k: six(2, 7, 7, "ff02::7", 60), in: true}}, ""},
		{"ipv6, taken back", []step{ask6, reply6, ask6, {k: six(2, 7, 7, "fd00::7", 0), in: true}}, ""},
		{"ipv6, given back", []step{ask6, reply6, {k: six(1, 8, 9, "fd00::7", 0)}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := assemble(t, `
			.entry arp other ipv4-udp ipv4-dhcp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment
				ret forward, predicate "p"
			.entry ipv4-tcp
				lease ip4.src else no
				ret forward, predicate "p"
			.entry ipv6-udp
				lease ip6.src else no
				ret forward, predicate "p"
			no:
				ret drop, predicate "p"
			`)
			c := newClock(t, p)
			for _, s := range tt.steps {
				c.now += int64(s.wait)
				c.passes(s.k, s.in, true)
			}
			for _, addr := range []string{"10.0.0.7", "0.0.0.0", "fd00::7", "::"} {
				a := netip.MustParseAddr(addr)
				k := keyOf(frame.ClassIPv4TCP, packet{frame.IPv4Src: addr})
				if a.Is6() {
					k = keyOf(frame.ClassIPv6UDP, packet{frame.IPv6Src: addr})
				}
				if got := c.passes(k, false, false); got != (addr == tt.want) {
					t.Errorf("from %s: passes = %v, leased is %q", addr, got, tt.want)
				}
			}
			for version, addr := range map[int]string{4: "10.0.0.7", 6: "fd00::7"} {
				if _, ok := c.state.Lease(version, c.now); ok != (addr == tt.want) && tt.name != "another address the second time" {
					t.Errorf("Lease(%d): %v, want %q", version, ok, tt.want)
				}
			}
		})
	}
}

// TestNoState: a program that asks, without anything to ask, hears no.
func TestNoState(t *testing.T) {
	for _, test := range []string{"rate l0", "flow", "answered", "lease eth.dst"} {
		if test == "lease eth.dst" {
			continue // refused: TestVerify
		}
		p := asking(t, test, rule.Limit{Name: "a", Period: 1, Burst: 9})
		k := keyOf(frame.ClassIPv4TCP, nil)
		if got := p.Run(k); got.Verdict != rule.Drop {
			t.Errorf("%s: Run = %v", test, got)
		}
		if got := p.RunAt(k, new(rule.Moment)); got.Verdict != rule.Drop {
			t.Errorf("%s: RunAt = %v", test, got)
		}
		if !p.Remembers() {
			t.Errorf("%s: Remembers = false", test)
		}
	}
	p := benchProgram(t)
	if p.Remembers() || p.NewState(nil) != nil || p.JudgesIngress() {
		t.Error("a program that asks nothing has a state, or judges ingress")
	}
	if got := p.RunAt(keyOf(frame.ClassARP, nil), &rule.Moment{Ingress: true}); got.Verdict != rule.Forward {
		t.Errorf("ingress of a program that does not judge it: %v", got)
	}
}

func TestStateAllocatesNothing(t *testing.T) {
	for _, test := range []string{"rate l0", "flow", "answered"} {
		p := asking(t, test, rule.Limit{Name: "a", Period: 1, Burst: 9})
		m := rule.Moment{State: p.NewState(nil), Now: 1}
		k := keyOf(frame.ClassIPv4TCP, packet{frame.IPv4Src: "10.0.0.5", frame.DstPort: 80})
		if n := testing.AllocsPerRun(100, func() { p.RunAt(k, &m); m.Passed(k) }); n != 0 {
			t.Errorf("%s: %v allocations a frame", test, n)
		}
	}
}

// BenchmarkState is a frame that asks and is noted.
func BenchmarkState(b *testing.B) {
	for _, test := range []string{"rate l0", "flow"} {
		b.Run(test, func(b *testing.B) {
			p := asking(b, test, rule.Limit{Name: "a", Period: 1, Burst: 9})
			m := rule.Moment{State: p.NewState(nil), Now: 1}
			k := keyOf(frame.ClassIPv4TCP, packet{frame.IPv4Src: "10.0.0.5", frame.DstPort: 80})
			for b.Loop() {
				m.Now++
				p.RunAt(k, &m)
				m.Passed(k)
			}
		})
	}
}

// TestStateTogether: any number of goroutines may ask and note at once, while
// programs change.
func TestStateTogether(t *testing.T) {
	p := asking(t, "flow")
	state := p.NewState(nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			s := state
			for i := range 2000 {
				ingress := g%2 == 0
				src, dst := "10.0.0.5", "10.0.0.9"
				if ingress {
					src, dst = dst, src
				}
				m := rule.Moment{State: s, Now: int64(i + 1), Ingress: ingress}
				k := keyOf(frame.ClassIPv4TCP, packet{frame.IPv4Src: src, frame.IPv4Dst: dst, frame.SrcPort: 80, frame.DstPort: 80})
				p.RunAt(k, &m)
				m.Passed(k)
				if i%100 == 0 {
					s = p.NewState(s)
				}
			}
		})
	}
	wg.Wait()
	m := rule.Moment{State: p.NewState(state), Now: 2000}
	k := keyOf(frame.ClassIPv4TCP, packet{frame.IPv4Src: "10.0.0.5", frame.IPv4Dst: "10.0.0.9", frame.SrcPort: 80, frame.DstPort: 80})
	if !p.RunAt(k, &m).Verdict.Passes() {
		t.Error("a flow that all have seen is not established")
	}
}
