package starlark

import (
	"errors"
	"fmt"
	"math/bits"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// The interpreter bounds steps, not memory, and one step can take a lot of it:
// [0] * 1000000000 is sixteen gigabytes, and no error of Go's runtime can be
// caught after that. So the operations whose result can be much larger than
// their operands are measured before they are made. They are found in the
// syntax tree: a*b becomes a call of the builtin "*", a name that no file can
// write. What grows by small bites is left to the session's memory watch.

// Bounds on what one operation may make.
const (
	maxString   = 4 << 20 // bytes of a string
	maxElements = 1 << 20 // elements of a list, tuple or range
	maxIntBits  = 1 << 14 // bits of an integer
	maxDepth    = 1000    // nesting of a value that is printed
)

// errBudget is in the chain of each error of an evaluation that took too much.
var errBudget = errors.New("evaluation budget")

func tooLarge(format string, args ...any) error {
	return fmt.Errorf("%s (%w)", fmt.Sprintf(format, args...), errBudget)
}

// budgetBuiltins are the measured operations, and replacements of those
// functions of the language that need one.
func budgetBuiltins() starlark.StringDict {
	names := starlark.StringDict{
		"+":  starlark.NewBuiltin("+", measuredAdd),
		"+=": starlark.NewBuiltin("+=", measuredAppend),
		"*":  starlark.NewBuiltin("*", measuredMul),
		"%":  starlark.NewBuiltin("%", measuredMod),
		".":  starlark.NewBuiltin(".", measuredAttr),
		"*=": starlark.NewBuiltin("*=", measuredFactor),
	}
	for name, measure := range map[string]func(starlark.Tuple) error{
		"range": measureRange, "int": measureInt, "getattr": measureNothing,
		"str": measureText, "repr": measureText, "print": measureText, "fail": measureText,
	} {
		names[name] = measured(name, measure)
	}
	return names
}

// measured is a function of the language behind a check of its arguments.
func measured(name string, measure func(starlark.Tuple) error) *starlark.Builtin {
	fn := starlark.Universe[name].(*starlark.Builtin)
	return starlark.NewBuiltin(name, func(th *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := measure(args); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if name == "getattr" && len(args) >= 2 {
			if attr, ok := starlark.AsString(args[1]); ok && measuredMethods[attr] {
				if m, err := stringMethod(args[0], attr); m != nil || err != nil {
					return m, err
				}
			}
		}
		v, err := fn.CallInternal(th, args, kwargs)
		if err != nil && name != "fail" {
			return nil, err
		}
		return v, err
	})
}

func measureNothing(starlark.Tuple) error { return nil }

// measureRange bounds the one lazy sequence, and with it every builtin that
// consumes a sequence in a single step.
func measureRange(args starlark.Tuple) error {
	nums := make([]int64, len(args))
	for i, a := range args {
		n, ok := a.(starlark.Int)
		if !ok {
			return nil // range's own error is better
		}
		if nums[i], ok = n.Int64(); !ok {
			return tooLarge("more than %d elements", maxElements)
		}
	}
	start, stop, step := int64(0), int64(0), int64(1)
	switch len(nums) {
	case 1:
		stop = nums[0]
	case 2:
		start, stop = nums[0], nums[1]
	case 3:
		start, stop, step = nums[0], nums[1], nums[2]
	}
	if step < 0 {
		start, stop, step = stop, start, -step
	}
	// A zero step is range's to refuse; -MinInt64 stays negative.
	if step <= 0 || stop <= start {
		return nil
	}
	if uint64(stop-start)/uint64(step) > maxElements {
		return tooLarge("more than %d elements", maxElements)
	}
	return nil
}

func measureInt(args starlark.Tuple) error {
	if len(args) > 0 {
		if s, ok := starlark.AsString(args[0]); ok && len(s) > maxIntBits/3 {
			return tooLarge("%d digits", len(s))
		}
	}
	return nil
}

// measureText bounds what printing the arguments makes: a list that holds the
// same list twice, twenty levels deep, has a million elements on paper.
func measureText(args starlark.Tuple) error {
	left := maxString
	for _, a := range args {
		if err := textSize(a, 0, &left); err != nil {
			return err
		}
	}
	return nil
}

// textSize subtracts the size of v in print from left, and fails below zero.
func textSize(v starlark.Value, depth int, left *int) error {
	*left -= 4
	switch v := v.(type) {
	case starlark.String:
		*left -= len(v)
	case starlark.Bytes:
		*left -= len(v)
	case starlark.Int:
		if b := v.BigInt(); b != nil {
			*left -= b.BitLen() / 3
		}
	case *starlark.Dict:
		for k, e := range v.Entries() {
			if err := textSizes(depth, left, k, e); err != nil {
				return err
			}
		}
	case starlark.Iterable:
		if _, isRange := v.(starlark.Sequence); isRange && v.Type() == "range" {
			break
		}
		for e := range starlark.Elements(v) {
			if err := textSizes(depth, left, e); err != nil {
				return err
			}
		}
	}
	if *left < 0 {
		return tooLarge("text of more than %d bytes", maxString)
	}
	return nil
}

func textSizes(depth int, left *int, vs ...starlark.Value) error {
	if depth >= maxDepth {
		return tooLarge("value nested more than %d deep", maxDepth)
	}
	for _, v := range vs {
		if err := textSize(v, depth+1, left); err != nil {
			return err
		}
	}
	return nil
}

// measuredAdd is x + y. Doubling a string sixty times takes sixty steps.
func measuredAdd(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	if err := measureSum(args); err != nil {
		return nil, err
	}
	return starlark.Binary(syntax.PLUS, args[0], args[1])
}

// measuredAppend is the y of x += y; x comes first where it is a plain name.
func measuredAppend(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	return args[len(args)-1], measureSum(args)
}

func measureSum(args starlark.Tuple) error {
	size, most := 0, maxElements
	for _, a := range args {
		switch a := a.(type) {
		case starlark.String:
			size, most = size+len(a), maxString
		case starlark.Bytes:
			size, most = size+len(a), maxString
		default:
			size += max(0, starlark.Len(a))
		}
	}
	if size > most {
		return tooLarge("sum of %d elements is larger than %d", size, most)
	}
	return nil
}

// measuredMul is x * y.
func measuredMul(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	x, y := args[0], args[1]
	if err := measureRepeat(x, y); err != nil {
		return nil, err
	}
	if err := measureRepeat(y, x); err != nil {
		return nil, err
	}
	return starlark.Binary(syntax.STAR, x, y)
}

func measureRepeat(x, y starlark.Value) error {
	n, ok := y.(starlark.Int)
	if !ok {
		return nil
	}
	if m, ok := x.(starlark.Int); ok {
		if bitLen(m)+bitLen(n) > maxIntBits {
			return tooLarge("integer of more than %d bits", maxIntBits)
		}
		return nil
	}
	size, most := starlark.Len(x), maxElements
	switch s := x.(type) {
	case starlark.String:
		size, most = len(s), maxString
	case starlark.Bytes:
		size, most = len(s), maxString
	}
	times, ok := n.Int64()
	if size <= 0 || n.Sign() <= 0 {
		return nil
	}
	hi, lo := bits.Mul64(uint64(size), uint64(times))
	if !ok || hi != 0 || lo > uint64(most) {
		return tooLarge("%s repeated %s times is larger than %d", x.Type(), n, most)
	}
	return nil
}

func bitLen(i starlark.Int) int {
	if _, small := i.Int64(); small {
		return 64
	}
	return i.BigInt().BitLen()
}

// measuredFactor is the y of `x[i] *= y`, whose x[i] cannot be evaluated twice.
func measuredFactor(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	if n, ok := args[0].(starlark.Int); ok {
		if small, ok := n.Int64(); !ok || small > 1<<16 {
			return nil, tooLarge("the factor %s of an element: write x[i] = x[i] * n", n)
		}
	}
	return args[0], nil
}

// measuredMod is x % y: formatting where x is a string.
func measuredMod(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	if _, ok := args[0].(starlark.String); ok {
		if err := measureText(args); err != nil {
			return nil, err
		}
	}
	return starlark.Binary(syntax.PERCENT, args[0], args[1])
}

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
