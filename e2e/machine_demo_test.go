package e2e_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMachineDemo is examples/arp_guard.star as an ordinary user runs it: the
// real arpspoof is believed while it is only watched, and no longer once a
// callback in the guest has the same policy enforced.
func TestMachineDemo(t *testing.T) {
	require(t, "root", "uml", "setpriv", "arpspoof", "ping", "ip")
	r := newRig(t, nobodyPrefix...)
	source, err := os.ReadFile("../examples/arp_guard.star")
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd := r.command("run", r.write("demo.star", string(source)))
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sees := func(card string) func() bool {
		return func() bool {
			out, _, _ := r.seki("exec", "demo/alice", "--", "ip", "neigh", "show", bob.ip4.String())
			return strings.Contains(out, "lladdr "+card)
		}
	}
	card := func(container string) string {
		out := r.must("exec", "demo/"+container, "--", "cat", "/sys/class/net/eth0/address")
		return strings.TrimSpace(out)
	}
	if !within(20*time.Second, func() bool { return r.status("demo", "mallory") == "running" }) {
		t.Fatalf("the demo does not run: %s", errs.String())
	}
	if !within(10*time.Second, sees(card("mallory"))) {
		t.Error("watched only, arpspoof is not believed")
	}
	// While it is only watched, alice's entry may change from one to the other.
	if !within(30*time.Second, func() bool { return r.stats("demo")["mallory"].Mode == "enforce" }) {
		t.Fatal("the callback does not enforce the policy")
	}
	if !within(20*time.Second, sees(card("bob"))) {
		t.Error("enforced, alice does not find back to bob")
	}
	forgeries := func() uint64 { return r.stats("demo")["mallory"].reasons()["predicate allow_arp"] }
	before := forgeries()
	if !within(10*time.Second, func() bool { return forgeries() > before }) {
		t.Fatal("no forgery drops")
	}
	if sees(card("mallory"))() {
		t.Error("enforced, arpspoof is believed again")
	}
	if st := r.stats("demo")["mallory"]; st.WouldDrop == 0 || forgeries() == 0 {
		t.Errorf("mallory: %+v", st)
	}
	cmd.Process.Signal(unix.SIGINT)
	cmd.Wait() // its code is that of the first container that failed
	if !strings.Contains(errs.String(), "allow_arp") {
		t.Errorf("no drop was told: %s", errs.String())
	}
	if _, err := os.Stat(filepath.Join(r.state, "pods", "demo")); err == nil {
		t.Error("the pod's state is left")
	}
}
