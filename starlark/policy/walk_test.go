package policy // startOf has no name outside

import (
	"testing"

	"go.starlark.net/syntax"
)

// TestStartOf holds it against the library, on every kind of node.
func TestStartOf(t *testing.T) {
	f, err := Options.Parse("t.star", `
load("x.star", "y", z = "w")
def f(a, b = 1, *args, **kwargs):
    """Doc."""
    if not a and (b + 2) * 3 < -a or a.b.c(1)[2] in [1, 2]:
        return [x for x in {1: 2} if x] + [e[1:2:3] for e in args]
    elif b == "c":
        pass
    else:
        (a, b) = 1, 2
        a[b] += 3
    for i in range(3):
        if i: continue
        break
    return
g = lambda x: x.y if x else {"a" + "b": (1,)}
f(a = g("x")(2))
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	nodes := 0
	syntax.Walk(f, func(n syntax.Node) bool {
		if n == nil {
			return true
		}
		nodes++
		if got, want := startOf(n), syntax.Start(n); got != want {
			t.Errorf("startOf(%T at %v) = %v", n, want, got)
		}
		return true
	})
	if nodes < 100 {
		t.Errorf("%d nodes: this test proves little", nodes)
	}
}
