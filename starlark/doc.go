// Package starlark loads .star files: it evaluates one, with all that it
// loads, and returns the [Pod] that it describes.
//
//	pod, err := starlark.Load(ctx, "web.star", starlark.Options{Params: params})
//
// Evaluation is hermetic. A file sees no clock, no environment, no network and
// no file besides the modules it loads from inside the module root, so that the
// same files and parameters make the same [Pod.Plan], byte for byte. Nothing
// runs while a file is evaluated. Steps and memory are bounded, and the context
// ends it.
//
// Every policy is compiled for the card it is attached to, so a pod that loads
// has nothing left that could be wrong in its policies. Whatever is wrong comes
// back as one or several joined [*Error], each with its position and, where
// there is one, a hint.
//
// The builtins live in starlark/config (containers), starlark/value (addresses)
// and starlark/policy (predicates and their compiler); the standard library,
// load("@seki//policy.star", ...), in starlark/std; the runner of *_test.star
// files, which uses [Session], in starlark/policytest.
package starlark
