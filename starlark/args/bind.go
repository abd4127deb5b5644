package args

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/starlark/value"
)

// A Call is one call of a builtin with its arguments bound and converted.
type Call struct {
	Builtin *Builtin
	Thread  *starlark.Thread
	// Pos is where the file calls the builtin.
	Pos syntax.Position
	// Vals holds the converted value of each argument given. None counts as
	// not given, so that a wrapper function can pass its own defaults on.
	Vals map[string]any
}

// Has reports whether the argument was given.
func (c *Call) Has(name string) bool {
	_, ok := c.Vals[name]
	return ok
}

// Get is the converted value of an argument, the zero value if not given.
func Get[T any](c *Call, name string) T {
	v, _ := c.Vals[name].(T)
	return v
}

// Or is the converted value of an argument, or otherwise.
func Or[T any](c *Call, name string, otherwise T) T {
	if v, ok := c.Vals[name].(T); ok {
		return v
	}
	return otherwise
}

// Errorf is an error about one argument of the call.
func (c *Call) Errorf(arg, hint, format string, args ...any) error {
	return &Error{Arg: arg, Msg: c.Builtin.Name + ": " + fmt.Sprintf(format, args...), Hint: hint}
}

// bind matches arguments with the table and converts each to its type.
func (b *Builtin) bind(args starlark.Tuple, kwargs []starlark.Tuple) (map[string]any, error) {
	if len(args) > b.Positional {
		return nil, b.tooMany(len(args))
	}
	vals := make(map[string]any, len(args)+len(kwargs))
	given := make(map[string]bool, len(args)+len(kwargs))
	for i, v := range args {
		if err := b.put(vals, given, &b.Params[i], v); err != nil {
			return nil, err
		}
	}
	for _, kv := range kwargs {
		name := string(kv[0].(starlark.String))
		p := b.param(name)
		if p == nil {
			return nil, b.unknown(name)
		}
		if err := b.put(vals, given, p, kv[1]); err != nil {
			return nil, err
		}
	}
	for i := range b.Params {
		if p := &b.Params[i]; p.Required && vals[p.Name] == nil {
			return nil, Hinted(fmt.Sprintf("%s: %s", p.Name, p.Doc), "%s: missing argument %q", b.Name, p.Name)
		}
	}
	return vals, nil
}

// put converts v and stores it as p's value.
func (b *Builtin) put(vals map[string]any, given map[string]bool, p *Param, v starlark.Value) error {
	if given[p.Name] {
		return &Error{Arg: p.Name, Msg: fmt.Sprintf("%s: argument %q given twice", b.Name, p.Name)}
	}
	given[p.Name] = true
	if v == starlark.None && !p.Type.TakesNone {
		return nil
	}
	conv, err := p.Type.Convert(v)
	if err != nil {
		return &Error{Arg: p.Name, Msg: fmt.Sprintf("%s: %s: %v", b.Name, p.Name, err), Hint: HintOf(err)}
	}
	vals[p.Name] = conv
	return nil
}

func (b *Builtin) param(name string) *Param {
	for i := range b.Params {
		if b.Params[i].Name == name {
			return &b.Params[i]
		}
	}
	return nil
}

// unknown is the error for an argument that is not in the table.
func (b *Builtin) unknown(name string) error {
	known := make([]string, len(b.Params))
	for i, p := range b.Params {
		known[i] = p.Name
	}
	hint := fmt.Sprintf("%s takes %s", b.Name, strings.Join(known, ", "))
	if len(known) == 0 {
		hint = b.Name + " takes no arguments"
	}
	return &Error{
		Arg:  name,
		Msg:  fmt.Sprintf("%s: unknown argument %q%s", b.Name, name, DidYouMean(name, known)),
		Hint: hint,
	}
}

func (b *Builtin) tooMany(n int) error {
	hint := fmt.Sprintf("write %s(name = value, ...)", b.Name)
	if b.Positional > 0 {
		hint = fmt.Sprintf("only %s may be given without name", paramNames(b.Params[:b.Positional]))
	}
	return Hinted(hint, "%s: %d arguments without name, want at most %d", b.Name, n, b.Positional)
}

func paramNames(ps []Param) string {
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

// DidYouMean is ` (did you mean "x"?)`, or empty where nothing is near.
func DidYouMean(name string, known []string) string {
	if s := value.Suggest(name, known); s != "" {
		return fmt.Sprintf(" (did you mean %q?)", s)
	}
	return ""
}
