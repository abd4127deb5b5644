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

	ClassIPv4DHCP // UDP to port 67 or 68 (RFC 2131)
	ClassIPv6DHCP // UDP to port 546 or 547 (RFC 8415)

	NumClasses
)

var classNames = [NumClasses]string{
	ClassNone:         "none",
	ClassARP:          "arp",
	ClassOther:        "other",
	ClassIPv4TCP:      "ipv4-tcp",
	ClassIPv4UDP:      "ipv4-udp",
	ClassIPv4ICMP:     "ipv4-icmp",
	ClassIPv4Other:    "ipv4-other",
	ClassIPv4Fragment: "ipv4-fragment",
	ClassIPv6TCP:      "ipv6-tcp",
	ClassIPv6UDP:      "ipv6-udp",
	ClassIPv6ICMP:     "ipv6-icmp",
	ClassIPv6NDP:      "ipv6-ndp",
	ClassIPv6Other:    "ipv6-other",
	ClassIPv6Fragment: "ipv6-fragment",
	ClassIPv4DHCP:     "ipv4-dhcp",
	ClassIPv6DHCP:     "ipv6-dhcp",
}

// String is the name of the class, as assembly and log lines write it.
func (c Class) String() string {
	if c < NumClasses {
		return classNames[c]
	}
	return "invalid class"
}

// ClassNamed is the class of that name; ok is false where there is none.
func ClassNamed(name string) (c Class, ok bool) {
	for c := ClassARP; c < NumClasses; c++ {
		if classNames[c] == name {
			return c, true
		}
	}
	return ClassNone, false
}

// Has reports whether a frame of class c carries field f. A frame that was
// not parsed carries none.
func (c Class) Has(f Field) bool {
	return f.Classes().Has(c)
}

// A ClassSet is a set of classes, one bit each.
type ClassSet uint16

// SetOf is the set of the classes cs.
func SetOf(cs ...Class) ClassSet {
	var s ClassSet
	for _, c := range cs {
		s |= 1 << c
	}
	return s
}

// Has reports whether c is in the set.
func (s ClassSet) Has(c Class) bool { return c < NumClasses && s>>c&1 != 0 }

// The sets of classes that share headers.
const (
	setARP  ClassSet = 1 << ClassARP
	setTCP  ClassSet = 1<<ClassIPv4TCP | 1<<ClassIPv6TCP
	setDHCP ClassSet = 1<<ClassIPv4DHCP | 1<<ClassIPv6DHCP
	setUDP  ClassSet = 1<<ClassIPv4UDP | 1<<ClassIPv6UDP | setDHCP
	setNDP  ClassSet = 1 << ClassIPv6NDP
	setICMP ClassSet = 1<<ClassIPv4ICMP | 1<<ClassIPv6ICMP | setNDP
	setIPv4 ClassSet = 1<<ClassIPv4TCP | 1<<ClassIPv4UDP | 1<<ClassIPv4ICMP |
		1<<ClassIPv4Other | 1<<ClassIPv4Fragment | 1<<ClassIPv4DHCP
	setIPv6 ClassSet = 1<<ClassIPv6TCP | 1<<ClassIPv6UDP | 1<<ClassIPv6ICMP |
		1<<ClassIPv6NDP | 1<<ClassIPv6Other | 1<<ClassIPv6Fragment | 1<<ClassIPv6DHCP
	setAll ClassSet = (1<<NumClasses - 1) &^ (1 << ClassNone)
)
