package frame

// A Field names one value of a parsed frame. Rule programs read fields by
// number, so the numbers are part of the program encoding: append, never
// renumber. The zero Field is invalid.
type Field uint8

// The fields, in the order of the layers they belong to.
const (
	FieldInvalid Field = iota

	// Link layer: valid in every class.
	EthDst    // destination MAC, 48 bits
	EthSrc    // source MAC, 48 bits
	EtherType // of the payload, behind any VLAN tags, 16 bits
	VLAN      // VLAN identifier of the outer tag, 12 bits; 0 without a tag
	VLANTags  // number of VLAN tags, 0 to 2
	Length    // of the whole frame without FCS, in bytes, 16 bits

	// ARP (RFC 826), class ARP.
	ARPOp        // 1 request, 2 reply
	ARPSenderMAC // ar$sha
	ARPSenderIP  // ar$spa
	ARPTargetMAC // ar$tha
	ARPTargetIP  // ar$tpa

	// IPv4 (RFC 791), classes IPv4*.
	IPv4Src
	IPv4Dst

	// IPv6 (RFC 8200), classes IPv6*. The only 128-bit fields besides NDPTarget.
	IPv6Src
	IPv6Dst

	// Both IP versions.
	IPProtocol // IPv4 protocol, or the IPv6 next header behind all extension headers
	IPTTL      // IPv4 time to live, IPv6 hop limit
	IPDSCP     // 6 bits
	IPFragment // 1 if the frame is any fragment of a datagram, the first included

	// TCP (RFC 9293) and UDP (RFC 768). Not valid in the Fragment classes.
	SrcPort
	DstPort
	TCPSyn
	TCPAck
	TCPFin
	TCPRst

	// ICMP (RFC 792), ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861).
	ICMPType
	ICMPCode
	NDPTarget  // target address of NS, NA and redirect; :: in RS and RA
	NDPLinkMAC // source or target link-layer address option; 0 without one

	// NumFields is the number of field numbers, FieldInvalid included.
	NumFields
)

// A Kind is the type of a field's value.
type Kind uint8

// The kinds of fields. The zero Kind is invalid.
const (
	KindInvalid Kind = iota
	KindInt          // unsigned integer of Info.Width bits
	KindBool         // 0 or 1
	KindMAC          // 48 bits, first octet most significant
	KindIPv4         // 32 bits, network order read as one number
	KindIPv6         // 128 bits
)
