package frame

// A Reason says why [Parse] refused a frame, or that it did not. The zero
// Reason is that of a frame nobody has parsed: it is not OK.
type Reason uint8

// The reasons. Their numbers may change; their names are counters and log
// lines.
const (
	Unparsed Reason = iota
	OK

	Truncated        // shorter than its Ethernet header and tags
	TooLong          // more than MaxLength bytes
	GroupSource      // the source MAC is a multicast or broadcast address
	ZeroSource       // the source MAC is all zero
	TooManyTags      // more than MaxTags VLAN tags, of whatever TPID
	LLC              // an 802.3 length where the EtherType should be
	MalformedARP     // not Ethernet and IPv4, not a request or reply, or cut short
	MalformedIPv4    // version, header length, total length, options or flags
	MalformedIPv6    // version, payload length or extension headers
	SourceRoute      // IPv4 LSRR or SSRR (RFC 7126), IPv6 routing type 0 (RFC 5095) or with segments left
	ExtensionHeaders // more than MaxExtensionHeaders of them
	FragmentOverlap  // a later fragment that would overwrite the transport header
	TruncatedHeaders // the transport header is not complete in this frame (RFC 7112)
	MalformedTCP     // data offset below the header, or behind the segment
	MalformedUDP     // length unlike that of the datagram
	MalformedICMP    // an error message without the header it is about, or in fragments
	MalformedNDP     // against the validation rules of RFC 4861
	FragmentedNDP    // neighbour discovery in any fragment (RFC 6980)
	MalformedDHCP    // no message of RFC 2131 or RFC 8415, or in fragments
	TrailingBytes    // more bytes behind the packet than Ethernet's padding

	NumReasons
)

var reasonNames = [NumReasons]string{
	Unparsed:         "unparsed",
	OK:               "ok",
	Truncated:        "truncated",
	TooLong:          "too long",
	GroupSource:      "group source mac",
	ZeroSource:       "zero source mac",
	TooManyTags:      "too many vlan tags",
	LLC:              "llc frame",
	MalformedARP:     "malformed arp",
	MalformedIPv4:    "malformed ipv4",
	MalformedIPv6:    "malformed ipv6",
	SourceRoute:      "source route",
	ExtensionHeaders: "too many extension headers",
	FragmentOverlap:  "fragment overlaps header",
	TruncatedHeaders: "truncated transport header",
	MalformedTCP:     "malformed tcp",
	MalformedUDP:     "malformed udp",
	MalformedICMP:    "malformed icmp",
	MalformedNDP:     "malformed ndp",
	FragmentedNDP:    "fragmented ndp",
	MalformedDHCP:    "malformed dhcp",
	TrailingBytes:    "trailing bytes",
}

// String is the name of the reason.
func (r Reason) String() string {
	if r < NumReasons {
		return reasonNames[r]
	}
	return "invalid reason"
}
