package frame

// NumWords is the number of words in a [Key]. It is a power of two so that an
// index masked with NumWords-1 needs no bounds check; the last word is not
// used.
const NumWords = 16

// A Key holds the fields of one parsed frame at fixed places:
//
//	word  63            47            31            15            0
//	  0   | destination MAC (48)                    | EtherType    |
//	  1   | source MAC (48)                         | VLAN   |tags |
//	  2   | DSCP | fragment | TTL, protocol | length (16)  | class |
//	  3   | IPv4 source or ARP sender  | IPv4 destination or target|
//	  4   | source port |  dest. port  | type, code |  TCP flags   |
//	      | ARP sender MAC (48)                     | ARP operation|
//	  5   | ARP target MAC, NDP link-layer address  | 0            |
//	      | DHCP client MAC (48)  | relayed, operation, type (8)   |
//	 6 7  | IPv6 source                                            |
//	 8 9  | IPv6 destination                                       |
//	10 11 | NDP target, where what an ICMP error is about was going, |
//	      | the address that DHCP is about                         |
//	12 13 | DHCP server                                            |
//	  14  | DHCP transaction (32)      | lease time in seconds (32)|
//
// Fields of classes that never occur together share words, so a test of a
// field is only meaningful in a class that [Class.Has] it: rule programs are
// verified for that. The places are chosen for tests made at once: the source
// MAC beside the VLAN tags, both IPv4 addresses, both ports and the flags.
//
// Words is exported for the rule machine, which compares whole words under a
// mask; everyone else reads fields through [Key.Uint] and [Key.Wide].
type Key struct {
	Words [NumWords]uint64
}

// The words of a Key.
const (
	wordDst    = 0
	wordSrc    = 1
	wordMeta   = 2
	wordAddr4  = 3
	wordL4     = 4
	wordMAC    = 5
	wordSrc6   = 6
	wordDst6   = 8
	wordTarget = 10
	wordServer = 12
	wordLease  = 14
)

// Words that the rule machine reads by name, not by the place of a field.
const (
	ClassWord     = wordMeta  // its low byte is the frame's [Class]
	SourceWord    = wordSrc   // the source MAC and the VLAN tags
	AddressWord   = wordAddr4 // both addresses of IPv4 and ARP
	TransportWord = wordL4    // ports, types and flags; of ARP the sender MAC
	Source6Word   = wordSrc6  // an IPv6 source, and behind it the destination
)

// Shifts of the fields in wordMeta and wordL4.
const (
	shiftLength = 8
	shiftProto  = 24
	shiftTTL    = 32
	shiftFrag   = 40
	shiftDSCP   = 50 // where the IPv4 header has it, read as two numbers of 64 bits

	shiftSrcPort  = 48
	shiftDstPort  = 32
	shiftICMPType = 24
	shiftICMPCode = 16
	shiftAck      = 4 // where the TCP header has them (RFC 9293, 3.1)
	shiftRst      = 2
	shiftSyn      = 1
	shiftFin      = 0

	shiftDHCPOp    = 8
	shiftDHCPRelay = 10
	shiftDHCPXID   = 32
)

// Class is the class of the parsed frame, ClassNone before [Parse] accepted
// one.
func (k *Key) Class() Class { return Class(k.Words[wordMeta] & 0xff) }

// Uint is the value of f: a number, a flag, a MAC or IPv4 address with its
// first octet most significant, or the low half of a 128-bit field. It is 0
// where the frame's class does not have f.
func (k *Key) Uint(f Field) uint64 {
	_, lo := k.Wide(f)
	return lo
}

// Wide is the 128-bit value of f, with hi 0 for narrower fields. It is 0
// where the frame's class does not have f.
func (k *Key) Wide(f Field) (hi, lo uint64) {
	if !k.Class().Has(f) {
		return 0, 0
	}
	i := &infos[f]
	if i.Width == 128 {
		return k.Words[i.Word], k.Words[i.Word+1]
	}
	return 0, k.Words[i.Word] >> i.Shift & (1<<i.Width - 1)
}
