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
	if !within(20*time.Second, sees(card("bob"))) {
		t.Error("enforced, alice does not find back to bob")
	}
	if st := r.stats("demo")["mallory"]; st.Mode != "enforce" || st.WouldDrop == 0 || st.reasons()["predicate allow_arp"] == 0 {
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
