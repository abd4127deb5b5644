package value

import (
	"fmt"
	"math/big"
	"net/netip"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A Net is a network of one family: the value of net("10.0.0.0/24"). Its
// address has no bits set behind the prefix length.
type Net struct{ netip.Prefix }

var (
	_ starlark.Comparable = Net{}
	_ starlark.Container  = Net{}
	_ starlark.HasAttrs   = Net{}
)

// ParseNet parses a network. Bits behind the prefix length are refused: in
// "10.0.0.5/8" one of the two numbers is a mistake.
func ParseNet(s string) (Net, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
			return Net{}, fmt.Errorf("net %q: no prefix length: write net(%q) for this address alone", s, netip.PrefixFrom(a, a.BitLen()))
		}
		return Net{}, fmt.Errorf("net %q: not a network such as 10.0.0.0/24 or fd00::/64", s)
	}
	if p != p.Masked() {
		return Net{}, fmt.Errorf("net %q: has bits set behind the prefix length: write net(%q)", s, p.Masked())
	}
	return Net{p}, nil
}

// String is the network as users write it.
func (x Net) String() string { return x.Prefix.String() }

// Type is "net".
func (Net) Type() string { return "net" }

// Freeze does nothing: a Net never changes.
func (Net) Freeze() {}

// Truth is True.
func (Net) Truth() starlark.Bool { return true }

// Hash is equal for equal networks.
func (x Net) Hash() (uint32, error) {
	h, err := IP{x.Addr()}.Hash()
	return h*31 + uint32(x.Bits()), err
}

// CompareSameType compares two networks: first by address, then the wider
// before the narrower. Networks of different families are unequal and not
// ordered, as with [IP].
func (x Net) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	b := y.(Net)
	if x.Addr().BitLen() != b.Addr().BitLen() {
		return op == syntax.NEQ, nil
	}
	c := x.Addr().Compare(b.Addr())
	if c == 0 {
		c = x.Bits() - b.Bits()
	}
	return ordered(op, c), nil
}

// Has reports whether an address, or a whole network, lies inside.
func (x Net) Has(y starlark.Value) (bool, error) {
	switch y := y.(type) {
	case IP:
		return x.Contains(y.Addr), nil
	case Net:
		return x.Bits() <= y.Bits() && x.Contains(y.Addr()), nil
	case starlark.String:
		return false, fmt.Errorf("string in net: write ip(%s)", y)
	}
	return false, fmt.Errorf("%s in net: want an ip or a net", y.Type())
}

// Attr answers first, last, prefix_len, version and the method host.
func (x Net) Attr(name string) (starlark.Value, error) {
	switch name {
	case "first":
		return IP{x.Addr()}, nil
	case "last":
		return IP{x.last()}, nil
	case "prefix_len":
		return starlark.MakeInt(x.Bits()), nil
	case "version":
		return IP{x.Addr()}.Attr("version")
	case "host":
		return starlark.NewBuiltin("host", host).BindReceiver(x), nil
	}
	return nil, noAttr(x, name, x.AttrNames())
}

// AttrNames lists the attributes, sorted.
func (Net) AttrNames() []string { return []string{"first", "host", "last", "prefix_len", "version"} }

// last is the highest address of the network.
func (x Net) last() netip.Addr {
	b := x.Addr().AsSlice()
	for i := range b {
		if free := 8*(i+1) - x.Bits(); free >= 8 {
			b[i] = 0xff
		} else if free > 0 {
			b[i] |= 1<<free - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// host is net.host(n): the n-th address of the network, counting from 0 at
// its first, or from -1 at its last.
func host(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	x := b.Receiver().(Net)
	var n starlark.Int
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &n); err != nil {
		return nil, err
	}
	from := x.Addr()
	if n.Sign() < 0 {
		from, n = x.last(), n.Add(starlark.MakeInt(1))
	}
	v, err := IP{from}.add(n)
	if err != nil || !x.Contains(v.(IP).Addr) {
		return nil, fmt.Errorf("host: %s has no address number %s", x, args[0])
	}
	return v, nil
}

func bigOf(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
