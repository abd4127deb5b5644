package nicshadow_test

import (
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
)

// answersOnly is a program under which a card speaks when it is spoken to: ARP
// and ping are answered, and nothing is asked.
func answersOnly(t testing.TB, why string) *rule.Program {
	t.Helper()
	u, err := rule.Assemble(`
	.entry arp
		answered else no
		ret forward, predicate "` + why + `"
	.entry ipv4-icmp ipv4-udp ipv4-tcp
		flow else no
		ret forward, predicate "` + why + `"
	.entry other ipv4-dhcp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment
	no:
		ret drop, predicate "` + why + `"
	`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAnswersOnly is the whole road with the kernel's own ARP and ICMP: who is
// asked answers, over a reload, and who asks is not heard.
func TestAnswersOnly(t *testing.T) {
	tools(t, "ping")
	table, _, c := cards(t, nicshadow.Config{}, 3)
	put(t, table, 2, answersOnly(t, "first"))
	if c[2].ping(t, "10.0.0.3", 1) {
		t.Error("a card that only answers has pinged")
	}
	if !c[1].ping(t, "10.0.0.2", 3) {
		t.Errorf("a ping is not answered: %+v", stats(t, table, 2))
	}
	// ARP is in the caches now. The reload comes between a question and its
	// answer for some of these.
	done := make(chan bool)
	go func() { done <- c[1].ping(t, "10.0.0.2", 50) }()
	for i := range 20 {
		put(t, table, 2, answersOnly(t, []string{"first", "second"}[i%2]))
	}
	if !<-done {
		t.Errorf("a reload forgets flows: %+v", stats(t, table, 2))
	}
	forged := arpReply(macOf(1), macOf(2), "10.0.0.3", "10.0.0.1") // "3 is at 2"
	before := stats(t, table, 2).Dropped
	var j nicshadow.Judgement
	if table.Judge(2, forged, &j) || stats(t, table, 2).Dropped != before+1 {
		t.Error("an ARP reply that nobody asked for passes")
	}
}
