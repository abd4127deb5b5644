package starlark

import (
	"fmt"

	"go.starlark.net/starlark"
)

// measuredMethods are the methods of strings whose result can be larger than
// the string.
var measuredMethods = map[string]bool{
	"join": true, "replace": true, "format": true, "split": true, "rsplit": true, "splitlines": true,
	"elems": true, "elem_ords": true, "codepoints": true, "codepoint_ords": true,
}

// measuredAttr is x.name for a name of measuredMethods.
func measuredAttr(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	name := string(args[1].(starlark.String))
	if m, err := stringMethod(args[0], name); m != nil || err != nil {
		return m, err
	}
	if x, ok := args[0].(starlark.HasAttrs); ok {
		if v, err := x.Attr(name); v != nil || err != nil {
			return v, err
		}
	}
	return nil, fmt.Errorf("%s has no .%s field or method", args[0].Type(), name)
}

// measuredGetattr is getattr(x, name, default), the other way to a method.
func measuredGetattr(th *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) >= 2 {
		if name, ok := starlark.AsString(args[1]); ok && measuredMethods[name] {
			if m, err := stringMethod(args[0], name); m != nil || err != nil {
				return m, err
			}
		}
	}
	return starlark.Universe["getattr"].(*starlark.Builtin).CallInternal(th, args, kwargs)
}

// stringMethod is a measured method of a string, nil for other values.
func stringMethod(x starlark.Value, name string) (starlark.Value, error) {
	switch x.(type) {
	case starlark.String, starlark.Bytes:
	default:
		return nil, nil
	}
	attr, err := x.(starlark.HasAttrs).Attr(name)
	method, ok := attr.(*starlark.Builtin)
	if err != nil || !ok {
		return nil, err
	}
	return starlark.NewBuiltin(name, func(th *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := measureMethod(x, args, kwargs); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return method.CallInternal(th, args, kwargs)
	}), nil
}

// measureMethod bounds the product of receiver and arguments: each byte of
// the one may bring all of the others, as in "xxx".replace("x", y).
func measureMethod(x starlark.Value, args starlark.Tuple, kwargs []starlark.Tuple) error {
	size := starlark.Len(x)
	if size > maxString {
		return tooLarge("string of %d bytes", size)
	}
	left := maxString
	for _, a := range args {
		if err := textSize(a, 0, &left); err != nil {
			return err
		}
	}
	for _, kv := range kwargs {
		if err := textSize(kv[1], 0, &left); err != nil {
			return err
		}
	}
	if used := maxString - left; len(args)+len(kwargs) > 0 && (size+1)*used > 16*maxString {
		return tooLarge("result that could exceed %d bytes", 16*maxString)
	}
	return nil
}
