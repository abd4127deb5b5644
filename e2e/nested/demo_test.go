package nested_test

import (
	"slices"
	"strings"
	"testing"

	"sekimori/e2e/nested"
)

// demo is examples/arp_guard.star on machine kvm: the real arpspoof is believed
// while it is only watched, and no longer once a callback in the guest has the policy
// enforced; all of it is checked by the program that make demo runs. Everything is
// some twenty times slower here, but for arpspoof, which sleeps: its two seconds
// between lies are as long.
const demo = `
cd /examples
demo -seki /bin/seki -machine kvm -kernel /guests/full/vmlinuz -kernel-arg $SEKI_TEST_KERNEL_ARG -file arp_guard.star -patience 3
`

// demoFiles are what the demo needs of a host: its containers have the host's root.
func demoFiles(t *testing.T) []nested.File {
	t.Helper()
	files := []nested.File{
		{Name: "bin/demo", From: nested.Build(t, "sekimori/examples/demo"), Mode: 0o755},
		{Name: "examples/arp_guard.star", From: "../../examples/arp_guard.star", Mode: 0o644},
		{Name: "etc/hosts", Data: []byte("127.0.0.1 localhost\n"), Mode: 0o644},
	}
	for _, program := range []string{"arpspoof", "ping", "ip"} {
		files = append(files, nested.RequireProgram(t, program)...)
	}
	slices.SortFunc(files, func(a, b nested.File) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(files, func(a, b nested.File) bool { return a.Name == b.Name })
}
