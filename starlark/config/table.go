package config

import (
	"slices"
	"sync"

	"go.starlark.net/starlark"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark/args"
)

// table is the builtins of this package, sorted by name.
var table = sync.OnceValue(func() []*args.Builtin {
	all := slices.Concat(containerBuiltins(), nicBuiltins(), mountBuiltins(), resourceBuiltins(),
		readyBuiltins(), callbackBuiltins(), paramBuiltins(), machineBuiltins())
	slices.SortFunc(all, func(a, b *args.Builtin) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
})

// Predeclared are the names the package adds to a file: the builtins of the
// table, and the defaults of lists that a file wants to add to:
// DEFAULT_CAPABILITIES, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS.
func Predeclared() starlark.StringDict {
	names := starlark.StringDict{
		"DEFAULT_CAPABILITIES":   stringList(shortCapabilities()),
		"DEFAULT_MASKED_PATHS":   stringList(bundle.DefaultMaskedPaths()),
		"DEFAULT_READONLY_PATHS": stringList(bundle.DefaultReadonlyPaths()),
	}
	for _, b := range table() {
		names[b.Name] = b.Value()
	}
	return names
}

func stringList(words []string) starlark.Value {
	elems := make([]starlark.Value, len(words))
	for i, w := range words {
		elems[i] = starlark.String(w)
	}
	l := starlark.NewList(elems)
	l.Freeze()
	return l
}

// Builtins is the table itself, for the reference.
func Builtins() []*args.Builtin { return slices.Clone(table()) }
