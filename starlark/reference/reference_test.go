package reference_test

import (
	"os"
	"strings"
	"testing"

	"sekimori/starlark/reference"
)

const module = `"""What it is.

More of it.
"""

load("other.star", "x")

# How many.
LIMIT = 3
_PRIVATE = 4

def tenant(subnet, gateway = ip("10.0.0.1"), *rest, mode = "enforce", **more):
    """The policy of a tenant.

        tenant(net("10.0.0.0/24"))

    Args:
        subnet: its own network,
          or several.
        mode: enforce: or audit.
        rest: others.
    Returns:
        a policy.
    """
    return mode

def _private():
    pass

def bare(x, f = lambda: 1, *, y):
    pass
`

func TestModule(t *testing.T) {
	s, err := reference.Module("m.star", []byte(module))
	if err != nil {
		t.Fatal(err)
	}
	var text, page strings.Builder
	if err := reference.WriteText(&text, []reference.Section{s}); err != nil {
		t.Fatal(err)
	}
	want := `M.STAR
  What it is.
  
  More of it.

  LIMIT = 3
      How many.

  tenant(subnet, gateway = ip("10.0.0.1"), *rest, mode = "enforce", **more) -> a policy
      The policy of a tenant.
      
          tenant(net("10.0.0.0/24"))
      subnet             its own network, or several.
      gateway            (default ip("10.0.0.1"))
      *rest              others.
      mode               enforce: or audit. (default "enforce")
      **more             

  bare(x, f = ..., *, y)
      x                  
      f                  (default ...)
      y                  
`
	if text.String() != want {
		t.Errorf("text:\n%s\nwant:\n%s", text.String(), want)
	}
	if err := reference.WriteMarkdown(&page, "m", []reference.Section{s}); err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"# m\n", "### `LIMIT = 3`\n\nHow many.", "| `mode` | enforce: or audit. | `\"enforce\"` |"} {
		if !strings.Contains(page.String(), w) {
			t.Errorf("page has no %q:\n%s", w, page.String())
		}
	}
	if _, err := reference.Module("m.star", []byte("x = (")); err == nil {
		t.Error("a syntax error: no error")
	}
}

// The standard library documents itself: every name, and every argument.
func TestStandardLibraryIsDocumented(t *testing.T) {
	src, err := os.ReadFile("../std/policy.star")
	if err != nil {
		t.Fatal(err)
	}
	s, err := reference.Module("@seki//policy.star", src)
	if err != nil {
		t.Fatal(err)
	}
	if s.Doc == "" || len(s.Entries) < 4 {
		t.Errorf("module: %d entries, doc %q", len(s.Entries), s.Doc)
	}
	for _, e := range s.Entries {
		if e.Doc == "" {
			t.Errorf("%s: no docstring", e.Name)
		}
	}
}

func TestFind(t *testing.T) {
	l := reference.Language()
	for _, name := range []string{"container", "t.drops", "allow_arp", "ETHERTYPE.IPV4", "ready", "ctx.exec", "mac"} {
		if _, err := reference.Find(l, name); err != nil {
			t.Error(err)
		}
	}
	if _, err := reference.Find(l, "contaner"); err == nil || !strings.Contains(err.Error(), `did you mean "container"`) {
		t.Errorf("Find(contaner) = %v", err)
	}
}
