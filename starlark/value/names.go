package value

import (
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"
)

// Names is a group of named constants, such as ETHERTYPE. Reading a name it
// does not have is an error that suggests the nearest.
type Names struct {
	name   string
	keys   []string // sorted
	values map[string]starlark.Value
}

var _ starlark.HasAttrs = (*Names)(nil)

// NewNames makes a group from names and numbers.
func NewNames(name string, numbers map[string]int) *Names {
	n := &Names{name: name, values: make(map[string]starlark.Value, len(numbers))}
	for k, v := range numbers {
		n.keys = append(n.keys, k)
		n.values[k] = starlark.MakeInt(v)
	}
	slices.Sort(n.keys)
	return n
}

// String is the name of the group.
func (n *Names) String() string { return n.name }

// Type is "names".
func (*Names) Type() string { return "names" }

// Freeze does nothing: the group never changes.
func (*Names) Freeze() {}

// Truth is True.
func (*Names) Truth() starlark.Bool { return true }

// Hash fails: a group is no key.
func (n *Names) Hash() (uint32, error) { return 0, fmt.Errorf("%s: unhashable", n.name) }

// Attr is the constant of that name.
func (n *Names) Attr(name string) (starlark.Value, error) {
	if v, ok := n.values[name]; ok {
		return v, nil
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("%s has no %s%s", n.name, name, knownNames(name, n.keys)))
}

// AttrNames lists the constants, sorted.
func (n *Names) AttrNames() []string { return n.keys }

// noAttr is the error of x.name where there is no such attribute.
func noAttr(x starlark.Value, name string, known []string) error {
	return starlark.NoSuchAttrError(fmt.Sprintf("%s has no attribute %s%s", x.Type(), name, knownNames(name, known)))
}

// knownNames ends an error about an unknown name.
func knownNames(name string, known []string) string {
	if s := Suggest(name, known); s != "" {
		return " (did you mean " + s + "?)"
	}
	return " (it has " + strings.Join(known, ", ") + ")"
}
