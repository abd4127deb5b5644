package args

import "go.starlark.net/starlark"

// A Builtin is one entry of the table: a function of the language, its
// documentation and its argument list.
type Builtin struct {
	Name string
	// Doc is a paragraph; its first sentence stands alone.
	Doc string
	// Params are the arguments in the order of the documentation.
	Params []Param
	// Positional is how many of the first Params may be given without name.
	Positional int
	// Result names the type of the value returned.
	Result string

	// Call does the work; what it returns is frozen.
	Call func(*Call) (starlark.Value, error)
}

// A Param is one argument of a builtin.
type Param struct {
	Name     string
	Type     Type
	Required bool
	// Default is the value without the argument, as documentation shows it.
	Default string
	Doc     string
}

// Value is the builtin as Starlark calls it.
func (b *Builtin) Value() *starlark.Builtin {
	return starlark.NewBuiltin(b.Name, func(th *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		vals, err := b.bind(args, kwargs)
		if err != nil {
			return nil, err
		}
		v, err := b.Call(&Call{Builtin: b, Thread: th, Pos: th.CallFrame(1).Pos, Vals: vals})
		if err != nil {
			return nil, err
		}
		v.Freeze()
		return v, nil
	})
}
