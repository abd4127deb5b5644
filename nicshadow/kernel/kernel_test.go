package kernel_test

import (
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
)

// TestPing is the whole road, with the kernel's own ARP and ICMP: a policy that
// forwards, one that drops, and audit.
func TestPing(t *testing.T) {
	r := newRig(t, nicshadow.Config{}, true, 3)
	if r.ping(1, "10.0.0.2", 1) {
		t.Error("without a policy, ping was answered")
	}
	for i := 1; i <= 3; i++ {
		r.put(i, all(t, rule.Forward, 1), nicshadow.Enforce)
	}
	eventually(t, "ping", func() bool { return r.ping(1, "10.0.0.2", 1) })
	if !r.ping(1, "10.0.0.2", 3) || !r.ping(3, "10.0.0.1", 3) || !r.ping(3, "fd00::2", 3) {
		t.Errorf("with policies that forward, ping was lost: %+v", r.stats(1))
	}
	r.put(1, all(t, rule.Drop, 7), nicshadow.Enforce)
	if r.ping(1, "10.0.0.2", 2) {
		t.Error("with a policy that drops, ping was answered")
	}
	st := r.stats(1)
	t.Logf("%+v", st)
	if err := r.table.SetMode(1, nicshadow.Audit); err != nil {
		t.Fatal(err)
	}
	if !r.ping(1, "10.0.0.2", 3) {
		t.Error("in audit mode, ping was lost")
	}
	t.Logf("%+v", r.stats(1))
	t.Logf("%+v", r.told())
}
