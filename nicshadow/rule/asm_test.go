package rule_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// The disassembly of each program of testdata/rule is that of its golden
// file, and reads back.
func TestGolden(t *testing.T) {
	sources, err := filepath.Glob("../../testdata/rule/*.s")
	if err != nil || len(sources) < 2 {
		t.Fatalf("sources %v, %v", sources, err)
	}
	for _, name := range sources {
		t.Run(filepath.Base(name), func(t *testing.T) {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			p := assemble(t, string(src))
			same(t, p)
			got := rule.Disassemble(p)
			golden := strings.TrimSuffix(name, ".s") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("disassembly (-golden +got), -update writes it:\n%s", d)
			}
		})
	}
}

// testdata/rule/all.s has every operation.
func TestGoldenHasAllOperations(t *testing.T) {
	src, err := os.ReadFile("../../testdata/rule/all.s")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[rule.Op]bool)
	for _, in := range assemble(t, string(src)).Unit().Insns {
		seen[in.Op] = true
	}
	for op := rule.OpInvalid + 1; op < rule.NumOps; op++ {
		if !seen[op] {
			t.Errorf("no %v", op)
		}
	}
}

// Pools that are not in the order of their use, with entries twice or never
// used, come back all the same.
func TestPoolsComeBack(t *testing.T) {
	u := only(frame.ClassIPv4TCP,
		rule.Insn{Op: rule.OpTestEqC, A: uint8(frame.IPv4Src), K: 4, Off: 1},
		rule.Insn{Op: rule.OpTestEqC, A: uint8(frame.IPv4Src), K: 0},
		rule.Insn{Op: rule.OpTestMask, A: uint8(frame.IPv4Src), K: 2},
		rule.Insn{Op: rule.OpTestRow, K: 1},
	)
	u.Consts = []rule.Const{{Lo: 5}, {Hi: 7, Lo: 9}, {Lo: 5}, {Lo: 0xff}, {Lo: 5}}
	u.Rows = append(u.Rows, u.Rows[0])
	u.Whys = append(u.Whys, u.Whys[0], rule.Why{Kind: rule.WhyGuard, Pos: rule.Pos{File: 1, Line: 1, Col: 1}})
	u.Files = []string{"a.star", "a.star", "", "with space.star", "#0"}
	u.Lines = []rule.Pos{{File: 1, Line: 1}, {File: 2, Line: 2, Col: 3}, {File: 3, Line: 1}, {File: 4, Line: 1}}
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	same(t, p)
}

func TestAssembleErrors(t *testing.T) {
	entries := ".entry arp other ipv4-tcp ipv4-udp ipv4-dhcp ipv4-icmp ipv4-other ipv4-fragment " +
		"ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment\n"
	for src, want := range map[string]string{
		"":                                 "class arp has no entry",
		entries:                            "an entry without an instruction",
		".entry arq":                       `line 1: unknown class "arq"`,
		".entry arp\n.entry arp":           "line 2: class arp has an entry already",
		".hex 1":                           "line 1: unknown directive .hex",
		"jeq r0":                           `line 1: unknown instruction "jeq"`,
		"a:\na:":                           "line 2: label a twice",
		"eq eth.typ, 1 else a":             `unknown field "eth.typ"`,
		"eq eth.type, 1":                   "a test without else",
		"eq eth.type, x else a":            `"x" is no number`,
		"eq eth.type, 0x100000000 else a":  "wider than 32 bits",
		"eqc eth.src, 1:2 else a":          `"1:2" is no address`,
		"mask ip4.src, 10.0.0.0/33 else a": "is no prefix of 32 bits",
		"range port.dst, 80 else a":        `"80" is no range`,
		"in ip4.src, x else a":             `"x" is no table`,
		"row ip4.source=1 else a":          `unknown field "ip4.source"`,
		"ldi r8, 1":                        `"r8" is no register`,
		"ldi r0, 0x80000000":               "is no number of 32 bits",
		"neg r0, r1":                       `"r1" behind the last operand`,
		"ret maybe, guard \"x\"":           `"maybe" is no verdict`,
		"ret drop, because \"x\"":          "is no why",
		"ret drop, guard x":                "is no why",
		"ret drop, guard \"x\" y":          `"y" behind a why`,
		"ret drop, guard \"x\" (a.star:1)": "is no position",
		".file a":                          "a is no quoted path",
		".table exact32 { }":               "want a kind of table",
		".table exact64 { 1":               "a table without its closing brace",
		entries + "jmp a":                  "no label a",
		entries + "a:\njmp a":              "is not ahead",
	} {
		u, err := rule.Assemble(src)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Assemble(%q) = %v, %v; want error %q", src, u, err, want)
		}
	}
}

// FuzzAssemble: an error or a unit; what verifies reads back.
func FuzzAssemble(f *testing.F) {
	for _, name := range []string{"bench.s", "all.s"} {
		src, err := os.ReadFile("../../testdata/rule/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src))
	}
	f.Fuzz(func(t *testing.T, src string) {
		u, err := rule.Assemble(src)
		if err != nil {
			return
		}
		if p, err := rule.New(u); err == nil {
			same(t, p)
		}
	})
}
