// Package args binds the arguments of builtins. A builtin is one [Builtin] in
// a table: name, documentation, arguments with their types and defaults.
// Binding, the texts of errors ("did you mean") and the reference are all made
// from it, so they cannot drift apart.
//
//	var dir = &args.Builtin{
//		Name:       "dir",
//		Params:     []args.Param{{Name: "path", Type: args.String, Required: true}},
//		Positional: 1,
//		Call: func(c *args.Call) (starlark.Value, error) {
//			return open(args.Get[string](c, "path"))
//		},
//	}
package args
