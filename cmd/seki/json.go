package main

import (
	"encoding/json"

	"github.com/spf13/pflag"
)

// printJSON prints v for a program to read: indented, as people look too.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printJSONLine prints one of several values, each on a line.
func (a *app) printJSONLine(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// jsonFlag adds --json, which sets *format as --format json does.
func jsonFlag(f *pflag.FlagSet, format *string) {
	f.BoolFunc("json", "the same as --format json", func(string) error {
		*format = "json"
		return nil
	})
}
