package frame

import (
	"fmt"
	"net"
)

// A MAC is a 48-bit Ethernet address in transmission order.
type MAC [6]byte

// ParseMAC reads six octets in hexadecimal, separated by colons or hyphens.
func ParseMAC(s string) (MAC, error) {
	// net.ParseMAC also takes EUI-64, InfiniBand and dotted forms.
	if len(s) != len("00:00:00:00:00:00") {
		return MAC{}, fmt.Errorf("mac %q: want six octets like 02:00:00:00:00:01", s)
	}
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("mac %q: want six octets like 02:00:00:00:00:01", s)
	}
	return MAC(hw), nil
}

// MACFromUint64 is the address whose octets are the low 48 bits of v, first
// octet most significant.
func MACFromUint64(v uint64) MAC {
	return MAC{byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

// Uint64 is the address as a number, first octet most significant: the form
// in which a [Key] and a rule program hold it.
func (m MAC) Uint64() uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 |
		uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}

// Group reports whether m addresses a group: multicast or broadcast.
func (m MAC) Group() bool { return m[0]&1 != 0 }

// String is the address as six lower-case octets with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }
