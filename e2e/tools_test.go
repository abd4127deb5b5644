package e2e_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sekimori/nicshadow"
)

// start runs a program inside the namespace until the test ends or stop is
// called, which interrupts it and waits.
func (s *space) start(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	if err := s.in(c.Start); err != nil {
		t.Fatal(err)
	}
	done := false
	stop = func() {
		if done {
			return
		}
		done = true
		c.Process.Signal(syscall.SIGKILL) // a term makes arpspoof tell the truth for ten seconds
		c.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// TestArpspoof is the attack with the real tool: in audit mode it works, and
// the switch counts what it would have dropped; enforced, it does not, while
// everybody pings everybody.
func TestArpspoof(t *testing.T) {
	require(t, "root", "netns", "tun", "arpspoof", "ping")
	onEach(t, testArpspoof)
}

func testArpspoof(t *testing.T, on datapath) {
	s := newShadow(t, on, allowAll)
	if err := s.table.SetMode(senders["mallory"], nicshadow.Audit); err != nil {
		t.Fatal(err)
	}
	if err := s.reset(); err != nil {
		t.Fatal(err)
	}
	s.mallory.start(t, "arpspoof", "-i", "eth0", "-t", alice.ip4.String(), bob.ip4.String())

	lie := fmt.Sprintf("alice believes %v is at %02x:%02x:%02x:%02x:%02x:%02x", bob.ip4, mallory.mac[0], mallory.mac[1], mallory.mac[2], mallory.mac[3], mallory.mac[4], mallory.mac[5])
	if !within(5*time.Second, func() bool {
		lies, err := s.alice.poisoned()
		return err == nil && len(lies) == 1 && lies[0] == lie
	}) {
		lies, err := s.alice.poisoned()
		t.Fatalf("audit: want that %s, have %q %v", lie, lies, err)
	}
	// What the tool sends is what the table and testdata/pcap say it sends.
	m := s.bob.marker(s.alice)
	if err := s.bob.send(m); err != nil {
		t.Fatal(err)
	}
	heard, err := s.alice.until(m)
	if reply := arpVariants()[0].frame; err != nil || !slices.ContainsFunc(heard, func(b []byte) bool { return bytes.Equal(b, reply) }) {
		t.Errorf("alice heard % x, %v; want % x among it", heard, err, reply)
	}
	if n := s.drops(t)["guard arp"]; n == 0 {
		t.Error("audit: the switch did not count what it would have dropped")
	}

	if err := s.table.SetMode(senders["mallory"], nicshadow.Enforce); err != nil {
		t.Fatal(err)
	}
	before := s.drops(t)["guard arp"]
	if err := s.reset(); err != nil {
		t.Fatal(err)
	}
	for _, from := range s.stations() {
		for _, to := range s.stations() {
			if from != to {
				from.ping(t, to.ip4.String())
			}
		}
	}
	// arpspoof sends every two seconds.
	if !within(6*time.Second, func() bool {
		if lies, err := s.alice.poisoned(); err != nil || len(lies) > 0 {
			t.Fatalf("enforce: %q %v", lies, err)
		}
		return s.drops(t)["guard arp"] >= before+2
	}) {
		t.Error("enforce: arpspoof was not heard of within 6 s")
	}
	st, err := s.table.Stats(senders["mallory"])
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range st.Lines {
		if l.Why == "arp" && l.Line == 0 {
			t.Errorf("the drop names no line: %+v", l)
		}
	}
}

// within asks until holds says yes, for so long at most.
func within(limit time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return holds()
}

func (s *station) ping(t *testing.T, to string) {
	t.Helper()
	if out, err := s.command("ping", "-n", "-c", "2", "-i", "0.01", "-W", "2", to); err != nil {
		t.Errorf("%s pings %s: %v\n%s", s.name, to, err, out)
	}
}

// TestHonestTools runs what an honest container runs, under the default guards
// and with empty neighbour tables.
func TestHonestTools(t *testing.T) {
	require(t, "root", "netns", "tun", "ping", "arping")
	onEach(t, testHonestTools)
}

func testHonestTools(t *testing.T, on datapath) {
	s := newShadow(t, on, allowAll)
	before := s.drops(t)
	m := s.mallory
	m.ping(t, alice.ip4.String())
	m.ping(t, alice.ip6.String())
	m.ping(t, alice.local6.String()+"%eth0")
	s.alice.ping(t, mallory.ip6.String())
	for _, c := range []struct{ name, args string }{
		{"ask", "-c 1 -w 2 " + alice.ip4.String()},
		{"ask as a broadcast", "-b -c 1 -w 2 " + alice.ip4.String()},
		{"is my address free", "-D -c 1 -w 1 " + mallory.ip4.String()},
	} {
		if out, err := m.command(append([]string{"arping", "-I", "eth0"}, strings.Fields(c.args)...)...); err != nil {
			t.Errorf("arping, %s: %v\n%s", c.name, err, out)
		}
	}
	// An announcement gets no answer, which arping takes for a failure.
	for _, how := range []string{"-U", "-A"} {
		announced := m.marker(s.alice)
		out, _ := m.command("arping", "-I", "eth0", how, "-c", "1", mallory.ip4.String())
		if err := m.send(announced); err != nil {
			t.Fatal(err)
		}
		heard, err := s.alice.until(announced)
		if err != nil || len(heard) == 0 || !strings.Contains(out, "Sent 1 probe") {
			t.Errorf("arping %s: alice heard % x, %v\n%s", how, heard, err, out)
		}
	}
	if reasons := newDrops(before, s.drops(t)); len(reasons) > 0 {
		t.Errorf("honest frames dropped: %v", reasons)
	}
}
