package policy

import "slices"

// A PredicateDoc says what a predicate judges and which parameters it may have.
type PredicateDoc struct {
	Name string
	// Judges says which frames.
	Judges string
	// Params are the names of the fields: its own first, then those of the
	// layers below.
	Params []string
}

// judgesWhat says which frames each predicate judges.
var judgesWhat = [numPreds]string{
	allowEthernet: "every frame",
	allowARP:      "ARP, strictly: Ethernet and IPv4, request or reply; src_ and dst_ are sender and target of its body",
	allowIPv4:     "IPv4",
	allowIPv6:     "IPv6",
	allowTCP:      "TCP over either IP version",
	allowUDP:      "UDP over either IP version",
	allowICMP:     "ICMP and ICMPv6, neighbour discovery too where there is no allow_ndp",
	allowNDP:      "neighbour discovery: router and neighbour solicitations and advertisements, redirects",
	allowDHCP:     "DHCPv4 and DHCPv6, by the port they go to; without it they are UDP",
}

// Predicates documents the predicates, in the order they judge.
func Predicates() []PredicateDoc {
	var out []PredicateDoc
	for i, name := range predNames {
		out = append(out, PredicateDoc{name, judgesWhat[i], pred(i).paramNames()})
	}
	return out
}

// Guards names the guards in the order they judge, and says what each drops.
func Guards() (names []string, drops map[string]string) {
	return slices.Clone(guardNames), map[string]string{
		"vlan": "frames with a VLAN tag",
		"mac":  "frames whose source MAC, or ARP sender MAC, is not the card's",
		"ip":   "packets from an address that is not the card's, and ICMP errors about packets that were not sent to it",
		"arp":  "ARP whose sender address is not the card's",
		"ndp":  "neighbour advertisements for addresses, and link-layer addresses, that are not the card's",
		"ra":   "router advertisements and redirects",
		"dhcp": "what DHCP servers and relays send, and what a client sends for another card",
	}
}
