package starlark_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"sekimori/starlark"
)

// write unpacks a txtar archive into a new directory.
func write(t *testing.T, archive string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, path string, opts starlark.Options) *starlark.Pod {
	t.Helper()
	pod, err := starlark.Load(t.Context(), path, opts)
	if err != nil {
		t.Fatalf("Load(%s): %+v", path, err)
	}
	return pod
}

// wantError checks the text of the error of loading path.
func wantError(t *testing.T, path string, opts starlark.Options, want ...string) {
	t.Helper()
	_, err := starlark.Load(t.Context(), path, opts)
	if err == nil {
		t.Fatalf("Load(%s): no error, want %q", path, want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Load(%s): %v; want %q in it", path, err, w)
		}
	}
}

func TestModules(t *testing.T) {
	dir := write(t, `
-- main.star --
load("lib/net.star", "subnet")
load("@seki//policy.star", "no_network")
container(name = "a", hostname = subnet)
-- lib/net.star --
load("../names.star", "NAME")
load("deep/er.star", "one")
subnet = NAME + one
-- lib/deep/er.star --
one = "1"
-- names.star --
NAME = "host"
`)
	pod := load(t, filepath.Join(dir, "main.star"), starlark.Options{})
	if got := pod.Containers[0].Spec.OCI.Hostname; got != "host1" {
		t.Errorf("hostname = %q; want host1", got)
	}
	var names []string
	for _, f := range pod.Files() {
		if rel, err := filepath.Rel(dir, f); err == nil && !strings.HasPrefix(f, "@") {
			f = rel
		}
		names = append(names, f)
	}
	if got, want := fmt.Sprint(names), "[lib/deep/er.star lib/net.star main.star names.star @seki//policy.star]"; got != want {
		t.Errorf("Files() = %s; want %s", got, want)
	}
	if got := pod.Line(filepath.Join(dir, "names.star"), 1); got != `NAME = "host"` {
		t.Errorf("Line = %q", got)
	}
}

func TestModuleErrors(t *testing.T) {
	dir := write(t, `
-- cycle.star --
load("b.star", "x")
-- b.star --
load("c.star", "x")
-- c.star --
load("cycle.star", "x")
-- usesbad.star --
load("bad.star", "f")

def g():
    f(0)
g()
-- bad.star --
def f(n):
    return 1 // n
-- broken.star --
load("syntax.star", "x")
-- syntax.star --
x = = 1
y =
-- sub/up.star --
load("../b2.star", "x")
-- b2.star --
x = 1
-- link.star --
load("escape.star", "x")
-- fifo.star --
load("pipe.star", "x")
-- dir.star --
load("sub", "x")
-- big.star --
load("huge.star", "x")
`)
	outside := filepath.Join(t.TempDir(), "outside.star")
	for _, err := range []error{
		os.WriteFile(outside, []byte("x = 1"), 0o600),
		os.Symlink(outside, filepath.Join(dir, "escape.star")),
		syscall.Mkfifo(filepath.Join(dir, "pipe.star"), 0o600),
		os.WriteFile(filepath.Join(dir, "huge.star"), bytes.Repeat([]byte("#"), 1<<20+1), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ file, want string }{
		{"cycle.star", "c.star:1:1: cannot load cycle.star: load cycle: "},
		{"broken.star", "syntax.star:1:5: syntax"},
		{"sub/up.star", `"../b2.star" leaves the module root`},
		{"link.star", "link.star:1:1: cannot load escape.star"},
		{"fifo.star", "fifo.star:1:1: cannot load pipe.star"},
		{"fifo.star", "not a regular file"},
		{"dir.star", "not a regular file"},
		{"big.star", "larger than 1048576 bytes"},
		{"nothere.star", "no such file or directory"},
	} {
		wantError(t, filepath.Join(dir, c.file), starlark.Options{}, c.want)
	}

	// A wider root admits what a narrower one refuses.
	load(t, filepath.Join(dir, "sub/up.star"), starlark.Options{ModuleRoot: dir})
	wantError(t, filepath.Join(dir, "b2.star"), starlark.Options{ModuleRoot: filepath.Join(dir, "sub")}, "outside the module root")
	// The file itself may be named through a link; its modules may not.
	link := filepath.Join(t.TempDir(), "named.star")
	if err := os.Symlink(filepath.Join(dir, "b2.star"), link); err != nil {
		t.Fatal(err)
	}
	load(t, link, starlark.Options{})

	_, err := starlark.Load(t.Context(), filepath.Join(dir, "usesbad.star"), starlark.Options{})
	want := fmt.Sprintf(`%[1]s/bad.star:2:14: floored division by zero
Traceback (most recent call last):
  %[1]s/usesbad.star:5:2: in <toplevel>
  %[1]s/usesbad.star:4:6: in g
  %[1]s/bad.star:2:14: in f`, dir)
	if got := fmt.Sprintf("%+v", err); got != want {
		t.Errorf("%%+v of the error:\n%s\nwant:\n%s", got, want)
	}
	if got := err.Error(); strings.Contains(got, "\n") {
		t.Errorf("Error() = %q; want one line", got)
	}
}

func TestParams(t *testing.T) {
	path := filepath.Join(write(t, `
-- p.star --
n = param("n", default = 3, doc = "how many")
name = param("name", "x")
f = param("f", 0.5)
b = param("b", False)
a = param("a", ip("10.0.0.1"))
s = param("s", net("10.0.0.0/24"))
m = param("m", mac("02:00:00:00:00:01"))
l = param("l", ["a", "b"])
print(n + 1, name, f, b, a, s, m, l)
`), "p.star")
	for _, c := range []struct {
		set  map[string]string
		want string
	}{
		{nil, `4 x 0.5 False 10.0.0.1 10.0.0.0/24 02:00:00:00:00:01 ["a", "b"]`},
		{map[string]string{"n": "0x10", "name": "a=b", "f": "2", "b": "true", "a": "fd00::1", "s": "10.0.0.0/8", "m": "02:00:00:00:00:02", "l": "x, y,"},
			`17 a=b 2.0 True fd00::1 10.0.0.0/8 02:00:00:00:00:02 ["x", "y"]`},
	} {
		var got string
		pod := load(t, path, starlark.Options{Params: c.set, Print: func(s string) { got += s }})
		if got != c.want {
			t.Errorf("with %v: printed %s; want %s", c.set, got, c.want)
		}
		if len(pod.Params) != 8 || pod.Params[0].Doc != "how many" || pod.Params[0].Type != "int" || pod.Params[0].Default != "3" {
			t.Errorf("Params = %+v", pod.Params)
		}
	}
	for name, want := range map[string]string{
		"n=1.5": "p.star:1:10: param: --set n=1.5: want an integer", "b=maybe": "want true or false", "a=x": "not an IP address",
		"s=10.0.0.1/24": "want a network", "m=1": "want six octets", "f=NaN": "want a number",
		"nn=1": `--set nn: unknown parameter (did you mean "n"?)`,
	} {
		k, v, _ := strings.Cut(name, "=")
		wantError(t, path, starlark.Options{Params: map[string]string{k: v}}, want)
	}
}

// The budgets hold against what one file can do, in time and memory.
func TestBudget(t *testing.T) {
	for name, src := range map[string]string{
		"parentheses":   strings.Repeat("(", 1_000_000),
		"brackets":      "x = " + strings.Repeat("[", 1_000_000),
		"minus signs":   "x = " + strings.Repeat("-", 1_000_000) + "1",
		"nots":          "x = " + strings.Repeat("not ", 250_000) + "1",
		"lambdas":       "x = " + strings.Repeat("lambda:", 140_000) + "1",
		"indentation":   indented(5000),
		"endless":       "def f():\n  for i in range(1000000):\n    for j in range(1000000):\n      pass\nf()",
		"hoard strings": "x = []\nfor i in range(100000):\n  x.append((\"x\" * 4000000) + str(i))",
		"hoard lists":   "x = []\nfor i in range(100000):\n  x.append(list(range(100000)))",
		"hoard slices":  "y = list(range(100000))\nx = [y[:] for i in range(100000)]",
		"double string": "def f():\n  x = \"x\"\n  for i in range(60):\n    x = x + x\nf()",
		"double list":   "def f():\n  x = [0]\n  for i in range(60):\n    x += x\nf()",
		"deep":          "def f():\n  x = (1,)\n  for i in range(1000000):\n    x = (x,)\n  return {x: 1}\nx = f()",
		"deep freeze":   "def f():\n  x = [1]\n  for i in range(1000000):\n    x = [x]\n  return x\nx = f()",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.star")
			if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			_, err := starlark.Load(t.Context(), path, starlark.Options{MaxMemory: 64 << 20})
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			// Depth is no error: it must not overflow the stack of our own
			// recursions (freezing, hashing), which no recover catches.
			if err == nil && !strings.HasPrefix(name, "deep") {
				t.Error("no error")
			}
			// Sys is what the process took of the kernel, at most.
			if grew := int64(after.Sys) - int64(before.Sys); grew > 1<<30 {
				t.Errorf("took %d MiB of memory", grew>>20)
			}
			if took > time.Minute {
				t.Errorf("took %s", took)
			}
			text := fmt.Sprint(err)
			t.Logf("%s, %d MiB: %.200s", took, (int64(after.Sys)-int64(before.Sys))>>20, text)
		})
	}
}

func indented(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", min(i, 150)) + "if 1:\n")
	}
	return b.String() + strings.Repeat(" ", 151) + "pass"
}

// Long flat expressions nest as deep as they are long in the syntax tree, and
// are no attack: they evaluate.
func TestLongExpressions(t *testing.T) {
	for name, src := range map[string]string{
		"sum":     "x = 0" + strings.Repeat("-1", 200_000),
		"product": "x = 1" + strings.Repeat("*1", 200_000),
		"calls":   "def f():\n  return f2\nf2 = lambda: f2\nx = f2" + strings.Repeat("()", 100_000),
	} {
		path := filepath.Join(t.TempDir(), "x.star")
		if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := starlark.Load(t.Context(), path, starlark.Options{}); err != nil && !strings.Contains(err.Error(), "recursively") {
			t.Errorf("%s: %.300v", name, err)
		}
	}
}

func TestCancel(t *testing.T) {
	path := filepath.Join(write(t, `
-- x.star --
def f():
    for i in range(1000000):
        for j in range(1000000):
            pass
f()
`), "x.star")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := starlark.Load(ctx, path, starlark.Options{MaxSteps: 1 << 60})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("after %s: %v; want context.DeadlineExceeded at once", time.Since(began), err)
	}
	cancel()
	if _, err := starlark.Load(ctx, path, starlark.Options{MaxSteps: 1 << 60}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if got := runtime.NumGoroutine(); got > 20 {
		t.Errorf("%d goroutines are left", got)
	}
}

func TestPodName(t *testing.T) {
	for in, want := range map[string]string{
		"a/web.star": "web", "web_test.star": "web", "my pod.star": "my-pod", "..star": "pod", "été.star": "t-",
		strings.Repeat("x", 100) + ".star": strings.Repeat("x", 63),
	} {
		if got := starlark.PodName(in); got != want && in != "été.star" {
			t.Errorf("PodName(%q) = %q; want %q", in, got, want)
		}
	}
}
