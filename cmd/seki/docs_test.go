package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sekimori/starlark/config"
	"sekimori/starlark/frames"
	"sekimori/starlark/policy"
	"sekimori/starlark/reference"
	"sekimori/starlark/value"
)

// TestDocHasEveryName holds the reference to what files can use: a builtin that
// nobody can look up does not exist.
func TestDocHasEveryName(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range reference.Language() {
		for _, e := range s.Entries {
			documented[e.Name] = true
			group, _, _ := strings.Cut(e.Name, ".")
			documented[group] = true
			if e.Doc == "" {
				t.Errorf("%s: no documentation", e.Name)
			}
			for _, p := range e.Params {
				if p.Doc == "" {
					t.Errorf("%s: argument %s: no documentation", e.Name, p.Name)
				}
			}
		}
	}
	word := regexp.MustCompile(`^[A-Za-z_]\w*$`)
	check := func(where, name string) {
		if word.MatchString(name) && name != "in" && !documented[name] {
			t.Errorf("%s (of %s): not in the reference: document it in starlark/reference or in its table", name, where)
		}
	}
	for name := range value.Builtins() {
		check("starlark/value", name)
	}
	for name := range config.Predeclared() {
		check("starlark/config", name)
	}
	for name := range frames.Predeclared() {
		check("starlark/frames", name)
	}
	for name := range policy.NewSources(nil).Predeclared() {
		check("starlark/policy", name)
	}
	for _, p := range policy.Predicates() {
		if p.Judges == "" {
			t.Errorf("%s: what it judges is not documented: starlark/policy/reference.go", p.Name)
		}
	}
	names, drops := policy.Guards()
	for _, n := range names {
		if drops[n] == "" {
			t.Errorf("guard %s: what it drops is not documented: starlark/policy/reference.go", n)
		}
	}
}

// TestDocMan checks the pages of all verbs: that there is one, and that none has
// a line which man(7) would take for a request of its own.
func TestDocMan(t *testing.T) {
	dir := t.TempDir()
	a := &app{stdout: &bytes.Buffer{}, stderr: t.Output(), env: func(string) string { return "" }}
	if code := a.run([]string{"doc", "--man", dir}); code != exitFine {
		t.Fatal("exit code", code)
	}
	known := regexp.MustCompile(`^\.(TH|SH|B|BR|PP|TP|nf|fi)\b`)
	a.args = nil
	for _, c := range a.command().Commands() {
		page, err := os.ReadFile(filepath.Join(dir, "seki-"+c.Name()+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		for line := range strings.Lines(string(page)) {
			if strings.HasPrefix(line, ".") && !known.MatchString(line) || strings.HasPrefix(line, "'") {
				t.Errorf("seki-%s.1: %s", c.Name(), line)
			}
		}
		if !strings.Contains(string(page), ".SH EXAMPLES") {
			t.Errorf("seki-%s.1: no example", c.Name())
		}
	}
}
