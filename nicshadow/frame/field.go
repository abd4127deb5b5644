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

	// ICMP and ICMPv6 but for neighbour discovery: an error message quotes the
	// packet that it is about. These are where that packet was going; 0 in
	// what is no error message.
	ICMPAbout4
	ICMPAbout6

	// DHCP (RFC 2131) and DHCPv6 (RFC 8415), classes DHCP. Some fields have
	// one for each IP version.
	DHCPOp          // 1 from clients to servers, 2 from servers to clients
	DHCPType        // message type: option 53, or the first byte of DHCPv6
	DHCPRelayed     // a relay's: giaddr is set, or a relay message of DHCPv6
	DHCPClientMAC   // chaddr; DHCPv6 has none
	DHCPRequested4  // from clients option 50, else ciaddr; from servers yiaddr
	DHCPRequested6  // the first address in an IA_NA or IA_TA; :: without one
	DHCPServer4     // option 54; 0 without one
	DHCPServer6     // option 12; :: without one
	DHCPTransaction // xid of 32 bits, in DHCPv6 of 24
	DHCPLeaseTime   // option 51, or the valid lifetime of DHCPRequested6; in seconds, 0 without one

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

// An Info describes a field: its name, type and place in a [Key].
type Info struct {
	Name  string // as assembly and explanations write it
	Kind  Kind
	Width uint8 // in bits
	// Word and Shift say where in Key.Words the field's lowest bit lies. A
	// 128-bit field fills Word (high half) and Word+1.
	Word, Shift uint8
	// Classes are those whose frames carry the field.
	Classes ClassSet
}

// infos is the one table of fields.
var infos = [NumFields]Info{
	EthDst:    {"eth.dst", KindMAC, 48, wordDst, 16, setAll},
	EthSrc:    {"eth.src", KindMAC, 48, wordSrc, 16, setAll},
	EtherType: {"eth.type", KindInt, 16, wordDst, 0, setAll},
	VLAN:      {"vlan.id", KindInt, 12, wordSrc, 4, setAll},
	VLANTags:  {"vlan.tags", KindInt, 2, wordSrc, 0, setAll},
	Length:    {"eth.len", KindInt, 16, wordMeta, shiftLength, setAll},

	ARPOp:        {"arp.op", KindInt, 16, wordL4, 0, setARP},
	ARPSenderMAC: {"arp.sha", KindMAC, 48, wordL4, 16, setARP},
	ARPSenderIP:  {"arp.spa", KindIPv4, 32, wordAddr4, 32, setARP},
	ARPTargetMAC: {"arp.tha", KindMAC, 48, wordMAC, 16, setARP},
	ARPTargetIP:  {"arp.tpa", KindIPv4, 32, wordAddr4, 0, setARP},

	IPv4Src: {"ip4.src", KindIPv4, 32, wordAddr4, 32, setIPv4},
	IPv4Dst: {"ip4.dst", KindIPv4, 32, wordAddr4, 0, setIPv4},
	IPv6Src: {"ip6.src", KindIPv6, 128, wordSrc6, 0, setIPv6},
	IPv6Dst: {"ip6.dst", KindIPv6, 128, wordDst6, 0, setIPv6},

	IPProtocol: {"ip.proto", KindInt, 8, wordMeta, shiftProto, setIPv4 | setIPv6},
	IPTTL:      {"ip.ttl", KindInt, 8, wordMeta, shiftTTL, setIPv4 | setIPv6},
	IPDSCP:     {"ip.dscp", KindInt, 6, wordMeta, shiftDSCP, setIPv4 | setIPv6},
	IPFragment: {"ip.frag", KindBool, 1, wordMeta, shiftFrag, setIPv4 | setIPv6},

	SrcPort: {"port.src", KindInt, 16, wordL4, shiftSrcPort, setTCP | setUDP},
	DstPort: {"port.dst", KindInt, 16, wordL4, shiftDstPort, setTCP | setUDP},
	TCPSyn:  {"tcp.syn", KindBool, 1, wordL4, shiftSyn, setTCP},
	TCPAck:  {"tcp.ack", KindBool, 1, wordL4, shiftAck, setTCP},
	TCPFin:  {"tcp.fin", KindBool, 1, wordL4, shiftFin, setTCP},
	TCPRst:  {"tcp.rst", KindBool, 1, wordL4, shiftRst, setTCP},

	ICMPType:   {"icmp.type", KindInt, 8, wordL4, shiftICMPType, setICMP},
	ICMPCode:   {"icmp.code", KindInt, 8, wordL4, shiftICMPCode, setICMP},
	NDPTarget:  {"ndp.target", KindIPv6, 128, wordTarget, 0, setNDP},
	NDPLinkMAC: {"ndp.mac", KindMAC, 48, wordMAC, 16, setNDP},
	ICMPAbout4: {"icmp.about4", KindIPv4, 32, wordTarget, 0, 1 << ClassIPv4ICMP},
	ICMPAbout6: {"icmp.about6", KindIPv6, 128, wordTarget, 0, 1 << ClassIPv6ICMP},

	DHCPOp:          {"dhcp.op", KindInt, 2, wordMAC, shiftDHCPOp, setDHCP},
	DHCPType:        {"dhcp.type", KindInt, 8, wordMAC, 0, setDHCP},
	DHCPRelayed:     {"dhcp.relay", KindBool, 1, wordMAC, shiftDHCPRelay, setDHCP},
	DHCPClientMAC:   {"dhcp.mac", KindMAC, 48, wordMAC, 16, 1 << ClassIPv4DHCP},
	DHCPRequested4:  {"dhcp.addr4", KindIPv4, 32, wordTarget, 32, 1 << ClassIPv4DHCP},
	DHCPRequested6:  {"dhcp.addr6", KindIPv6, 128, wordTarget, 0, 1 << ClassIPv6DHCP},
	DHCPServer4:     {"dhcp.server4", KindIPv4, 32, wordTarget, 0, 1 << ClassIPv4DHCP},
	DHCPServer6:     {"dhcp.server6", KindIPv6, 128, wordServer, 0, 1 << ClassIPv6DHCP},
	DHCPTransaction: {"dhcp.xid", KindInt, 32, wordLease, shiftDHCPXID, setDHCP},
	DHCPLeaseTime:   {"dhcp.lease", KindInt, 32, wordLease, 0, setDHCP},
}

// Valid reports whether f is one of the fields.
func (f Field) Valid() bool { return f > FieldInvalid && f < NumFields }

// Info describes f; the zero Info where f is not valid.
func (f Field) Info() Info {
	if f >= NumFields {
		return Info{}
	}
	return infos[f]
}

// Width is the size of the field in bits, 0 where f is not valid.
func (f Field) Width() int { return int(f.Info().Width) }

// Kind is the type of the field's value.
func (f Field) Kind() Kind { return f.Info().Kind }

// Classes are the classes whose frames carry f.
func (f Field) Classes() ClassSet { return f.Info().Classes }

// String is the name of the field, as assembly writes it.
func (f Field) String() string {
	if !f.Valid() {
		return "invalid field"
	}
	return infos[f].Name
}

// FieldNamed is the field of that name; ok is false where there is none.
func FieldNamed(name string) (f Field, ok bool) {
	for f := FieldInvalid + 1; f < NumFields; f++ {
		if infos[f].Name == name {
			return f, true
		}
	}
	return FieldInvalid, false
}
