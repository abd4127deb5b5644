// Package sekimori_test holds the rules of the house that a compiler does not
// know: who may import whom, where unsafe may stand, how errors are worded.
// ARCHITECTURE.md has the picture that they keep true.
package sekimori_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "sekimori"

// crossTree lists every import that leaves its tree, besides those of
// cmd/seki, which joins them. The VMM knows no policy and the lifecycle no
// language, so neither has an entry.
var crossTree = map[string][]string{
	"nicshadow":  {"vmm/guestmem", "vmm/virtq", "vmm/virtio"},
	"introspect": {"vmm/guestmem"},
	"starlark":   {"lifecycle/bundle", "nicshadow/frame", "nicshadow/rule", "nicshadow/replay", "nicshadow/witness"},
}

// crossTreeTests lists what tests may import besides: the third executor of
// predicates is held against the second where both can be called.
var crossTreeTests = map[string][]string{
	"starlark": {"nicshadow/rule/ebpf", "nicshadow/rule/ruletest"},
}

// upward lists the packages that stand on one above them in the tree.
// policytest runs *_test.star files through the loader, as net/http/httptest
// stands on net/http; lint looks at what the loader made.
// virtqtest plays the driver to virtq's device, and speaks of the same ring.
var upward = map[string]string{
	"starlark/policytest": "starlark",
	"starlark/lint":       "starlark",
	"vmm/virtq/virtqtest": "vmm/virtq",
	// ruletest makes programs of the rule machine, ebpf translates them.
	"nicshadow/rule/ruletest": "nicshadow/rule",
	"nicshadow/rule/ebpf":     "nicshadow/rule",
	// kernel serves ports of the switch.
	"nicshadow/kernel": "nicshadow",
}

// trees are held to crossTree; what else lies at the top (bench, e2e,
// examples) measures and shows the whole, and may import all of it.
var trees = []string{"starlark", "lifecycle", "vmm", "nicshadow", "introspect"}

// unsafeHere may import unsafe.
var unsafeHere = []string{"lifecycle/linux", "vmm/guestmem", "vmm/kvm", "vmm/landlock", "vmm/uml/jail"}

// exitHere are the packages that become another program, or end if they cannot.
var exitHere = []string{"lifecycle/linux", "vmm/uml/jail", "nicshadow/hostlink"}

// framePath is what runs for every frame. gopacket panics on 17 of 3,224
// public frames, and allocates; it reads files and checks tests elsewhere.
var framePath = []string{"nicshadow", "nicshadow/frame", "nicshadow/rule", "nicshadow/tap", "nicshadow/uplink", "nicshadow/hostlink",
	"vmm/guestmem", "vmm/virtq", "vmm/virtio", "vmm/vhostuser", "vmm/mmio"}

// denied imports, for all but tests, and why. The trees only.
var denied = map[string]string{
	"log":                               "a *slog.Logger comes in as a value",
	"net/http":                          "costs start-up time, and nothing here speaks HTTP",
	"reflect":                           "types are known here",
	"os/exec":                           "start-up cost, and a PATH to trust: netlink and system calls",
	"io/ioutil":                         "superseded by io and os",
	"math/rand":                         "superseded by math/rand/v2",
	"github.com/google/gopacket/layers": "its package init takes 4.3 ms, a third of a whole container's run",
	"github.com/sirupsen/logrus":        "a *slog.Logger comes in as a value",
	"github.com/cilium/ebpf":            "programs of the kernel are made in one place; its btf is all that others need",
}

// deniedBut lists what may import what is denied to all others.
var deniedBut = map[string]string{
	"vmm/uml/kernel":      "os/exec", // a kernel is compiled by make and gcc, and never while a machine starts
	"nicshadow/rule/ebpf": "github.com/cilium/ebpf",
}

// netstack is gVisor's: 4 MB of a binary, and a quarter of a millisecond of each
// start (GODEBUG=inittrace=1).
const netstack = "gvisor.dev/gvisor/"

const (
	maxFileLines = 600 // non-test; one idea a file is about 200
	maxFuncLines = 140 // non-test; the big switches are that long, nothing else
)

// TestLayout holds this module to the rules.
func TestLayout(t *testing.T) {
	problems, err := check(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// TestLayoutFinds breaks each rule once: a checker that finds nothing proves
// nothing.
func TestLayoutFinds(t *testing.T) {
	long := "package rule\n" + strings.Repeat("\n", maxFileLines)
	longFunc := "package rule\nfunc f() {" + strings.Repeat("\n", maxFuncLines+1) + "}\n"
	tests := []struct {
		name string
		file string // "Package x" stands in a doc.go beside it
		src  string
		want string // "" for no problem
	}{
		{"allowed cross-tree", "starlark/policy/a.go", `package policy; import _ "sekimori/nicshadow/rule"`, ""},
		{"cross-tree", "vmm/virtq/a.go", `package virtq; import _ "sekimori/nicshadow/rule"`, "vmm/virtq imports sekimori/nicshadow/rule: vmm may import nothing of nicshadow"},
		{"more of a tree than allowed", "starlark/a.go", `package starlark; import _ "sekimori/lifecycle"`, "starlark imports sekimori/lifecycle: only lifecycle/bundle"},
		{"cross-tree in a test", "lifecycle/a_test.go", `package lifecycle; import _ "sekimori/starlark"`, "lifecycle imports sekimori/starlark"},
		{"cross-tree, for tests", "starlark/policy/a_test.go", `package policy; import _ "sekimori/nicshadow/rule/ebpf"`, ""},
		{"cross-tree, not for tests", "starlark/policy/a.go", `package policy; import _ "sekimori/nicshadow/rule/ebpf"`, "starlark/policy imports sekimori/nicshadow/rule/ebpf"},
		{"upward", "nicshadow/replay/a.go", `package replay; import _ "sekimori/nicshadow"`, "nicshadow/replay imports sekimori/nicshadow: upward"},
		{"upward where allowed", "starlark/policytest/a.go", `package policytest; import _ "sekimori/starlark"`, ""},
		{"black-box test imports its own package", "nicshadow/rule/a_test.go", `package rule_test; import _ "sekimori/nicshadow/rule"`, ""},
		{"of the command", "nicshadow/a.go", `package nicshadow; import _ "sekimori/cmd/seki"`, "nicshadow imports sekimori/cmd/seki"},
		{"the command joins all", "cmd/seki/a.go", `package main; import (_ "sekimori/starlark"; _ "sekimori/vmm/hypercall")`, ""},
		{"unsafe", "nicshadow/rule/a.go", `package rule; import _ "unsafe"`, "unsafe outside"},
		{"unsafe where allowed", "lifecycle/linux/a.go", `package linux; import _ "unsafe"`, ""},
		{"unsafe in a test", "vmm/virtq/a_test.go", `package virtq; import _ "unsafe"`, "unsafe outside"},
		{"cgo", "lifecycle/linux/a.go", `package linux; import "C"`, "cgo"},
		{"gopacket on the frame path", "nicshadow/frame/a.go", `package frame; import _ "github.com/google/gopacket/layers"`, "gopacket on the frame path"},
		{"gopacket in its tests", "nicshadow/frame/a_test.go", `package frame; import _ "github.com/google/gopacket/layers"`, ""},
		{"denied", "lifecycle/a.go", `package lifecycle; import _ "os/exec"`, "lifecycle imports os/exec: start-up cost"},
		{"denied but to one", "vmm/uml/kernel/a.go", `package kernel; import _ "os/exec"`, ""},
		{"denied to that one too", "vmm/uml/kernel/a.go", `package kernel; import _ "net/http"`, "vmm/uml/kernel imports net/http"},
		{"denied but in a test", "lifecycle/a_test.go", `package lifecycle; import _ "os/exec"`, ""},
		{"assert library", "lifecycle/a_test.go", `package lifecycle; import _ "github.com/stretchr/testify/assert"`, "no assert library"},
		{"failed to", "vmm/virtq/a.go", `package virtq; var e = errors.New("failed to pop")`, `"failed to pop"`},
		{"unable to, inside", "vmm/virtq/a.go", `package virtq; var e = fmt.Errorf("ring %d: unable to pop", 1)`, "unable to"},
		{"capital", "vmm/virtq/a.go", `package virtq; var e = errors.New("Chain too long")`, "begins with a capital"},
		{"a constant's name may begin it", "vmm/virtq/a.go", `package virtq; var e = errors.New("CAP_NET_RAW missing")`, ""},
		{"full stop", "vmm/virtq/a.go", `package virtq; var e = errors.New("chain too long.")`, "ends with"},
		{"new line", "vmm/virtq/a.go", `package virtq; var e = errors.New("chain too long\n")`, "ends with"},
		{"panic without a word", "vmm/virtq/a.go", "package virtq\n\nfunc f() {\n\tpanic(1)\n}\n", "panic without"},
		{"panic for our own bug", "vmm/virtq/a.go", "package virtq\n\nfunc f() {\n\tpanic(1) // a bug in f\n}\n", ""},
		{"os.Exit in a library", "lifecycle/a.go", "package lifecycle\n\nfunc f() { os.Exit(1) }", "os.Exit"},
		{"TODO", "vmm/virtq/a.go", "package virtq\n\n// TODO: all of it\n", "TODO without an issue"},
		{"long file", "nicshadow/rule/a.go", long, "lines: one idea a file"},
		{"long function", "nicshadow/rule/a.go", longFunc, "f is"},
		{"vague package name", "lifecycle/util/a.go", "package util", "says nothing"},
		{"no package comment", "vmm/undocumented/a.go", "package undocumented", "vmm/undocumented: no package comment"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fsys := fstest.MapFS{tt.file: {Data: []byte(tt.src)}}
			dir := path.Dir(tt.file)
			if name := path.Base(dir); name != "undocumented" {
				clause, word := name, "Package "+name
				if dir == "cmd/seki" {
					clause, word = "main", "Seki"
				}
				fsys[dir+"/doc.go"] = &fstest.MapFile{Data: []byte("// " + word + " is documented.\npackage " + clause + "\n")}
			}
			problems, err := check(fsys)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case tt.want == "" && len(problems) > 0:
				t.Errorf("check = %q; want nothing", problems)
			case tt.want != "" && !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, tt.want) }):
				t.Errorf("check = %q; want %q", problems, tt.want)
			}
		})
	}
}

// check returns what is wrong with the Go files of fsys, one line each.
func check(fsys fs.FS) ([]string, error) {
	c := checker{files: token.NewFileSet(), documented: map[string]bool{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir() && name != ".":
			// A module of its own (its own go.mod) keeps its own rules.
			if _, err := fs.Stat(fsys, name+"/go.mod"); err == nil {
				return fs.SkipDir
			}
			return nil
		case !strings.HasSuffix(name, ".go"):
			return nil
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		return c.file(name, src)
	})
	for dir, ok := range c.documented {
		if !ok {
			c.problems = append(c.problems, dir+": no package comment (doc.go)")
		}
	}
	slices.Sort(c.problems)
	return c.problems, err
}

type checker struct {
	files      *token.FileSet
	documented map[string]bool // by directory of non-test code
	problems   []string
}

func (c *checker) problem(pos token.Pos, format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf("%s: ", c.files.Position(pos))+fmt.Sprintf(format, args...))
}

func (c *checker) file(name string, src []byte) error {
	f, err := parser.ParseFile(c.files, name, src, parser.ParseComments)
	if err != nil {
		return err
	}
	dir, test := path.Dir(name), strings.HasSuffix(name, "_test.go")
	for _, spec := range f.Imports {
		c.imported(dir, test, spec)
	}
	c.comments(f)
	c.calls(f, dir, test)
	if test {
		return nil
	}
	c.documented[dir] = c.documented[dir] || f.Doc != nil
	if slices.Contains([]string{"util", "utils", "helper", "helpers", "common", "misc", "manager"}, f.Name.Name) {
		c.problem(f.Package, "package %s says nothing about what is in it", f.Name.Name)
	}
	if n := strings.Count(string(src), "\n"); n >= maxFileLines {
		c.problem(f.Package, "%d lines: one idea a file", n)
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			if n := c.files.Position(fn.End()).Line - c.files.Position(fn.Pos()).Line; n > maxFuncLines {
				c.problem(fn.Pos(), "%s is %d lines long, more than %d", fn.Name.Name, n, maxFuncLines)
			}
		}
	}
	return nil
}

// imported judges one import of a file in dir.
func (c *checker) imported(dir string, test bool, spec *ast.ImportSpec) {
	imp, _ := strconv.Unquote(spec.Path.Value) // the parser saw a string there
	tree := top(dir)
	inTree := slices.Contains(trees, tree)
	switch {
	case imp == "unsafe" && !slices.Contains(unsafeHere, dir):
		c.problem(spec.Pos(), "unsafe outside %s", strings.Join(unsafeHere, ", "))
	case imp == "C":
		c.problem(spec.Pos(), "cgo: the binary is static and built without a C compiler")
	case strings.HasPrefix(imp, "github.com/stretchr/") || strings.HasPrefix(imp, "github.com/onsi/"):
		c.problem(spec.Pos(), "%s: no assert library: go-cmp and testscript are enough", imp)
	case strings.HasPrefix(imp, "github.com/google/gopacket") && !test && slices.Contains(framePath, dir):
		c.problem(spec.Pos(), "gopacket on the frame path")
	case strings.HasPrefix(imp, netstack) && dir != "nicshadow/usernet" && dir != "cmd/seki-net":
		c.problem(spec.Pos(), "%s imports %s: a network stack is of seki-net alone, a program of its own", dir, imp)
	case inTree && !test && denied[imp] != "" && deniedBut[dir] != imp:
		c.problem(spec.Pos(), "%s imports %s: %s", dir, imp, denied[imp])
	case strings.HasPrefix(imp, module+"/") && inTree:
		c.within(dir, test, strings.TrimPrefix(imp, module+"/"), spec.Pos())
	}
}

// within judges the import of to, a package of this module, by one in dir.
func (c *checker) within(dir string, test bool, to string, pos token.Pos) {
	tree := top(dir)
	if top(to) == tree {
		if strings.HasPrefix(dir, to+"/") && !test && upward[dir] != to {
			c.problem(pos, "%s imports %s/%s: upward", dir, module, to)
		}
		return
	}
	allowed := slices.Clone(crossTree[tree])
	if test {
		allowed = append(allowed, crossTreeTests[tree]...)
	}
	allowed = slices.DeleteFunc(allowed, func(p string) bool { return top(p) != top(to) })
	switch {
	case slices.Contains(allowed, to):
	case len(allowed) == 0:
		c.problem(pos, "%s imports %s/%s: %s may import nothing of %s", dir, module, to, tree, top(to))
	default:
		c.problem(pos, "%s imports %s/%s: only %s", dir, module, to, strings.Join(allowed, ", "))
	}
}

func top(dir string) string {
	tree, _, _ := strings.Cut(dir, "/")
	return tree
}

var todo = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)

func (c *checker) comments(f *ast.File) {
	for _, group := range f.Comments {
		for _, line := range group.List {
			if todo.MatchString(line.Text) && !strings.Contains(line.Text, "#") {
				c.problem(line.Pos(), "TODO without an issue number")
			}
		}
	}
}

// calls looks at what the code of f calls: how it words errors, and how it
// ends the process.
func (c *checker) calls(f *ast.File, dir string, test bool) {
	bugs := map[int]bool{} // lines that a comment about a bug covers: its own and the next
	for _, group := range f.Comments {
		if strings.Contains(strings.ToLower(group.Text()), "bug") {
			for line := c.files.Position(group.Pos()).Line; line <= c.files.Position(group.End()).Line+1; line++ {
				bugs[line] = true
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || test {
			return true
		}
		switch callee(call) {
		case "panic":
			if !bugs[c.files.Position(call.Pos()).Line] {
				c.problem(call.Pos(), "panic without a comment that says whose bug it would be")
			}
		case "os.Exit", "log.Fatal", "log.Fatalf":
			if slices.Contains(trees, top(dir)) && !slices.Contains(exitHere, dir) {
				c.problem(call.Pos(), "%s in a library: return an error", callee(call))
			}
		case "errors.New", "fmt.Errorf":
			if len(call.Args) > 0 {
				c.wording(call.Args[0])
			}
		}
		return true
	})
}

// callee names the function that call calls, with its package; "" if it has
// no plain name.
func callee(call *ast.CallExpr) string {
	switch fn := call.Fun.(type) {
	case *ast.Ident:
		return fn.Name
	case *ast.SelectorExpr:
		if x, ok := fn.X.(*ast.Ident); ok {
			return x.Name + "." + fn.Sel.Name
		}
	}
	return ""
}

// A capital may begin an error only as part of a name: CAP_NET_RAW, TUNSETIFF,
// IPv4, SO_PEERCRED.
var startsWithName = regexp.MustCompile(`^[A-Z][A-Za-z]*[A-Z0-9_/]`)

func (c *checker) wording(arg ast.Expr) {
	lit, ok := arg.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil || s == "" {
		return
	}
	switch {
	case strings.Contains(s, "failed to"), strings.Contains(s, "unable to"):
		c.problem(lit.Pos(), "error %q: say what thing and why, not \"failed to\" or \"unable to\"", s)
	case s[0] >= 'A' && s[0] <= 'Z' && !startsWithName.MatchString(s):
		c.problem(lit.Pos(), "error %q begins with a capital", s)
	case strings.HasSuffix(s, ".") || strings.HasSuffix(s, "\n"):
		c.problem(lit.Pos(), "error %q ends with a full stop or a new line", s)
	}
}
