package args

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/value"
)

// A Type is what an argument may be: its name in documentation and errors,
// and the conversion from Starlark.
type Type struct {
	Name string
	// TakesNone passes None to Convert; else None counts as not given.
	TakesNone bool
	// Convert makes the Go value that Get returns.
	Convert func(starlark.Value) (any, error)
}

// Want is the error for a value of the wrong type.
func Want(name string, v starlark.Value) error {
	if fn, ok := v.(starlark.Callable); ok && strings.Contains(name, "()") {
		return Hinted("call it: write "+fn.Name()+"()", "want %s, got the function %s itself", name, fn.Name())
	}
	return fmt.Errorf("want %s, got %s", name, describe(v))
}

// describe is a value's type and, where short, the value.
func describe(v starlark.Value) string {
	switch v.(type) {
	case starlark.String, starlark.Int, starlark.Bool, starlark.Float:
		if s := v.String(); len(s) <= 40 {
			return fmt.Sprintf("%s %s", v.Type(), s)
		}
	}
	return v.Type()
}

// The simple types.
var (
	String = Type{Name: "a string", Convert: func(v starlark.Value) (any, error) {
		s, ok := starlark.AsString(v)
		if !ok {
			return nil, Want("a string", v)
		}
		if strings.IndexByte(s, 0) >= 0 {
			return nil, fmt.Errorf("the string %q holds a zero byte", s)
		}
		return s, nil
	}}
	Bool = Type{Name: "True or False", Convert: func(v starlark.Value) (any, error) {
		b, ok := v.(starlark.Bool)
		if !ok {
			return nil, Want("True or False", v)
		}
		return bool(b), nil
	}}
	Bytes = Type{Name: `a size such as "64MiB"`, Convert: func(v starlark.Value) (any, error) {
		s, ok := starlark.AsString(v)
		if !ok {
			return nil, &Error{Msg: Want(`a size such as "64MiB"`, v).Error(), Hint: `units are part of the value: write "64MiB"`}
		}
		n, err := value.ParseBytes(s)
		return int64(n), err
	}}
	Duration = Type{Name: `a duration such as "250ms"`, Convert: func(v starlark.Value) (any, error) {
		s, ok := starlark.AsString(v)
		if !ok {
			return nil, &Error{Msg: Want(`a duration such as "250ms"`, v).Error(), Hint: `units are part of the value: write "5s"`}
		}
		d, err := value.ParseDuration(s)
		if err == nil && d <= 0 {
			err = fmt.Errorf("duration %q is not positive", s)
		}
		return d, err
	}}
	Function = Type{Name: "a function", Convert: func(v starlark.Value) (any, error) {
		f, ok := v.(starlark.Callable)
		if !ok {
			return nil, Want("a function", v)
		}
		return f, nil
	}}
	IP     = Type{Name: `an address such as ip("10.0.0.2")`, Convert: func(v starlark.Value) (any, error) { return AsAddr(v) }}
	MAC    = Type{Name: `a mac("02:...")`, Convert: func(v starlark.Value) (any, error) { return AsMAC(v) }}
	Prefix = Type{Name: `an address with its prefix length such as "10.0.0.2/24"`, Convert: func(v starlark.Value) (any, error) { return AsPrefix(v) }}
)

// Int is an integer from lo to hi.
func Int(lo, hi int64) Type {
	name := fmt.Sprintf("an integer from %d to %d", lo, hi)
	if hi == math.MaxInt64 {
		name = fmt.Sprintf("an integer of at least %d", lo)
	}
	return Type{Name: name, Convert: func(v starlark.Value) (any, error) {
		i, ok := v.(starlark.Int)
		if !ok {
			return nil, Want(name, v)
		}
		n, ok := i.Int64()
		if !ok || n < lo || n > hi {
			return nil, Want(name, v)
		}
		return n, nil
	}}
}

// Number is an int or float above zero.
var Number = Type{Name: "a number above 0", Convert: func(v starlark.Value) (any, error) {
	f, ok := starlark.AsFloat(v)
	if !ok || !(f > 0) || math.IsInf(f, 0) {
		return nil, Want("a number above 0", v)
	}
	return f, nil
}}

// OneOf is one of a few strings.
func OneOf(words ...string) Type {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	name := strings.Join(quoted, " or ")
	return Type{Name: name, Convert: func(v starlark.Value) (any, error) {
		s, ok := starlark.AsString(v)
		if !ok {
			return nil, Want(name, v)
		}
		if !slices.Contains(words, s) {
			return nil, fmt.Errorf("want %s, got %q%s", name, s, DidYouMean(s, words))
		}
		return s, nil
	}}
}

// Of is a value made by another builtin.
func Of[T starlark.Value](name string) Type {
	return Type{Name: name, Convert: func(v starlark.Value) (any, error) {
		t, ok := v.(T)
		if !ok {
			return nil, Want(name, v)
		}
		return t, nil
	}}
}

// ListOf is a list or tuple of elem, converted to []T.
func ListOf[T any](elem Type) Type {
	name := "a list, each " + elem.Name
	return Type{Name: name, Convert: func(v starlark.Value) (any, error) {
		seq, ok := Sequence(v)
		if !ok {
			return nil, Want(name, v)
		}
		return convertAll[T](elem, seq)
	}}
}

// OneOrMore is elem, or a list or tuple of elem; converted to []T.
func OneOrMore[T any](elem Type) Type {
	return Type{Name: elem.Name + ", or a list of such", Convert: func(v starlark.Value) (any, error) {
		if seq, ok := Sequence(v); ok {
			return convertAll[T](elem, seq)
		}
		conv, err := elem.Convert(v)
		if err != nil {
			return nil, err
		}
		return []T{conv.(T)}, nil
	}}
}

func convertAll[T any](elem Type, seq []starlark.Value) ([]T, error) {
	out := make([]T, len(seq))
	for i, v := range seq {
		conv, err := elem.Convert(v)
		if err != nil {
			return nil, &Error{Msg: fmt.Sprintf("element %d: %v", i, err), Hint: HintOf(err)}
		}
		out[i] = conv.(T)
	}
	return out, nil
}

// Sequence is the elements of a list or tuple.
func Sequence(v starlark.Value) ([]starlark.Value, bool) {
	switch v := v.(type) {
	case *starlark.List:
		return slices.Collect(v.Elements()), true
	case starlark.Tuple:
		return v, true
	}
	return nil, false
}

// A Pair is one entry of a dictionary argument, in the order written.
type Pair[T any] struct {
	Key string
	Val T
}

// DictOf is a dictionary from strings to elem, converted to []Pair[T].
func DictOf[T any](elem Type) Type {
	name := "a dict from string to " + strings.TrimPrefix(elem.Name, "a ")
	return Type{Name: name, Convert: func(v starlark.Value) (any, error) {
		d, ok := v.(*starlark.Dict)
		if !ok {
			return nil, Want(name, v)
		}
		var out []Pair[T]
		for _, item := range d.Items() {
			k, ok := starlark.AsString(item[0])
			if !ok || strings.IndexByte(k, 0) >= 0 {
				return nil, fmt.Errorf("key: %w", Want("a string", item[0]))
			}
			conv, err := elem.Convert(item[1])
			if err != nil {
				return nil, &Error{Msg: fmt.Sprintf("[%q]: %v", k, err), Hint: HintOf(err)}
			}
			out = append(out, Pair[T]{k, conv.(T)})
		}
		return out, nil
	}}
}

// AsAddr converts an ip or a string.
func AsAddr(v starlark.Value) (netip.Addr, error) {
	switch v := v.(type) {
	case value.IP:
		return v.Addr, nil
	case starlark.String:
		a, err := netip.ParseAddr(string(v))
		if err != nil || a.Zone() != "" {
			return a, fmt.Errorf("%q is not an IP address", string(v))
		}
		return a, nil
	}
	return netip.Addr{}, Want(`an address such as ip("10.0.0.2")`, v)
}

// AsMAC converts a mac or a string.
func AsMAC(v starlark.Value) (frame.MAC, error) {
	switch v := v.(type) {
	case value.MAC:
		return v.MAC, nil
	case starlark.String:
		m, err := frame.ParseMAC(string(v))
		if err != nil {
			return m, fmt.Errorf("%q is not a MAC address", string(v))
		}
		return m, nil
	}
	return frame.MAC{}, Want(`a MAC address such as mac("02:00:00:00:00:01")`, v)
}

// AsPrefix converts "10.0.0.2/24": an address of a card and the length of its
// subnet's prefix. A net() will not do: it has lost the address.
func AsPrefix(v starlark.Value) (netip.Prefix, error) {
	switch v := v.(type) {
	case starlark.String:
		p, err := netip.ParsePrefix(string(v))
		if err == nil {
			return p, nil
		}
		if a, aerr := netip.ParseAddr(string(v)); aerr == nil && a.Zone() == "" {
			return p, Hinted(fmt.Sprintf("write %q for a subnet of 256 addresses", string(v)+"/24"), "%q has no prefix length", string(v))
		}
		return p, fmt.Errorf("%q is not an address with its prefix length", string(v))
	case value.IP:
		return netip.Prefix{}, Hinted(fmt.Sprintf("write %q", v.Addr.String()+"/24"), "%s has no prefix length", v.Addr)
	case value.Net:
		return netip.Prefix{}, Hinted(`write the card's own address, as in "10.0.0.2/24"`, "got a net, not an address")
	}
	return netip.Prefix{}, Want(`an address with its prefix length such as "10.0.0.2/24"`, v)
}
