package starlark

import (
	"go.starlark.net/starlark"
)

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
