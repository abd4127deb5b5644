package e2e_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// TestAttacks sends every variant through the switch, where mallory has a
// policy that allows everything and only the default guards stand. A hostile
// frame must do nothing at all: nothing arrives, no table changes, and it
// drops for the one reason the table names. An honest one must arrive as it is.
func TestAttacks(t *testing.T) {
	require(t, "root", "netns", "tun")
	onEach(t, testAttacks)
}

func testAttacks(t *testing.T, on datapath) {
	s := newShadow(t, on, allowAll)
	for _, v := range allVariants() {
		t.Run(v.name, func(t *testing.T) {
			before := s.drops(t)
			o, err := s.try(v)
			if err != nil {
				t.Fatal(err)
			}
			reasons := newDrops(before, s.drops(t))
			switch {
			case !v.hostile && len(reasons) > 0:
				t.Errorf("%s: dropped for %v", v.would, reasons)
			case !v.hostile && (o.effect != arrives || !slices.ContainsFunc(o.heard, func(b []byte) bool { return bytes.Equal(b, v.frame) })):
				t.Errorf("%s: %s, want that it arrives: %s, alice heard % x", v.would, o.effect, o.detail, o.heard)
			case v.hostile && o.effect != harmless:
				t.Errorf("%s: it %s: %s, alice heard % x", v.would, o.effect, o.detail, o.heard)
			case v.hostile && (len(reasons) != 1 || reasons[0] != v.reason):
				t.Errorf("%s: dropped for %q, want %q", v.would, reasons, v.reason)
			}
		})
	}
}

// TestGuardsOff is the control of [TestAttacks]: the same frames through the
// same switch, but without the guards. What poisons over a bridge poisons
// again, but for what the parser refuses: it is the guards that hold it off,
// not luck. The forwarding table is fixed all the same.
func TestGuardsOff(t *testing.T) {
	require(t, "root", "netns", "tun")
	onEach(t, testGuardsOff)
}

func testGuardsOff(t *testing.T, on datapath) {
	s := newShadow(t, on, strings.Replace(allowAll, ")", `, guard = "off")`, 1))
	count := 0
	for _, v := range allVariants() {
		o, err := s.try(v)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		if o.effect == moves {
			t.Errorf("%s: %s", v.name, o.detail)
		}
		if want, ok := sure[v.name]; ok && strings.HasPrefix(v.reason, "guard") && want == poisons && o.effect != poisons {
			t.Errorf("%s %s, want poisons", v.name, o.effect)
		}
		if o.effect == poisons {
			count++
		}
	}
	t.Logf("without guards %d variants poison", count)
	if count < 20 {
		t.Errorf("%d variants poison, want 20 at least", count)
	}
}

// newDrops are the reasons counted since before, each as often as it was.
func newDrops(before, after map[string]uint64) []string {
	var reasons []string
	for r, n := range after {
		for range n - before[r] {
			reasons = append(reasons, r)
		}
	}
	return reasons
}

// TestPaper is figure 1 of the paper: no guard, one predicate. Mallory may
// resolve bob; the reply she forges is for alice, whom she may not.
func TestPaper(t *testing.T) {
	require(t, "root", "netns", "tun")
	onEach(t, testPaper)
}

func testPaper(t *testing.T, on datapath) {
	s := newShadow(t, on, `
def allow_arp(dst_ip):
    return dst_ip == ip("10.77.0.3")

result = policy(allow_arp, guard = "off")
`)
	for _, v := range arpVariants() {
		if v.name != "reply" && v.name != "request_unicast" {
			continue
		}
		before := s.drops(t)
		if err := s.reset(); err != nil {
			t.Fatal(err)
		}
		ask := arp(broadcast, mallory.mac, arpBody{op: arpRequest, sha: mallory.mac, spa: mallory.ip4, tpa: bob.ip4})
		if err := s.mallory.send(v.frame, ask); err != nil {
			t.Fatal(err)
		}
		heard, err := s.alice.until(ask)
		if err != nil {
			t.Fatalf("an honest question for bob: %v", err)
		}
		if len(heard) > 0 {
			t.Errorf("%s: alice heard % x", v.name, heard)
		}
		if lies, err := s.alice.poisoned(); err != nil || len(lies) > 0 {
			t.Errorf("%s: %v %v", v.name, lies, err)
		}
		if reasons := newDrops(before, s.drops(t)); len(reasons) != 1 || reasons[0] != "predicate allow_arp" {
			t.Errorf("%s: dropped for %v, want predicate allow_arp once", v.name, reasons)
		}
	}
}
