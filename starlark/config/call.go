package config

import (
	"go.starlark.net/starlark"

	"sekimori/starlark/args"
)

// A call is one call of a builtin of this package.
type call struct{ *args.Call }

// with makes f the work of a builtin.
func with(f func(call) (starlark.Value, error)) func(*args.Call) (starlark.Value, error) {
	return func(c *args.Call) (starlark.Value, error) { return f(call{c}) }
}
