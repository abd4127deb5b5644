package format_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekimori/starlark/format"
)

func TestSource(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"spaces", "x=1\ny = [ 1,2 ]\n", "x = 1\ny = [1, 2]\n"},
		{"a load behind a dot stays", "def f(ctx):\n  ctx.policy.load( P )\n", "def f(ctx):\n    ctx.policy.load(P)\n"},
		{"so does one in a string and a comment", "# ctx.policy.load( P )\nx = \"a.load( 1 )\"\n", "# ctx.policy.load( P )\nx = \"a.load( 1 )\"\n"},
		{"a load statement", "load(\"a.star\",'x')\nx()\n", "load(\"a.star\", \"x\")\n\nx()\n"},
		{"bytes", "x = [b\"a  b\",b'''two\nlines''', \"b\"]\n", "x = [b\"a  b\", b'''two\nlines''', \"b\"]\n"},
		{"nothing", "", ""},
	} {
		got, err := format.Source("a.star", []byte(c.src))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, got, err, c.want)
			continue
		}
		if again, err := format.Source("a.star", got); err != nil || string(again) != string(got) {
			t.Errorf("%s: formatted again: %q, %v", c.name, again, err)
		}
	}
	if _, err := format.Source("a.star", []byte("x = (\n")); err == nil || !strings.HasPrefix(err.Error(), "a.star:") {
		t.Errorf("a syntax error: %v", err)
	}
	if _, err := format.Source("a.star", []byte("x = 'loaḓ'\n")); err == nil {
		t.Error("the program's own word: no error")
	}
}

// What this repository shows is in the form that its tool makes.
func TestExamplesAreFormatted(t *testing.T) {
	for _, pattern := range []string{"../../examples/*.star", "../std/*.star"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range files {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := format.Source(name, src); err != nil || string(got) != string(src) {
				t.Errorf("%s: not formatted (%v): run seki fmt", name, err)
			}
		}
	}
}

// Whatever comes in, what comes out can be formatted again.
func FuzzSource(f *testing.F) {
	f.Add("def f(ctx):\n  ctx.policy.load(P)\n")
	f.Add("load('a', 'b')\nx = [1,\n 2] # c\n")
	f.Fuzz(func(t *testing.T, src string) {
		once, err := format.Source("f.star", []byte(src))
		if err != nil {
			return
		}
		if _, err := format.Source("f.star", once); err != nil {
			t.Fatalf("%q becomes %q, which does not parse: %v", src, once, err)
		}
	})
}
