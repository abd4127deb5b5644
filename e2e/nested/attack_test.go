package nested_test

import (
	"strings"
	"testing"

	"sekimori/e2e/nested"
)

// TestAttacks runs e2e's attacks on machine kvm, in Debian's kernels: every hostile
// frame from containers with every capability, and who is root of a container, of
// the guest, and owns its agent. bootSeki's L1 has seki, e2e's tests and what they
// run in containers.
func TestAttacks(t *testing.T) {
	t.Parallel()
	for _, series := range []string{"6.1", "6.12"} {
		t.Run(series, func(t *testing.T) {
			t.Parallel()
			m, ctx := bootSeki(t, series, append(nested.RequireProgram(t, "ip"),
				nested.File{Name: "tests/e2e.test", From: nested.BuildTest(t, "sekimori/e2e"), Mode: 0o755},
				nested.File{Name: "programs/seki-net", From: nested.Build(t, "sekimori/cmd/seki-net"), Mode: 0o755},
				nested.File{Name: "programs/tools/inside", From: nested.Build(t, "sekimori/e2e/testdata/inside"), Mode: 0o755},
			)...)
			attacks := []string{"Attacks", "Audit", "Root", "Tricks", "Owned", "Rung", "Driven", "Uplink", "Warm", "WarmSignals", "WarmEnds", "WarmAttacks"}
			out := sh(ctx, t, m, `
ln /bin/seki /programs/seki; chmod 666 /dev/kvm
cd /tests; export SEKI_TEST_KVM_KERNEL=/guests/full/vmlinux SEKI_TEST_PROGRAMS=/programs SEKI_TEST_REQUIRE=root,ip
./e2e.test -test.v -test.timeout 24m -test.run '^TestMachine(`+strings.Join(attacks, "|")+`)$'
`)
			for _, test := range attacks {
				if !strings.Contains(out, "--- PASS: TestMachine"+test+" ") {
					t.Errorf("TestMachine%s did not pass", test)
				}
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
