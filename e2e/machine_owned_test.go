package e2e_test

import (
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
)

// TestMachineOwned is who owns the guest: root there takes the agent's own
// connection and puts a policy in force that forbids nothing, in audit mode. The
// host obeys, and the envelope holds: what was refused before is refused still,
// and no card but the pod's own can be spoken of.
func TestMachineOwned(t *testing.T) {
	requireMachine(t, "root")
	l := newMachineLAN(t, lanFile(ownKernel(), allowEverything, allCapabilities()))
	open, err := compile(mallory, strings.Replace(allowAll, ")", `, guard = "off")`, 1))
	if err != nil {
		t.Fatal(err)
	}
	before := l.stats(lanPod)
	// Cards are numbered in the order of the file.
	out := l.must("machine", "shell", lanPod, filepath.Join(l.dir, "tools/inside"), "steal", "3", hex.EncodeToString(open))
	for _, want := range []string{"stranger: hypercall register: ", "other name: hypercall register: ", "load for a stranger: hypercall load: ", "load: done\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("root of the guest does not say %q:\n%s", want, out)
		}
	}
	if _, n := l.nobodys(lanPod); n < 3 {
		t.Errorf("%d hypercalls were counted as refused; want 3 at least", n)
	}
	st := l.stats(lanPod)
	if st["mallory"].Program == before["mallory"].Program || st["mallory"].Mode != "audit" {
		t.Fatalf("the guest's own policy is not in force: %+v", st["mallory"])
	}
	if st["alice"].Program != before["alice"].Program || st["bob"].Program != before["bob"].Program {
		t.Error("the policies of others changed")
	}
	for _, v := range allVariants() {
		heard, err := l.try(v.frame)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		for _, f := range heard {
			if v.hostile && f == hex.EncodeToString(v.frame) {
				t.Errorf("%s: %s: it passed", v.name, v.would)
			}
		}
	}
	if lies := l.lies(t); len(lies) > 0 {
		t.Error(lies)
	}
	envelope, would := uint64(0), uint64(0)
	for _, d := range l.stats(lanPod)["mallory"].Drops {
		if d.Reason == "envelope" {
			envelope += d.Count
		}
		if d.Would {
			would += d.Count
		}
	}
	if envelope < 80 || would > 0 {
		t.Errorf("the envelope dropped %d frames, want 80 at least; %d went on that should not have", envelope, would)
	}
}
