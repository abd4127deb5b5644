package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// bundleFor writes an OCI bundle whose one container is root of the machine: no
// user namespace, every capability, no filter, nothing masked. With the guest's
// pid namespace it sees the agent, too.
func bundleFor(r *rig, name string, ownPIDs bool) (dir string) {
	r.t.Helper()
	caps := json.RawMessage(allCapabilities())
	namespaces := []map[string]string{{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}}
	if ownPIDs {
		namespaces = append(namespaces, map[string]string{"type": "pid"})
	}
	config := map[string]any{
		"ociVersion": "1.0.2", "root": map[string]any{"path": "rootfs"},
		"process": map[string]any{
			"args": []string{"/inside", "root"}, "cwd": "/", "user": map[string]int{"uid": 0, "gid": 0},
			"capabilities": map[string]any{"bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": caps},
		},
		"mounts": []map[string]any{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/sys", "type": "sysfs", "source": "sysfs"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
		},
		"linux": map[string]any{
			"namespaces": namespaces,
			"seccomp":    map[string]any{"defaultAction": "SCMP_ACT_ALLOW"},
			"resources":  map[string]any{"devices": []map[string]any{{"allow": true, "access": "rwm"}}},
		},
	}
	text, err := json.Marshal(config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(name+"/config.json", string(text))
	tool, err := os.ReadFile(filepath.Join(built.dir, "tools/inside"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range []string{"proc", "sys", "dev", "mnt", "tmp"} {
		if err := os.MkdirAll(filepath.Join(r.dir, name, "rootfs", d), 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, name, "rootfs/inside"), tool, 0o755); err != nil {
		r.t.Fatal(err)
	}
	return filepath.Join(r.dir, name)
}

// TestMachineRoot has root of a guest try what it can: against the agent's port
// of the host, the host's files and devices, and the agent itself. It stays in
// its guest. With the agent's own secret, out of its memory, it gets no further:
// each connection that the agent has exists once. Another pod, whose frames are
// judged all the while, loses nothing.
func TestMachineRoot(t *testing.T) {
	requireMachine(t, "root")
	other := newMachineLAN(t, lanFile(ownKernel(), allowEverything, allCapabilities()))
	program := other.stats(lanPod)["mallory"].Program
	for _, c := range []struct {
		name   string
		inside bool // in a pid namespace of its own
	}{{"of a container", true}, {"of the guest", false}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			out, log, code := r.seki(slices.Concat([]string{"run", "-q"}, ownKernelFlags(), []string{"--bundle", bundleFor(r, "pod", c.inside)})...)
			t.Logf("exit code %d\n%s%s", code, out, log)
			if n := strings.Count(out, "\n"); n < 25 {
				t.Fatalf("it tried %d things, want 25 at least", n)
			}
			for line := range strings.Lines(out) {
				name, what, _ := strings.Cut(strings.TrimSpace(line), ": ")
				// Who owns the guest owns the agent; and a distribution's kernel shows its
				// root what is the guest's own memory.
				own := !c.inside && (name == "secret" || name == "agent attached") || onKVM() && (name == "/proc/kcore" || name == "device /dev/device-1-1")
				if what == "done" && !own {
					t.Errorf("root %s did it: %s", c.name, name)
				}
			}
			wants := []string{
				`(?m)^hypercall: cut off`, `(?m)^control: cut off`, `(?m)^garbage: cut off`, `(?m)^no line: cut off`, `(?m)^9p: `,
				`(?m)^port 22: connection reset`, `(?m)^hostfs .*: no such device`, `(?m)^/dev/mem: .*no such file`, `(?m)^/seki.json: .*no such file`,
			}
			if !onKVM() {
				wants = append(wants, `(?m)^device /dev/device-1-1: .*no such device`)
			}
			for _, want := range wants {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("it does not say %q", want)
				}
			}
			if !strings.Contains(log, `msg="machine: connection refused" err="wrong secret"`) {
				t.Error("the host's log has no word of the wrong secret")
			}
			if stolen := strings.Contains(out, "secret: done"); stolen == c.inside {
				t.Errorf("the secret was found: %v; in a pid namespace of its own: %v", stolen, c.inside)
			}
			if !c.inside && !strings.Contains(log, "a second") {
				t.Error("the host's log has no word of the second connection")
			}
		})
		if heard, err := other.try(other.mallory.marker(alice)); err != nil || len(heard) == 0 {
			t.Errorf("the other pod: alice heard %v, %v", heard, err)
		}
		if _, err := other.try(arpVariants()[0].frame); err != nil {
			t.Errorf("the other pod: %v", err)
		}
	}
	st := other.stats(lanPod)["mallory"]
	if st.Program != program || st.reasons()["guard arp"] != 2 {
		t.Errorf("the other pod: program %s, was %s; drops %v", st.Program, program, st.reasons())
	}
	if lies := other.lies(t); len(lies) > 0 {
		t.Error("the other pod: ", lies)
	}
}

// TestMachineTricks changes the container's own network in each way that its
// root has: another card address, another address, VLANs, bridges, links on top
// of the card. What leaves in bob's name drops, and nobody believes it.
func TestMachineTricks(t *testing.T) {
	requireMachine(t, "root")
	l := newMachineLAN(t, lanFile(ownKernel(), allowEverything, allCapabilities()))
	for _, c := range []struct{ trick, reason string }{
		{"mac", "guard mac"}, {"ip", "guard arp"}, {"macvlan", "guard mac"}, {"vlan", "guard vlan"}, {"bridge", "guard mac"},
	} {
		t.Run(c.trick, func(t *testing.T) {
			before := l.stats(lanPod)
			card := net.HardwareAddr(bob.mac[:]).String()
			_, err := l.mallory.ask("trick", c.trick, bob.ip4.String(), card, alice.ip4.String())
			if onKVM() && err != nil && strings.Contains(err.Error(), "not supported") {
				t.Skip("needs a module that a guest of KVM is not given: ", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			var reasons []string
			after := l.stats(lanPod)
			if !within(patience(2*time.Second), func() bool {
				after = l.stats(lanPod)
				reasons = newDrops(before["mallory"].reasons(), after["mallory"].reasons())
				return slices.Contains(reasons, c.reason)
			}) {
				t.Errorf("dropped for %v, want %s among it", reasons, c.reason)
			}
			if lies := l.lies(t); len(lies) > 0 {
				t.Error(lies)
			}
		})
	}
	// A card that hears all hears nothing more: what is for bob goes to bob.
	if _, err := l.mallory.ask("trick", "promisc", bob.ip4.String(), net.HardwareAddr(bob.mac[:]).String(), bob.ip4.String()); err != nil {
		t.Fatal(err)
	}
	private := datagram{dstMAC: bob.mac, srcMAC: alice.mac, src: alice.ip4, dst: bob.ip4, protocol: 17,
		payload: udp(port(alice.ip4, secretPort), port(bob.ip4, secretPort), []byte("for bob alone"))}.bytes()
	m := l.alice.marker(mallory)
	if err := l.alice.send(private, m); err != nil {
		t.Fatal(err)
	}
	heard, err := l.mallory.until(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range heard {
		if f == fmt.Sprintf("%x", private) {
			t.Error("mallory heard what was for bob alone")
		}
	}
}
