package frame

import "encoding/binary"

// ICMPv6 types of neighbour discovery (RFC 4861, 4).
const (
	typeRS       = 133
	typeRA       = 134
	typeNS       = 135
	typeNA       = 136
	typeRedirect = 137
)

// ndpForms says, for each type, how long the message is before its options
// and which option carries a link-layer address: 1 of the source, 2 of the
// target.
var ndpForms = [...]struct{ fixed, option int }{
	0:                     {8, 1},
	typeRA - typeRS:       {16, 1},
	typeNS - typeRS:       {24, 1},
	typeNA - typeRS:       {24, 2},
	typeRedirect - typeRS: {40, 2},
}

// no allocation, no lock, no log below this line

func isNDP(typ byte) bool { return typ >= typeRS && typ <= typeRedirect }

// parseNDP reads a message of neighbour discovery under the validation rules
// of RFC 4861 (6.1, 7.1, 8.1), which say what a receiver must ignore: here it
// drops. The checksum is the receiver's business.
func parseNDP(p []byte, frag fragmentKind, meta uint64, k *Key) Reason {
	if frag != notFragment {
		return FragmentedNDP
	}
	form := ndpForms[p[0]-typeRS]
	if meta>>shiftTTL&0xff != 255 || p[1] != 0 || len(p) < form.fixed {
		return MalformedNDP
	}
	k.Words[wordTarget], k.Words[wordTarget+1] = 0, 0
	if form.fixed >= 24 {
		k.Words[wordTarget] = binary.BigEndian.Uint64(p[8:])
		k.Words[wordTarget+1] = binary.BigEndian.Uint64(p[16:])
	}
	mac, r := ndpOptions(p[form.fixed:], form.option)
	if r != OK {
		return r
	}
	k.Words[wordMAC] = mac
	if !ndpAddresses(p, mac != 0, k) {
		return MalformedNDP
	}
	k.Words[wordL4] = uint64(p[0])<<shiftICMPType | uint64(p[1])<<shiftICMPCode
	return k.accept(ClassIPv6NDP, meta)
}

// ndpOptions walks the options of a message: type, length in 8-byte units,
// value. It returns the link-layer address in option want, shifted as the key
// holds it. A second such address, one of the other kind (which receivers
// ignore) and one of another length than Ethernet's are refused.
func ndpOptions(p []byte, want int) (mac uint64, r Reason) {
	for len(p) > 0 { // each turn takes 8 bytes or more
		if len(p) < 8 || p[1] == 0 || int(p[1])*8 > len(p) {
			return 0, MalformedNDP
		}
		if typ := int(p[0]); typ == 1 || typ == 2 {
			if typ != want || mac != 0 || p[1] != 1 {
				return 0, MalformedNDP
			}
			mac = binary.BigEndian.Uint64(p) << 16
			if mac == 0 {
				return 0, MalformedNDP
			}
		}
		p = p[int(p[1])*8:]
	}
	return mac, OK
}

// ndpAddresses checks the rules about addresses. hasMAC says whether the
// message has a link-layer address option.
func ndpAddresses(p []byte, hasMAC bool, k *Key) bool {
	srcHi, srcLo := k.Words[wordSrc6], k.Words[wordSrc6+1]
	unspecified := srcHi|srcLo == 0
	linkLocal := srcHi>>54 == 0xfe80>>6
	toMulticast := k.Words[wordDst6]>>56 == 0xff
	targetMulticast := k.Words[wordTarget]>>56 == 0xff
	switch p[0] {
	case typeRS:
		return !(unspecified && hasMAC)
	case typeRA:
		return linkLocal
	case typeNS:
		if targetMulticast {
			return false
		}
		if unspecified { // a probe goes to the solicited-node address, and names nobody
			return !hasMAC && k.Words[wordDst6] == 0xff02<<48 && k.Words[wordDst6+1]>>24 == 0x1ff
		}
		return true
	case typeNA:
		solicited := p[4]&0x40 != 0
		return !targetMulticast && !(toMulticast && solicited)
	default: // redirect
		return linkLocal && p[24] != 0xff
	}
}
