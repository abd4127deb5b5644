package config

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/args"
	"sekimori/starlark/value"
)

// A PodParam is what may vary from run to run: a declared name with a
// type, a default and a value.
type PodParam struct {
	Name string `json:"name"`
	// Type is the type of the default: string, int, float, bool, ip, net, mac
	// or list (of strings).
	Type    string `json:"type"`
	Default string `json:"default"`
	Value   string `json:"value"`
	Doc     string `json:"doc,omitempty"`
	// Pos is the param() call.
	Pos syntax.Position `json:"-"`
}

func paramBuiltins() []*args.Builtin {
	return []*args.Builtin{{
		Name: "param",
		Doc: `A declared parameter: the one way for a run to differ from another. Returns the
default, or what --set name=value gives, which is read as the type of the default.`,
		Params: []args.Param{
			{Name: "name", Type: args.String, Required: true, Doc: "as in --set name=value: letters, digits, _ and -"},
			{Name: "default", Type: typeParam, Required: true, Doc: "value without --set; its type is the parameter's: string, int, float, bool, ip, net, mac, or a list of strings (given as a,b,c)"},
			{Name: "doc", Type: args.String, Default: `""`, Doc: "what it means, for seki plan and the reference"},
		},
		Positional: 3,
		Result:     "the type of the default",
		Call:       with(newParam),
	}}
}

// typeParam is a value that text can stand for.
var typeParam = args.Type{Name: "a string, int, float, bool, ip, net, mac or list of strings", Convert: func(v starlark.Value) (any, error) {
	switch v := v.(type) {
	case starlark.String, starlark.Int, starlark.Float, starlark.Bool, value.IP, value.Net, value.MAC:
		return v, nil
	case *starlark.List:
		if _, err := args.ListOf[string](args.String).Convert(v); err == nil {
			return starlark.Value(v), nil
		}
	}
	return nil, args.Want("a string, int, float, bool, ip, net, mac or list of strings", v)
}}

func newParam(c call) (starlark.Value, error) {
	col, err := c.collector()
	if err != nil {
		return nil, err
	}
	name := args.Get[string](c.Call, "name")
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return nil, c.Errorf("name", "letters, digits, _ and -", "name: %q is no name of a parameter", name)
	}
	for _, p := range col.Params {
		if p.Name == name {
			return nil, c.Errorf("name", "declare it once and load() it", "%q is declared at %s already", name, p.Pos)
		}
	}
	otherwise := c.Vals["default"].(starlark.Value)
	p := PodParam{Name: name, Type: otherwise.Type(), Default: paramText(otherwise), Doc: args.Get[string](c.Call, "doc"), Pos: c.Pos}
	p.Value = p.Default
	result := otherwise
	if text, ok := col.Set[name]; ok {
		if result, err = parseParam(otherwise, text); err != nil {
			return nil, c.Errorf("", "", "--set %s=%s: %v", name, text, err)
		}
		p.Value = paramText(result)
	}
	col.Params = append(col.Params, p)
	return result, nil
}

// parseParam reads text as the type of otherwise.
func parseParam(otherwise starlark.Value, text string) (starlark.Value, error) {
	switch otherwise.(type) {
	case starlark.String:
		if strings.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("holds a zero byte")
		}
		return starlark.String(text), nil
	case starlark.Int:
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil {
			return nil, fmt.Errorf("want an integer")
		}
		return starlark.MakeInt64(n), nil
	case starlark.Float:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("want a number")
		}
		return starlark.Float(f), nil
	case starlark.Bool:
		switch strings.ToLower(text) {
		case "true", "yes", "on", "1":
			return starlark.True, nil
		case "false", "no", "off", "0":
			return starlark.False, nil
		}
		return nil, fmt.Errorf("want true or false")
	case value.IP:
		a, err := args.AsAddr(starlark.String(text))
		return value.IP{Addr: a}, err
	case value.Net:
		n, err := netip.ParsePrefix(text)
		if err != nil || n != n.Masked() {
			return nil, fmt.Errorf("want a network such as 10.0.0.0/24")
		}
		return value.Net{Prefix: n}, nil
	case value.MAC:
		m, err := frame.ParseMAC(text)
		return value.MAC{MAC: m}, err
	}
	l := starlark.NewList(nil)
	for _, s := range strings.Split(text, ",") {
		if s = strings.TrimSpace(s); s != "" {
			if err := l.Append(starlark.String(s)); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

// paramText is a parameter's value as --set would give it.
func paramText(v starlark.Value) string {
	if s, ok := starlark.AsString(v); ok {
		return s
	}
	if seq, ok := args.Sequence(v); ok {
		var out []string
		for _, e := range seq {
			s, _ := starlark.AsString(e)
			out = append(out, s)
		}
		return strings.Join(out, ",")
	}
	return v.String()
}

// UnknownParams finds values of --set that no param() of the pod declares.
func (col *Collector) UnknownParams() error {
	var known []string
	for _, p := range col.Params {
		known = append(known, p.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(col.Set)) {
		if slices.Contains(known, name) {
			continue
		}
		hint := "the file declares no param()"
		if len(known) > 0 {
			hint = "declared are " + strings.Join(known, ", ")
		}
		return args.Hinted(hint, "--set %s: unknown parameter%s", name, args.DidYouMean(name, known))
	}
	return nil
}
