package ebpf_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ruletest"
)

func assemble(t testing.TB, src string) *rule.Program {
	t.Helper()
	u, err := rule.Assemble(src)
	if err != nil {
		t.Fatal(err)
	}
	return program(t, u)
}

// passed judges the turns and counts what passes: a test whose frames all drop
// shows nothing.
func passed(p *rule.Program, turns []ruletest.Turn, what func(*frame.Key) bool) (n int) {
	state := p.NewState(nil)
	for i := range turns {
		m := rule.Moment{State: state, Now: turns[i].Now, Ingress: turns[i].Ingress}
		if p.RunAt(&turns[i].Key, &m).Verdict.Passes() {
			m.Passed(&turns[i].Key)
			if what(&turns[i].Key) {
				n++
			}
		}
	}
	return n
}

// What is asked passes on its way out; what comes in passes as an answer only.
const answersOnly = `
	.entry other ipv4-tcp ipv4-udp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-icmp ipv6-other ipv6-fragment ipv4-dhcp ipv6-dhcp arp ipv6-ndp
		ret forward, predicate "out"
	.ingress other ipv4-tcp ipv4-udp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-icmp ipv6-other ipv6-fragment ipv4-dhcp ipv6-dhcp
		flow else no
		ret forward, predicate "flow"
	no:
		ret drop, predicate "flow"
	.ingress arp ipv6-ndp
		answered else refused
		ret forward, predicate "answered"
	refused:
		ret drop, predicate "answered"
`

var icmpTypes = map[frame.Class][]uint64{
	frame.ClassIPv4ICMP: {0, 8, 8, 3}, frame.ClassIPv6ICMP: {128, 128, 129, 1}, frame.ClassIPv6NDP: {133, 134, 135, 135, 136, 137},
}

// Flows and requests: of every class, with answers that come in time, late,
// twice, from the wrong side, or to nobody.
func TestFlows(t *testing.T) {
	require(t)
	p := assemble(t, answersOnly)
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		t.Run(c.String(), func(t *testing.T) {
			answers := 0
			for seed := range uint64(20) {
				g := ruletest.New(seed)
				var turns []ruletest.Turn
				now := int64(1)
				for range 60 {
					now += []int64{0, 1, 1e9, 2e9, 3e9, 9e9, 29e9, 30e9, 179e9, 181e9, 7200e9}[g.R.IntN(11)]
					turn := ruletest.Turn{Key: *g.Key(c), Now: now, Ingress: g.R.IntN(4) == 0}
					if types := icmpTypes[c]; types != nil {
						ruletest.Set(&turn.Key, frame.ICMPType, 0, types[g.R.IntN(len(types))])
					}
					if len(turns) > 0 && g.R.IntN(3) > 0 {
						turn = turns[len(turns)-1-g.R.IntN(min(4, len(turns)))]
						turn.Now = now
						if g.R.IntN(4) > 0 {
							turn.Key, turn.Ingress = *ruletest.Reversed(&turn.Key), !turn.Ingress
						}
					}
					if typ := turn.Key.Uint(frame.ICMPType); c == frame.ClassIPv6NDP && g.R.IntN(3) == 0 {
						if typ == 136 { // to all nodes
							ruletest.Set(&turn.Key, frame.IPv6Dst, 0xff02<<48, 1)
						} else { // of who has no address yet
							ruletest.Set(&turn.Key, frame.IPv6Src, 0, 0)
						}
					}
					turns = append(turns, turn)
				}
				agree(t, p, turns)
				in := slices.DeleteFunc(slices.Clone(turns), func(t ruletest.Turn) bool { return !t.Ingress })
				answers += passed(p, turns, func(*frame.Key) bool { return true }) - (len(turns) - len(in))
			}
			stateless := !c.Has(frame.SrcPort) && !c.Has(frame.ICMPType) && c != frame.ClassARP
			if (answers == 0) != stateless {
				t.Errorf("%d answers passed: the test has lost its grip", answers)
			}
		})
	}
}

// A table that is full puts out the flows not seen for longest: as many as it
// holds are remembered, and no more. Which share a set is each one's secret.
func TestFlowsAreBounded(t *testing.T) {
	require(t)
	x := load(t, assemble(t, answersOnly))
	key := func(i int) *frame.Key {
		k := new(frame.Key)
		k.Words[frame.ClassWord] = uint64(frame.ClassIPv6UDP)
		ruletest.Set(k, frame.IPv6Dst, uint64(i)<<40, uint64(i))
		return k
	}
	const n = 3 * rule.MaxFlows
	for i := range n {
		if o, err := x.Judge(key(i), int64(1+i), false); err != nil || o.Verdict != rule.Forward {
			t.Fatalf("%d: %v, %v", i, o, err)
		}
	}
	known, late := 0, 0
	for i := range n {
		o, err := x.Judge(ruletest.Reversed(key(i)), n+1, true)
		if err != nil {
			t.Fatal(err)
		}
		if o.Verdict == rule.Forward {
			known++
			if i >= n-rule.MaxFlows/4 {
				late++
			}
		}
	}
	if known > rule.MaxFlows || known < rule.MaxFlows*9/10 {
		t.Errorf("%d flows remembered of %d, want about %d", known, n, rule.MaxFlows)
	}
	if late < rule.MaxFlows/4*95/100 {
		t.Errorf("of the last %d flows %d are remembered: not the oldest went", rule.MaxFlows/4, late)
	}
}

// A flow that takes the place of another knows nothing of it: one that was
// begun from outside is not established because the one before was seen from
// inside. And IPv4's flows are not those of IPv6 with the same numbers.
func TestFlowsAreApart(t *testing.T) {
	require(t)
	x := load(t, assemble(t, `
	.entry other ipv4-tcp ipv4-udp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-icmp ipv6-other ipv6-fragment ipv4-dhcp ipv6-dhcp arp ipv6-ndp
		ret forward, predicate "out"
	.ingress ipv6-udp other ipv4-tcp ipv4-udp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-icmp ipv6-other ipv6-fragment arp ipv6-ndp
		ret forward, predicate "in"
	.ingress ipv4-dhcp ipv6-dhcp ; of the flows of UDP
		flow else no
		ret forward, predicate "flow"
	no:
		ret drop, predicate "flow"
	`))
	now := int64(1)
	judge := func(c frame.Class, src, dst uint64, ingress bool) rule.Verdict {
		t.Helper()
		k := new(frame.Key)
		k.Words[frame.ClassWord] = uint64(c)
		if c.Has(frame.IPv6Src) {
			ruletest.Set(k, frame.IPv6Src, 0, src)
			ruletest.Set(k, frame.IPv6Dst, 0, dst)
		} else {
			k.Words[frame.AddressWord] = src<<32 | dst
		}
		now++
		o, err := x.Judge(k, now, ingress)
		if err != nil {
			t.Fatal(err)
		}
		return o.Verdict
	}
	const inside, n = 5, 4 * rule.MaxFlows
	judge(frame.ClassIPv4UDP, inside, 9, false)
	if v := judge(frame.ClassIPv4DHCP, 9, inside, true); v != rule.Forward {
		t.Errorf("answer of IPv4: %v", v)
	}
	if v := judge(frame.ClassIPv6DHCP, 9, inside, true); v != rule.Drop {
		t.Errorf("answer of IPv6 to IPv4: %v", v)
	}
	for i := range uint64(n) {
		judge(frame.ClassIPv6UDP, inside, 100+i, false)
	}
	for i := range uint64(n) {
		judge(frame.ClassIPv6UDP, 1<<32+i, inside, true)
		if v := judge(frame.ClassIPv6DHCP, 1<<32+i, inside, true); v != rule.Drop {
			t.Fatalf("flow %d, of which nothing was seen from inside: %v", i, v)
		}
	}
}

// What DHCP servers give, and when it ends: frames from few clients, few
// servers and few addresses, in every order.
func TestLeases(t *testing.T) {
	require(t)
	p := assemble(t, `
	.entry ipv4-tcp ipv4-udp ipv4-icmp ipv4-other ipv4-fragment
		lease ip4.src else no
		ret forward, guard "ip"
	no:
		ret drop, guard "ip"
	.entry arp
		lease arp.spa else no2
		ret forward, guard "arp"
	no2:
		ret drop, guard "arp"
	.entry ipv6-tcp ipv6-udp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment
		lease ip6.src else no3
		ret forward, guard "ip"
	no3:
		ret drop, guard "ip"
	.entry other ipv4-dhcp ipv6-dhcp
		ret forward, predicate "dhcp"
	`)
	held := 0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 6))
		var turns []ruletest.Turn
		now := int64(1)
		for range 200 {
			turn := leaseTurn(r)
			now += []int64{0, 0, 0, 0, 1, 1e9, 3e9, 3e9, 63e9, 65e9}[r.IntN(10)]
			turn.Now = now
			turns = append(turns, turn)
		}
		agree(t, p, turns)
		held += passed(p, turns, func(k *frame.Key) bool { return !k.Class().Has(frame.DHCPOp) })
	}
	if held < 200 {
		t.Errorf("%d frames of a leased address: the test has lost its grip", held)
	}
}

// pick is the first two of n most of the time.
func pick(r *rand.Rand, n int) int {
	if r.IntN(4) > 0 {
		return r.IntN(2)
	}
	return r.IntN(n)
}

func leaseTurn(r *rand.Rand) (t ruletest.Turn) {
	four := []uint64{0x0a000005, 0x0a000006, 0, 0xe0000001, 0xf0000001}
	six := []uint64{0xfd00 << 48, 0xfd01 << 48, 0, 0xff02 << 48}
	c := []frame.Class{frame.ClassIPv4DHCP, frame.ClassIPv6DHCP, frame.ClassIPv6DHCP, frame.ClassIPv4TCP, frame.ClassIPv6UDP, frame.ClassARP}[r.IntN(6)]
	k := &t.Key
	k.Words[frame.ClassWord] = uint64(c)
	if !c.Has(frame.DHCPOp) {
		if c.Has(frame.IPv6Src) {
			ruletest.Set(k, frame.IPv6Src, six[pick(r, 3)], 0)
		} else {
			k.Words[frame.AddressWord] = four[pick(r, 3)] << 32
		}
		return t
	}
	op := uint64(1 + r.IntN(2))
	t.Ingress = op == 2
	if r.IntN(8) == 0 {
		t.Ingress = !t.Ingress
	}
	ruletest.Set(k, frame.DHCPOp, 0, op)
	asks, gives := []uint64{1, 3, 3, 3, 4, 7, 8}, []uint64{5, 5, 5, 2, 6}
	if c == frame.ClassIPv6DHCP {
		asks, gives = []uint64{1, 3, 5, 6, 8, 9, 11}, []uint64{7, 7, 7, 2, 10}
	}
	if typ := append(asks, gives...)[r.IntN(12)]; r.IntN(3) == 0 {
		ruletest.Set(k, frame.DHCPType, 0, typ)
	} else if t.Ingress {
		ruletest.Set(k, frame.DHCPType, 0, gives[r.IntN(5)])
	} else {
		ruletest.Set(k, frame.DHCPType, 0, asks[r.IntN(7)])
	}
	ruletest.Set(k, frame.DHCPTransaction, 0, uint64(r.IntN(8)/7))
	ruletest.Set(k, frame.DHCPLeaseTime, 0, []uint64{0, 1, 3, 3, 3600, 1<<32 - 1}[r.IntN(6)])
	if c == frame.ClassIPv6DHCP {
		ruletest.Set(k, frame.DHCPRelayed, 0, uint64(r.IntN(8)/7))
		ruletest.Set(k, frame.DHCPRequested6, six[pick(r, len(six))], 0)
	} else {
		ruletest.Set(k, frame.DHCPRelayed, 0, uint64(r.IntN(8)/7))
		ruletest.Set(k, frame.DHCPClientMAC, 0, uint64(r.IntN(8)/7))
		ruletest.Set(k, frame.DHCPRequested4, 0, four[pick(r, len(four))])
	}
	return t
}

// Rates: tokens come back as time goes by, each is taken once, and a frame
// that asks twice is answered once.
func TestRates(t *testing.T) {
	require(t)
	p := assemble(t, `
	.limit "a 10/s" 100000000 5
	.limit "b 1/d" 86400000000000 1048576
	.limit "c" 1 1
	.entry other
		rate l0 else no
		rate l0 else broken
		rate l1 else no
		rate l2 else no
		ret forward, predicate "rate"
	no:
		ret drop, predicate "rate"
	broken:
		ret drop, predicate "asked twice"
	.entry ipv4-tcp ipv4-udp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment arp ipv4-dhcp ipv6-dhcp
		rate l2 else no3
		ret forward, predicate "all"
	no3:
		ret drop, predicate "all"
	`)
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 8))
		x, state := load(t, p), p.NewState(nil)
		now, passes := int64(1), 0
		for range 300 {
			now += []int64{0, 1, 1e6, 1e8, 2e8, 9e17}[r.IntN(5+int(seed%2))]
			now = max(1, now)
			m := rule.Moment{State: state, Now: now}
			want := p.RunAt(other, &m)
			got, err := x.Judge(other, now, false)
			if err != nil || got != want {
				t.Fatalf("at %d: %v, %v; want %v", now, got, err, want)
			}
			if got.Verdict == rule.Forward {
				passes++
			}
		}
		refused, err := x.Refused()
		if err != nil || !slices.Equal(refused, state.Refused()) {
			t.Errorf("Refused = %v, %v; want %v", refused, err, state.Refused())
		}
		if passes == 0 || passes == 300 {
			t.Errorf("%d of 300 frames passed", passes)
		}
	}
}

// A bucket of a thousand tokens, from two processors at once: a thousand pass.
func TestRateIsExact(t *testing.T) {
	require(t)
	p := assemble(t, `
	.limit "a" 86400000000000 1000
	.entry other ipv4-tcp ipv4-udp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment arp ipv4-dhcp ipv6-dhcp
		rate l0 else no
		ret forward, predicate "rate"
	no:
		ret drop, predicate "rate"
	`)
	x := load(t, p)
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 600 {
				o, err := x.Judge(other, 1, false)
				if err != nil {
					t.Error(err)
					return
				}
				if o.Verdict == rule.Forward {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	refused, err := x.Refused()
	if n := passed.Load(); err != nil || n != 1000 || refused[0] != 1400 {
		t.Errorf("%d passed, %v refused, %v; want 1000 and 1400", n, refused, err)
	}
}
