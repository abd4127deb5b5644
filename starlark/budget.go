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
		"+":       starlark.NewBuiltin("+", measuredAdd),
		"+=":      starlark.NewBuiltin("+=", measuredAppend),
		"*":       starlark.NewBuiltin("*", measuredMul),
		"%":       starlark.NewBuiltin("%", measuredMod),
		"getattr": starlark.NewBuiltin("getattr", measuredGetattr),
		".":       starlark.NewBuiltin(".", measuredAttr),
		"*=":      starlark.NewBuiltin("*=", measuredFactor),
	}
	for name, measure := range map[string]func(starlark.Tuple) error{
		"range": measureRange, "int": measureInt,
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
		return fn.CallInternal(th, args, kwargs)
	})
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
