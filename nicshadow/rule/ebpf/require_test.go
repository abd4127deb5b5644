package ebpf_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// require skips the test unless the kernel takes a program of us, and says
// why not. Where SEKI_TEST_REQUIRE lists "bpf", that fails instead.
func require(t testing.TB) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	switch {
	case err == nil:
		p.Close()
	case slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), "bpf"):
		t.Fatalf("SEKI_TEST_REQUIRE wants bpf: %v", err)
	default:
		t.Skipf("needs bpf: %v", err)
	}
}
