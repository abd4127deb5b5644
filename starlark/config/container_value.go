package config

import (
	"fmt"

	"go.starlark.net/starlark"

	"sekimori/starlark/args"
	"sekimori/starlark/policy"
)

// A containerValue is what container() and defaults() return: the arguments,
// merged with those of the base, and what they make.
type containerValue struct {
	vals map[string]any
	c    *Container // nil for defaults()
}

// typeBase is a value of container() or defaults().
var typeBase = args.Of[*containerValue]("a container() or defaults()")

func (v *containerValue) Type() string {
	if v.c == nil {
		return "defaults"
	}
	return "container"
}

func (v *containerValue) String() string {
	if v.c == nil {
		return "defaults(...)"
	}
	return fmt.Sprintf("container(%q)", v.c.Spec.Name)
}

func (v *containerValue) Freeze()              {}
func (v *containerValue) Truth() starlark.Bool { return true }
func (v *containerValue) Hash() (uint32, error) {
	return 0, fmt.Errorf("unhashable type: %s", v.Type())
}

// Attr gives name, nic and policy.
func (v *containerValue) Attr(name string) (starlark.Value, error) {
	if v.c == nil {
		return nil, nil
	}
	switch name {
	case "name":
		return starlark.String(v.c.Spec.Name), nil
	case "nic":
		if v.c.nic == nil {
			return starlark.None, nil
		}
		return v.c.nic, nil
	case "policy":
		if v.c.Policy == nil {
			return starlark.None, nil
		}
		return v.c.Policy, nil
	}
	return nil, nil
}

func (v *containerValue) AttrNames() []string { return []string{"name", "nic", "policy"} }

// AsContainer is the container behind a Starlark value, if it is one.
func AsContainer(v starlark.Value) (*Container, bool) {
	cv, ok := v.(*containerValue)
	if !ok || cv.c == nil {
		return nil, false
	}
	return cv.c, true
}

// Value is the container as Starlark value.
func (c *Container) Value() starlark.Value { return &containerValue{c: c, vals: c.vals} }

// Identity is what the guards hold the container to: the card's own
// addresses. It is zero without a card.
func (c *Container) Identity() policy.Identity {
	if c.nic == nil {
		return policy.Identity{}
	}
	return c.nic.identity()
}
