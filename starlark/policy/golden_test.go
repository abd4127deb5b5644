package policy_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"sekimori/nicshadow/rule"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden compares programs with their disassembly in testdata/policy, so
// that a change of what the compiler makes of a policy is seen.
func TestGolden(t *testing.T) {
	for _, name := range []string{"bench", "tenant", "shapes", "memory"} {
		t.Run(name, func(t *testing.T) {
			base := "../../testdata/policy/" + name
			src, err := os.ReadFile(base + ".star")
			if err != nil {
				t.Fatal(err)
			}
			_, prog := compile(t, string(src))
			got := rule.Disassemble(prog)
			if *update {
				if err := os.WriteFile(base+".golden", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(base + ".golden")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s.star compiles to something else (-want +got); -update accepts it:\n%s", name, diff)
			}
		})
	}
}
