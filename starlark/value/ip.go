package value

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// An IP is an IPv4 or IPv6 address without a zone, the value of ip("10.0.0.1").
type IP struct{ netip.Addr }

var (
	_ starlark.Comparable = IP{}
	_ starlark.HasAttrs   = IP{}
	_ starlark.HasBinary  = IP{}
)

// ParseIP parses an address; zones ("fe80::1%eth0") are refused, since no
// frame carries one.
func ParseIP(s string) (IP, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		if p, perr := netip.ParsePrefix(s); perr == nil {
			return IP{}, fmt.Errorf("ip %q: has a prefix length: write net(%q) for the network", s, p.Masked())
		}
		return IP{}, fmt.Errorf("ip %q: not an IPv4 or IPv6 address", s)
	}
	if a.Zone() != "" {
		return IP{}, fmt.Errorf("ip %q: has a zone", s)
	}
	return IP{a}, nil
}

// String is the address as users write it: ip("10.0.0.1").
func (x IP) String() string { return x.Addr.String() }

// Type is "ip".
func (IP) Type() string { return "ip" }

// Freeze does nothing: an IP never changes.
func (IP) Freeze() {}

// Truth is True: every address counts, 0.0.0.0 too.
func (IP) Truth() starlark.Bool { return true }

// Hash is equal for equal addresses.
func (x IP) Hash() (uint32, error) {
	b := x.As16()
	h := binary.BigEndian.Uint64(b[:8])*0x9e3779b97f4a7c15 ^ binary.BigEndian.Uint64(b[8:])
	h *= 0xff51afd7ed558ccd
	return uint32(h>>32) ^ uint32(h), nil
}

// CompareSameType compares two addresses. Addresses of different families are
// unequal and not ordered: each of < <= > >= is False between them, so that a
// predicate on IPv4 ranges says nothing of IPv6 frames.
func (x IP) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	b := y.(IP).Addr
	if x.BitLen() != b.BitLen() {
		return op == syntax.NEQ, nil
	}
	return ordered(op, x.Addr.Compare(b)), nil
}

// ordered turns a three-way comparison into the result of an operator.
func ordered(op syntax.Token, cmp int) bool {
	switch op {
	case syntax.EQL:
		return cmp == 0
	case syntax.NEQ:
		return cmp != 0
	case syntax.LT:
		return cmp < 0
	case syntax.LE:
		return cmp <= 0
	case syntax.GT:
		return cmp > 0
	default:
		return cmp >= 0
	}
}

// Binary is address arithmetic: ip + int and ip - int are the addresses so
// many further on.
func (x IP) Binary(op syntax.Token, y starlark.Value, side starlark.Side) (starlark.Value, error) {
	n, ok := y.(starlark.Int)
	if !ok || side == starlark.Right || op != syntax.PLUS && op != syntax.MINUS {
		return nil, nil
	}
	if op == syntax.MINUS {
		n = starlark.MakeInt(0).Sub(n)
	}
	return x.add(n)
}

// add is the address n further on, or an error where it leaves the family.
func (x IP) add(n starlark.Int) (starlark.Value, error) {
	sum := n.BigInt()
	b := x.AsSlice()
	sum.Add(sum, starlark.MakeBigInt(bigOf(b)).BigInt())
	if sum.Sign() < 0 || sum.BitLen() > 8*len(b) {
		return nil, fmt.Errorf("ip %s + %s: leaves the address space", x, n)
	}
	a, _ := netip.AddrFromSlice(sum.FillBytes(b))
	return IP{a}, nil
}

// Attr answers version and the is_* tests of addressRanges.
func (x IP) Attr(name string) (starlark.Value, error) {
	if name == "version" {
		if x.Is4() {
			return starlark.MakeInt(4), nil
		}
		return starlark.MakeInt(6), nil
	}
	if nets, ok := AddressRanges()[name]; ok {
		for _, n := range nets {
			if n.Contains(x.Addr) {
				return starlark.True, nil
			}
		}
		return starlark.False, nil
	}
	return nil, noAttr(x, name, x.AttrNames())
}

// AttrNames lists the attributes, sorted.
func (IP) AttrNames() []string {
	return []string{"is_link_local", "is_loopback", "is_multicast", "is_private", "is_unspecified", "version"}
}

// AddressRanges gives, for each is_* attribute of an ip, the networks it
// stands for (RFC 6890, RFC 1918, RFC 4193, RFC 5771, RFC 4291). Read only.
var AddressRanges = sync.OnceValue(func() map[string][]netip.Prefix {
	return map[string][]netip.Prefix{
		"is_link_local":  prefixes("169.254.0.0/16", "fe80::/10"),
		"is_loopback":    prefixes("127.0.0.0/8", "::1/128"),
		"is_multicast":   prefixes("224.0.0.0/4", "ff00::/8"),
		"is_private":     prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
		"is_unspecified": prefixes("0.0.0.0/32", "::/128"),
	}
})

func prefixes(ss ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}
