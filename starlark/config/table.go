package config

import (
	"slices"
	"sync"

	"go.starlark.net/starlark"

	"sekimori/starlark/args"
)

// Builtins is the table of the builtins of this package, sorted by name.
func Builtins() []*args.Builtin { return slices.Clone(table()) }

var table = sync.OnceValue(func() []*args.Builtin {
	all := slices.Concat(containerBuiltins(), nicBuiltins(), mountBuiltins(), resourceBuiltins(),
		readyBuiltins(), callbackBuiltins(), paramBuiltins())
	slices.SortFunc(all, func(a, b *args.Builtin) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
})

// Predeclared are the names the package adds to a file: the builtins of the
// table and the constant DEFAULT_CAPABILITIES.
func Predeclared() starlark.StringDict {
	names := starlark.StringDict{"DEFAULT_CAPABILITIES": defaultCapabilityList()}
	for _, b := range table() {
		names[b.Name] = b.Value()
	}
	return names
}
