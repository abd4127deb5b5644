package value

import (
	"sekimori/nicshadow/frame"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A MAC is an Ethernet address, the value of mac("02:00:0a:00:00:05").
type MAC struct{ frame.MAC }

var (
	_ starlark.Comparable = MAC{}
	_ starlark.HasAttrs   = MAC{}
)

// String is the address in the usual form, lower case with colons.
func (x MAC) String() string { return x.MAC.String() }

// Type is "mac".
func (MAC) Type() string { return "mac" }

// Freeze does nothing: a MAC never changes.
func (MAC) Freeze() {}

// Truth is True.
func (MAC) Truth() starlark.Bool { return true }

// Hash is equal for equal addresses.
func (x MAC) Hash() (uint32, error) {
	h := x.Uint64() * 0x9e3779b97f4a7c15
	return uint32(h >> 32), nil
}

// CompareSameType orders addresses as the numbers they are, first octet most
// significant.
func (x MAC) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	a, b := x.Uint64(), y.(MAC).Uint64()
	switch {
	case a < b:
		return ordered(op, -1), nil
	case a > b:
		return ordered(op, 1), nil
	}
	return ordered(op, 0), nil
}

// Attr answers is_broadcast, is_multicast (the group bit, IEEE 802: so for
// broadcast too) and is_local (locally administered).
func (x MAC) Attr(name string) (starlark.Value, error) {
	switch name {
	case "is_broadcast":
		return starlark.Bool(x.Uint64() == 1<<48-1), nil
	case "is_multicast":
		return starlark.Bool(x.MAC[0]&1 != 0), nil
	case "is_local":
		return starlark.Bool(x.MAC[0]&2 != 0), nil
	}
	return nil, noAttr(x, name, x.AttrNames())
}

// AttrNames lists the attributes, sorted.
func (MAC) AttrNames() []string { return []string{"is_broadcast", "is_local", "is_multicast"} }
