package e2e_test

import (
	"slices"
	"testing"
	"time"
)

// sure are the variants that have to work on an unprotected bridge for the
// other tests to mean anything, on any kernel.
var sure = map[string]effect{
	"reply": poisons, "gratuitous_request": poisons, "request_unicast": poisons, "request_creates": poisons,
	"vlan0_q": poisons, "vlan0_ad_q": poisons, "vlan0_q_q_q": poisons, "htype_6": poisons, "trailer_long": poisons,
	"na_override": poisons, "ns_creates": poisons, "na_vlan0": poisons,
	"mac_theft": moves, "mac_theft_other": moves, "ra_router": reroutes, "ipv4_source": arrives, "dhcp_offer": arrives,
}

// TestControl sends every variant over a Linux bridge without protection. The
// kernels differ in details, so only the sure ones and the number of those
// that poison are asserted; the rest is in the log.
func TestControl(t *testing.T) {
	require(t, "root", "netns")
	l := newBridge(t)
	time.Sleep(300 * time.Millisecond) // multicast listener reports of the new cards
	count := map[effect]int{}
	for _, v := range allVariants() {
		o, err := l.try(v)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		if len(o.heard) > 1 {
			t.Logf("%s: alice heard %d frames: % x", v.name, len(o.heard), o.heard)
		}
		if !v.hostile {
			if o.effect != arrives || !slices.ContainsFunc(o.heard, func(b []byte) bool { return string(b) == string(v.frame) }) {
				t.Errorf("%s is honest and %s: %s", v.name, o.effect, o.detail)
			}
			continue
		}
		count[o.effect]++
		if want, ok := sure[v.name]; ok && o.effect != want {
			t.Errorf("%s %s, want %s: the suite proves nothing here", v.name, o.effect, want)
		}
		if o.effect != v.control {
			t.Logf("%s %s on this kernel, the table says %s", v.name, o.effect, v.control)
		}
	}
	t.Logf("unprotected: %d variants poison, %d reroute, %d move the forwarding table, %d arrive, %d do nothing",
		count[poisons], count[reroutes], count[moves], count[arrives], count[harmless])
	if count[poisons] < 32 {
		t.Errorf("%d variants poison, want 32 at least", count[poisons])
	}
}
