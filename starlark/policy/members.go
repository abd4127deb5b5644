package policy

import (
	"fmt"
	"net/netip"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/value"

	"go.starlark.net/starlark"
)

// A memberKey finds the members of a large collection again: predicates are
// compiled for both families, and helpers are called more than once.
type memberKey struct {
	x    any
	kind frame.Kind // KindInt for integers
}

// membersOf is the set of the values of x's type and family that `x in y`
// finds, networks and ranges of ports included. Integers are biased.
func (c *compiler) membersOf(x leaf, y starlark.Value) (set, error) {
	kind := frame.KindInt
	if x.kind == leafAddr {
		kind = x.field.Kind()
	}
	var key any
	switch y.(type) {
	case *starlark.List, *starlark.Dict, *starlark.Set:
		key = memberKey{y, kind}
		if s, ok := c.members[key]; ok {
			return s, nil
		}
	}
	s, err := collect(kind, y)
	if err == nil && key != nil {
		c.members[key] = s
	}
	return s, err
}

// collect finds the members of one kind in a collection.
func collect(kind frame.Kind, y starlark.Value) (set, error) {
	var spans []span
	switch y := y.(type) {
	case value.Net, value.Ports:
		return appendMember(kind, spans, y, true)
	case *starlark.List, starlark.Tuple, *starlark.Set, *starlark.Dict:
		if n := starlark.Len(y); n > 0 {
			spans = make([]span, 0, n)
		}
		it := starlark.Iterate(y)
		defer it.Done()
		var e starlark.Value
		var err error
		for it.Next(&e) {
			if spans, err = appendMember(kind, spans, e, false); err != nil {
				return nil, err
			}
		}
		return makeSet(spans), nil
	case starlark.String:
		if _, err := netip.ParsePrefix(string(y)); err == nil {
			return nil, fmt.Errorf("%s in a string: write net(%s)", kindName(kind), y)
		}
		return nil, fmt.Errorf("%s in a string", kindName(kind))
	case starlark.Bytes:
		return nil, fmt.Errorf("%s in a %s", kindName(kind), y.Type())
	case starlark.Iterable: // a range
		if n := starlark.Len(y); n > 1<<16 && y.Type() == "range" {
			return wideRange(kind, y, n)
		}
		it := y.Iterate()
		defer it.Done()
		var e starlark.Value
		for it.Next(&e) {
			spans, _ = appendMember(kind, spans, e, false)
		}
		return makeSet(spans), nil
	}
	return nil, fmt.Errorf("%s in %s: nothing to search in", kindName(kind), y.Type())
}

// wideRange is a range() of step 1 too long to be listed.
func wideRange(kind frame.Kind, y starlark.Iterable, n int) (set, error) {
	if kind != frame.KindInt {
		return nil, nil
	}
	r := y.(starlark.Indexable)
	first, _ := starlark.AsInt32(r.Index(0))
	second, _ := starlark.AsInt32(r.Index(1))
	if second-first != 1 {
		return nil, fmt.Errorf("a range of %d numbers with a step of %d", n, second-first)
	}
	return set{{biased(int64(first)), biased(int64(first) + int64(n) - 1)}}, nil
}

// appendMember adds what one element of a collection stands for. alone says
// that it is not an element but what is searched itself.
func appendMember(kind frame.Kind, spans []span, e starlark.Value, alone bool) ([]span, error) {
	switch e := e.(type) {
	case starlark.Int:
		if n, ok := e.Int64(); ok && kind == frame.KindInt {
			return append(spans, span{biased(n), biased(n)}), nil
		}
	case starlark.Float:
		if n := int64(e); kind == frame.KindInt && starlark.Float(n) == e {
			return append(spans, span{biased(n), biased(n)}), nil
		}
	case value.Ports:
		if kind == frame.KindInt {
			for _, r := range e.Ranges() {
				spans = append(spans, span{biased(int64(r.First)), biased(int64(r.Last))})
			}
			return spans, nil
		}
	case value.IP:
		if kind == kindOf(e.Is4()) {
			v := u128Of(e.Addr)
			return append(spans, span{v, v}), nil
		}
		if kind == frame.KindIPv4 || kind == frame.KindIPv6 {
			return spans, nil
		}
	case value.Net:
		if kind == kindOf(e.Addr().Is4()) {
			return append(spans, prefixSpan(e.Prefix)), nil
		}
		if kind == frame.KindIPv4 || kind == frame.KindIPv6 {
			return spans, nil
		}
	case value.MAC:
		if kind == frame.KindMAC {
			v := u128{0, e.Uint64()}
			return append(spans, span{v, v}), nil
		}
	}
	if alone {
		return nil, fmt.Errorf("%s in %s: never inside", kindName(kind), e.Type())
	}
	if kind == frame.KindInt {
		return spans, nil
	}
	return spans, value.Mixed(sampleOf(kind), e)
}

func kindOf(is4 bool) frame.Kind {
	if is4 {
		return frame.KindIPv4
	}
	return frame.KindIPv6
}

func sampleOf(kind frame.Kind) starlark.Value {
	if kind == frame.KindMAC {
		return value.MAC{}
	}
	return value.IP{}
}

func kindName(kind frame.Kind) string {
	if kind == frame.KindInt {
		return "int"
	}
	return sampleOf(kind).Type()
}
