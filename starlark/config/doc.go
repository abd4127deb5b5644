// Package config holds the builtins of a .star file that describe containers:
// container(), nic(), resources(), mount(), uplink() and their kin. Each turns
// frozen Starlark values into a [bundle.Spec]; nothing runs.
//
// One table, [Builtins], says what every builtin is called, which arguments it
// takes, of what type, with what default and why. Binding arguments, the texts
// of errors ("did you mean") and the reference are all made from it, so they
// cannot drift apart.
//
// A builtin finds the pod it adds to through its thread: [Attach] ties a
// [Collector] to one. Without a collector (inside a callback, when the pod
// already runs) container() and uplink() are errors.
//
// The package also holds what callbacks see: [Host] is implemented by whoever
// runs the containers, and [Callback.Call] shows it to the Starlark function
// as its ctx argument.
package config
