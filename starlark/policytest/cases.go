package policytest

import (
	"fmt"
	"strings"
	"time"

	gostarlark "go.starlark.net/starlark"

	"sekimori/starlark/args"
)

// A testCase is one row of a table of cases.
type testCase struct {
	name   string
	args   gostarlark.Tuple
	kwargs []gostarlark.Tuple
}

// typeCases is a table of cases, converted to []testCase.
var typeCases = args.Type{Name: "a dict or a list of cases", Convert: func(v gostarlark.Value) (any, error) {
	var out []testCase
	if d, ok := v.(*gostarlark.Dict); ok {
		for _, item := range d.Items() {
			name, ok := gostarlark.AsString(item[0])
			if !ok {
				name = item[0].String()
			}
			out = append(out, newCase(name, item[1]))
		}
		return out, nil
	}
	seq, ok := args.Sequence(v)
	if !ok {
		return nil, args.Want("a dict or a list of cases", v)
	}
	for i, e := range seq {
		out = append(out, newCase(fmt.Sprint(i), e))
	}
	return out, nil
}}

// newCase reads how a case gives its arguments.
func newCase(name string, v gostarlark.Value) testCase {
	c := testCase{name: name}
	if d, ok := v.(*gostarlark.Dict); ok && namesOnly(d) {
		c.kwargs = d.Items()
	} else if seq, ok := args.Sequence(v); ok {
		c.args = seq
	} else {
		c.args = gostarlark.Tuple{v}
	}
	return c
}

// namesOnly reports whether every key of d may be the name of an argument.
func namesOnly(d *gostarlark.Dict) bool {
	for _, k := range d.Keys() {
		if _, ok := k.(gostarlark.String); !ok {
			return false
		}
	}
	return true
}

// sub is t.run().
func (t *test) sub(c *args.Call) (gostarlark.Value, error) {
	t.inside(c, testCase{name: args.Get[string](c, "name")})
	return gostarlark.None, nil
}

// cases is t.cases().
func (t *test) cases(c *args.Call) (gostarlark.Value, error) {
	for _, k := range args.Get[[]testCase](c, "table") {
		t.inside(c, k)
	}
	return gostarlark.None, nil
}

// inside runs a test inside t. What goes wrong there ends it alone, unless the
// budget of the whole test function is spent.
func (t *test) inside(c *args.Call, k testCase) {
	name := t.report.Name + "/" + strings.Map(oneWord, k.name)
	if !t.suite.opts.selects(name) {
		return
	}
	began := time.Now()
	u := newTest(t.suite, t.ctx, name, c.Pos.String())
	u.sender = t.sender
	print := c.Thread.Print
	c.Thread.Print = func(_ *gostarlark.Thread, msg string) { u.report.Output = append(u.report.Output, msg) }
	defer func() { c.Thread.Print = print }()
	tuple := append(gostarlark.Tuple{u}, k.args...)
	if _, err := gostarlark.Call(c.Thread, args.Get[gostarlark.Callable](c, "fn"), tuple, k.kwargs); err != nil {
		u.broken(err)
	}
	u.end(began)
	t.report.Inside = append(t.report.Inside, u.report)
}

// oneWord keeps the name of a test free of what reports and --run split by.
func oneWord(r rune) rune {
	if r <= ' ' || r == '/' {
		return '_'
	}
	return r
}
