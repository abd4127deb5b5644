package value

import (
	"fmt"
	"net/netip"

	"sekimori/nicshadow/frame"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Compare is the comparison x op y with op one of == != < <= > >=. It is
// Starlark's, but where one side is an ip, net, mac or ports and the other of
// another type (None excepted) it is an error that says what to write instead
// of the silent False of Starlark. It looks into tuples and lists.
func Compare(op syntax.Token, x, y starlark.Value) (bool, error) {
	holds, err := starlark.Compare(op, x, y)
	if err != nil {
		if merr := mixed(x, y); merr != nil {
			return false, merr
		}
		return false, err
	}
	if holds == (op == syntax.NEQ) && (op == syntax.EQL || op == syntax.NEQ) {
		return holds, Mixed(x, y)
	}
	return holds, nil
}

// Mixed is the error of an equality between our types and others: nil where x
// and y may be compared. It looks into tuples and lists of one length.
func Mixed(x, y starlark.Value) error {
	if err := mixed(x, y); err != nil {
		return err
	}
	xs, ok1 := sequence(x)
	ys, ok2 := sequence(y)
	if !ok1 || !ok2 || xs.Len() != ys.Len() || x.Type() != y.Type() {
		return nil
	}
	for i := range xs.Len() {
		// Mutable lists may hold themselves; one level is what users write.
		if err := mixed(xs.Index(i), ys.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

// mixed is the error of x == y, or of x in y where y is no container of ours.
func mixed(x, y starlark.Value) error {
	if x == starlark.None || y == starlark.None || ours(x) == ours(y) && (!ours(x) || x.Type() == y.Type()) {
		return nil
	}
	if s, ok := x.(starlark.String); ok {
		return fmt.Errorf("comparing %s with a string: write %s", y.Type(), rewrite(y, s))
	}
	if s, ok := y.(starlark.String); ok {
		return fmt.Errorf("comparing %s with a string: write %s", x.Type(), rewrite(x, s))
	}
	switch y.(type) {
	case Net, Ports:
		return fmt.Errorf("comparing %s with %s: write `in` to ask whether it is inside", x.Type(), y.Type())
	}
	return fmt.Errorf("comparing %s with %s: never equal", x.Type(), y.Type())
}

// ours reports whether v is of one of this package's address types.
func ours(v starlark.Value) bool {
	switch v.(type) {
	case IP, Net, MAC, Ports:
		return true
	}
	return false
}

// rewrite is what to write in the place of the string s compared with v.
func rewrite(v starlark.Value, s starlark.String) string {
	t := v.Type()
	if t == "ip" {
		if _, err := netip.ParsePrefix(string(s)); err == nil {
			return fmt.Sprintf("`in net(%s)`", s)
		}
	}
	return fmt.Sprintf("%s(%s)", t, s)
}

// Contains is `x in y`. It is Starlark's, with two additions: an ip (or port)
// is in a list, tuple, set or dict if it is in a net (or ports) that the
// collection holds; and where the collection holds strings that can only be
// meant as addresses, or x is such a string and the collection holds
// addresses, it is an error that says what to write.
func Contains(x, y starlark.Value) (bool, error) {
	switch y := y.(type) {
	case Net:
		return y.Has(x)
	case Ports:
		return y.Has(x)
	}
	r, err := starlark.Binary(syntax.IN, x, y)
	if err != nil || bool(r.Truth()) {
		return err == nil, err
	}
	if !searchable(x) {
		return false, nil
	}
	it, ok := elements(y)
	if !ok {
		return false, nil
	}
	defer it.Done()
	var e starlark.Value
	for it.Next(&e) {
		if found, err := insideElement(x, e); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// insideElement reports whether x is in e, one element of a collection that
// is searched for x.
func insideElement(x, e starlark.Value) (bool, error) {
	switch e := e.(type) {
	case Net:
		if _, isIP := x.(IP); isIP {
			return e.Has(x)
		}
	case Ports:
		if _, isInt := x.(starlark.Int); isInt {
			return e.Has(x)
		}
	}
	if _, isInt := x.(starlark.Int); isInt {
		return false, nil
	}
	return false, mixed(x, e)
}

// searchable reports whether a miss of x must be looked at again: x is of
// our types, an int that a ports may hold, or a string that reads as an
// address.
func searchable(x starlark.Value) bool {
	switch x := x.(type) {
	case IP, Net, MAC, starlark.Int:
		return true
	case starlark.String:
		s := string(x)
		if len(s) < 2 || len(s) > 49 {
			return false
		}
		if _, err := netip.ParseAddr(s); err == nil {
			return true
		}
		if _, err := netip.ParsePrefix(s); err == nil {
			return true
		}
		_, err := frame.ParseMAC(s)
		return err == nil
	}
	return false
}

// elements iterates over what `in` searches.
func elements(y starlark.Value) (starlark.Iterator, bool) {
	switch y.(type) {
	case *starlark.List, starlark.Tuple, *starlark.Set, *starlark.Dict:
		return starlark.Iterate(y), true
	}
	return nil, false
}

func sequence(v starlark.Value) (starlark.Indexable, bool) {
	switch v := v.(type) {
	case starlark.Tuple:
		return v, true
	case *starlark.List:
		return v, true
	}
	return nil, false
}
