package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMachineRung has others than the agent ring the doorbell, by which hypercalls
// come where the guest's memory is read: a container with every capability, which
// has no right to the ports, for its capabilities are of its own user namespace; and
// root of the guest, who has, in all that he can make of himself but process 1. None
// is answered, the host says who it was, and the policies are what they were.
func TestMachineRung(t *testing.T) {
	if !onKVM() {
		t.Skip("needs ", kvmKernel, ": e2e/nested runs it")
	}
	requireMachine(t, "root")
	c := machineNICs[1]
	l := newMachineLAN(t, lanFile(c.machine, allowEverything, c.may))
	before := l.stats(lanPod)
	out := l.must("exec", lanPod+"/mallory", "--", "/t/inside", "ring")
	if n := strings.Count(out, "ioperm: operation not permitted\n"); n == 0 || n != strings.Count(out, "\n")-strings.Count(out, "fork/exec") {
		t.Errorf("a container may use the ports:\n%s", out)
	}
	out = l.must("machine", "shell", lanPod, filepath.Join(l.dir, "tools/inside"), "ring")
	if n := strings.Count(out, "nobody answers\n"); n != 4*14 || n != strings.Count(out, "\n") {
		t.Errorf("root of the guest was not answered %d times; want %d:\n%s", n, 4*14, out)
	}
	after := l.stats(lanPod)
	for name, was := range before {
		if is := after[name]; is.Program != was.Program || is.Mode != was.Mode {
			t.Errorf("%s: program %s, mode %s; was %s, %s", name, is.Program, is.Mode, was.Program, was.Mode)
		}
	}
	if _, n := l.nobodys(lanPod); n < 4*14 {
		t.Errorf("%d hypercalls were counted as refused; want %d at least", n, 4*14)
	}
	log, err := os.ReadFile(filepath.Join(l.state, "pods", lanPod, "supervisor.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "hypercall refused: not the agent's") || !strings.Contains(string(log), "rung by process") {
		t.Errorf("the host's log does not say who rang:\n%s", log)
	}
	if heard, err := l.try(l.mallory.marker(alice)); err != nil || len(heard) == 0 {
		t.Errorf("afterwards alice heard %v, %v", heard, err)
	}
}
