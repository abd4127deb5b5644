package e2e_test

import (
	"bytes"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// A machineLAN is the three stations in containers of a pod.
type machineLAN struct {
	*rig
	alice, bob, mallory *inMachine
}

const lanPod = "lan"

func newMachineLAN(t *testing.T, source string, flags ...string) *machineLAN {
	t.Helper()
	return newRig(t).lan(source, flags...)
}

// lan starts the three stations.
func (r *rig) lan(source string, flags ...string) *machineLAN {
	t, l := r.t, &machineLAN{rig: r}
	t.Helper()
	l.start(lanPod, source, flags...)
	l.alice, l.bob, l.mallory = l.station(lanPod, alice), l.station(lanPod, bob), l.station(lanPod, mallory)
	// Alice and bob know each other, or there is nothing to change.
	for _, s := range []*inMachine{l.alice, l.bob} {
		to := alice
		if s == l.alice {
			to = bob
		}
		for _, ip := range []string{to.ip4.String(), to.ip6.String()} {
			if _, err := s.ask("speak", ip); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(300 * time.Millisecond) // multicast listener reports of the new cards
	if _, err := l.try(l.mallory.marker(alice)); err != nil {
		t.Fatal(err)
	}
	return l
}

// try sends frames of mallory's, and a marker after them. What alice hears
// before it arrived because of them.
func (l *machineLAN) try(frames ...[]byte) (heard []string, err error) {
	m := l.mallory.marker(alice)
	if err := l.mallory.send(append(frames, m)...); err != nil {
		return nil, err
	}
	return l.alice.until(m)
}

// lies are what alice and bob believe and is not so.
func (l *machineLAN) lies(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, s := range []*inMachine{l.alice, l.bob} {
		lies, err := s.lies()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, lies...)
	}
	return all
}

// machineNICs are the ways in which containers of a machine have cards, and all
// that a container can be allowed there.
var machineNICs = []struct{ name, machine, may string }{
	{"own", ownKernel(), allCapabilities()},
	{"shared", ownKernel() + `, nic = "shared"`, allCapabilities("NET_ADMIN", "SYS_ADMIN", "SYS_MODULE", "BPF")},
}

// reasonOf is why a frame drops. On a shared card the sender is found in the
// guest's memory, and is held to its card before its program is asked.
func reasonOf(v variant, nic string) string {
	if nic == "shared" && bytes.Equal(v.frame[6:12], bob.mac[:]) {
		return "identity mismatch"
	}
	return v.reason
}

// TestMachineAttacks sends every variant from inside a container of a machine
// with a kernel of its own, where it has all the capabilities that there are
// and no filter of system calls. Nothing arrives, nobody is misled, and the
// reason of each is the one that the suite names for machine host. (On machine kvm,
// where each look at the figures takes a second, they are counted at the end.)
func TestMachineAttacks(t *testing.T) {
	requireMachine(t, "root", "ip")
	for _, c := range machineNICs {
		t.Run(c.name, func(t *testing.T) {
			l := newMachineLAN(t, lanFile(c.machine, allowEverything, c.may))
			before := l.stats(lanPod)
			want := before["mallory"].reasons()
			for _, v := range allVariants() {
				heard, err := l.try(v.frame)
				if err != nil {
					t.Fatalf("%s: %v", v.name, err)
				}
				if v.hostile {
					want[reasonOf(v, c.name)]++
				}
				after := before
				if !onKVM() {
					after = l.stats(lanPod)
				}
				reasons := newDrops(before["mallory"].reasons(), after["mallory"].reasons())
				sent := after["mallory"].Forwarded - before["mallory"].Forwarded
				// Neighbours who know each other ask now and then whether it is still so:
				// what bob says himself is none of mallory's frames, which sent counts.
				bobs := hex.EncodeToString(bob.mac[:])
				heard = slices.DeleteFunc(heard, func(f string) bool {
					return strings.HasPrefix(f[12:], bobs) && f != hex.EncodeToString(v.frame)
				})
				before = after
				// Links on one card hand on what is sent to groups to their members only.
				group := c.name == "shared" && v.frame[0]&1 != 0 && v.frame[0] != 0xff
				switch {
				case v.hostile && len(heard) > 0:
					t.Errorf("%s: %s: alice heard %v", v.name, v.would, heard)
				case !v.hostile && !group && !slices.Contains(heard, hex.EncodeToString(v.frame)):
					t.Errorf("%s: %s: alice heard %v", v.name, v.would, heard)
				case onKVM():
				// What mallory's own kernel says to bob meanwhile is sent, too: that the
				// frame itself was not, its one drop says.
				case v.hostile && sent < 1:
					t.Errorf("%s: %s: not even the marker was sent", v.name, v.would)
				case v.hostile && (len(reasons) != 1 || reasons[0] != reasonOf(v, c.name)):
					t.Errorf("%s: %s: dropped for %q, want %q", v.name, v.would, reasons, reasonOf(v, c.name))
				case !v.hostile && (len(reasons) > 0 || sent < 2):
					t.Errorf("%s: %s: dropped for %q, alice heard %v", v.name, v.would, reasons, heard)
				}
			}
			if lies := l.lies(t); len(lies) > 0 {
				t.Error(lies)
			}
			before = l.stats(lanPod)
			if got := before["mallory"].reasons(); !maps.Equal(got, want) {
				t.Errorf("dropped for %v; want %v", got, want)
			}
			for name, st := range before {
				if name != "mallory" && st.Dropped > 0 {
					t.Errorf("%s, who is honest, was refused %v", name, st.reasons())
				}
			}
			// As a user would look.
			if out := l.must("exec", lanPod+"/alice", "--", "ip", "neigh", "show", bob.ip4.String()); !strings.Contains(out, "lladdr 02:00:0a:4d:00:03") {
				t.Errorf("alice's table says of bob: %s", out)
			}
		})
	}
}

// TestMachineAudit is the control of [TestMachineAttacks]: the same frames, the
// same pod, but what drops is only recorded. The lies are believed, so the
// tables that stayed true did because of the guards; and the record says what
// was refused before, frame for frame.
func TestMachineAudit(t *testing.T) {
	requireMachine(t, "root")
	for _, c := range machineNICs {
		t.Run(c.name, func(t *testing.T) {
			l := newMachineLAN(t, lanFile(c.machine, allowEverything, c.may), "--policy-mode", "audit")
			want := map[string]uint64{}
			believed := 0
			for _, v := range allVariants() {
				if sure[v.name] != poisons || reasonOf(v, c.name) != v.reason {
					continue
				}
				want[v.reason]++
				if _, err := l.try(v.frame); err != nil {
					t.Fatal(err)
				}
			}
			believed = len(l.lies(t))
			if believed == 0 {
				t.Error("in audit mode no lie is believed: the suite proves nothing here")
			}
			st := l.stats(lanPod)["mallory"]
			for _, d := range st.Drops {
				if got := want[d.reason()]; got != d.Count || !d.Would {
					t.Errorf("audit: %d frames counted for %s (would drop: %v), want %d", d.Count, d.reason(), d.Would, got)
				}
				delete(want, d.reason())
			}
			if len(want) > 0 || st.Mode != "audit" {
				t.Errorf("audit: mode %s, not counted: %v", st.Mode, want)
			}
		})
	}
}
