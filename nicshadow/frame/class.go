package frame

// A Class says which headers a frame carries, and so which predicates judge
// it and which fields it has. A program has one entry point for each class.
// The zero Class is that of a frame that was not parsed: nothing judges it.
type Class uint8

// The classes. Their numbers are part of the program encoding: append, never
// renumber.
const (
	ClassNone  Class = iota
	ClassARP         // Ethernet and IPv4 ARP, request or reply
	ClassOther       // an EtherType that is neither ARP, IPv4 nor IPv6

	ClassIPv4TCP
	ClassIPv4UDP
	ClassIPv4ICMP
	ClassIPv4Other    // any other protocol
	ClassIPv4Fragment // a later fragment: it carries no transport header

	ClassIPv6TCP
	ClassIPv6UDP
	ClassIPv6ICMP     // ICMPv6 but for neighbour discovery
	ClassIPv6NDP      // RS, RA, NS, NA, redirect (types 133 to 137)
	ClassIPv6Other    // any other protocol
	ClassIPv6Fragment // a later fragment

	NumClasses
)
