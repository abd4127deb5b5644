package uml_test

import (
	"strings"
	"testing"

	"sekimori/vmm/uml"
)

// TestState: what a guest's programs have in their registers and their memory
// is theirs. Our kernel gives the host registers back only where they are
// others, and fills process 1's memory by windows (kernel/stub.patch,
// kernel/faults.patch).
func TestState(t *testing.T) {
	k := requireKernel(t)
	m, err := uml.Start(ctx(t), config(k, archive(t, compile(t, "state.c"))))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"registers: 1600 of 1600 kept", "children: 2 of 2 kept theirs; signals: some", "private file: 0 wrong", "new memory: 0 wrong",
	} {
		if said := m.Console(); !strings.Contains(said, want) {
			t.Errorf("the console has no %q:\n%s", want, said)
		}
	}
}
