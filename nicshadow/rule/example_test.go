package rule_test

import (
	"fmt"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A container may ask for the addresses of its subnet, in its own name, and
// nothing else.
func Example() {
	unit, err := rule.Assemble(`
		.entry arp
			row eth.src=02:00:00:00:00:05, arp.sha=02:00:00:00:00:05, arp.spa=10.0.0.5 else forged
			eq   arp.op, 1 else other              @ web.star:3:12
			mask arp.tpa, 10.0.0.0/24 else other   @ web.star:3:36
			ret  forward, predicate "allow_arp" (web.star:3:5)
		other:
			ret  drop, predicate "allow_arp" (web.star:3:5)
		forged:
			ret  drop, guard "arp"

		.entry other ipv4-tcp ipv4-udp ipv4-dhcp ipv4-icmp ipv4-other ipv4-fragment
		.entry ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment
			ret drop, unspoken "ethernet"
	`)
	if err != nil {
		fmt.Println(err)
		return
	}
	program, err := rule.New(unit)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d instructions, at most %d steps\n", program.Len(), program.MaxSteps())

	for _, b := range [][]byte{
		arpFrame(1, "10.0.0.5", "10.0.0.9"),
		arpFrame(1, "10.0.0.5", "10.0.1.9"),
		arpFrame(2, "10.0.0.9", "10.0.0.7"),
		ipv4Frame(6, "10.0.0.5", "10.0.0.9", 40000, 80, 60),
	} {
		var key frame.Key
		if reason := frame.Parse(b, &key); reason != frame.OK {
			fmt.Println("drop:", reason)
			continue
		}
		outcome := program.Run(&key)
		why := program.Why(outcome.PC)
		file, line, _ := program.Position(outcome.PC)
		fmt.Printf("%v at pc %d: %v %q %s:%d\n", outcome.Verdict, outcome.PC, why.Kind, why.Name, file, line)
	}
	// Output:
	// 7 instructions, at most 4 steps
	// forward at pc 3: predicate "allow_arp" web.star:3
	// drop at pc 4: predicate "allow_arp" web.star:3
	// drop at pc 5: guard "arp" :0
	// drop at pc 6: unspoken "ethernet" :0
}
