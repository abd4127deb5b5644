package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekimori/nicshadow/replay"
)

// parityFile is a policy whose predicates decide, without guards, and that a
// callback replaces on the first violation, if told to.
const parityFile = `
def allow_ethernet(vlan, length):
    return vlan == None and length < 1400

def allow_arp(op, src_ip, dst_ip):
    if op == ARP.REPLY:
        return src_ip == ip("10.77.0.4")
    return dst_ip in net("10.77.0.0/24") and src_ip != ip("10.77.0.3")

def allow_ipv4(src_ip):
    return src_ip in net("10.77.0.0/24")

def allow_udp(src_port, dst_port):
    return src_port != 67 and dst_port == 4001

def allow_ndp(type):
    return type in (135, 136)

P = policy(allow_ethernet, allow_arp, allow_ipv4, allow_udp, allow_ndp, allow_ipv6 = lambda src_ip: src_ip in net("fd5e::/64"), guard = %q)
`

// recorded are the frames of the captures.
func recorded(t *testing.T) (frames [][]byte) {
	t.Helper()
	for _, c := range captures() {
		all, err := replay.Open(filepath.Join(captureDir, c.name))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			frames = append(frames, f.Data)
		}
	}
	return frames
}

// verdicts sends the recorded frames in a pod and returns what became of them:
// how many went on, and what dropped the others, and where.
func verdicts(t *testing.T, machine, policy string, flags ...string) (lines map[dropLine]uint64, forwarded uint64) {
	t.Helper()
	r := newRig(t)
	r.start(lanPod, lanFile(machine, policy, allCapabilities()), flags...)
	m := r.station(lanPod, mallory)
	// Her kernel solicits routers, answers neighbours and reports the groups that
	// it listens to, twice within a second (RFC 3810 section 9.11): without
	// addresses it keeps silent, and what is counted is what the test sends.
	r.must("exec", lanPod+"/mallory", "--", "ip", "address", "flush", "dev", "eth0")
	time.Sleep(1500 * time.Millisecond)
	before := r.stats(lanPod)["mallory"]
	frames := recorded(t)
	if err := m.send(frames...); err != nil {
		t.Fatal(err)
	}
	var after figures
	if !within(5*time.Second, func() bool {
		after = r.stats(lanPod)["mallory"]
		return after.Frames-before.Frames >= uint64(len(frames))
	}) {
		t.Fatalf("%s: %d frames judged, want %d", machine, after.Frames-before.Frames, len(frames))
	}
	lines = map[dropLine]uint64{}
	for _, d := range after.Drops {
		lines[d.line()] += d.Count
	}
	for _, d := range before.Drops {
		if lines[d.line()] -= d.Count; lines[d.line()] == 0 {
			delete(lines, d.line())
		}
	}
	return lines, after.Forwarded - before.Forwarded
}

// line is the reason without the count, the same wherever the file lies.
func (d dropLine) line() dropLine {
	d.Count, d.File = 0, filepath.Base(d.File)
	return d
}

// TestMachineParity: the same file judges the same frames alike on the host's
// kernel and on one of its own, reason by reason and line by line; in audit,
// too.
func TestMachineParity(t *testing.T) {
	require(t, "root", "netns", "tun", "uml")
	for _, c := range []struct {
		name, policy string
		flags        []string
	}{
		{"guards", fmt.Sprintf(parityFile, "on"), nil},
		{"predicates", fmt.Sprintf(parityFile, "off"), nil},
		{"audit", fmt.Sprintf(parityFile, "off"), []string{"--policy-mode", "audit"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, passed := verdicts(t, `"host"`, c.policy, c.flags...)
			got, passedToo := verdicts(t, `"uml"`, c.policy, c.flags...)
			if d := cmp.Diff(want, got); d != "" || passed != passedToo {
				t.Errorf("host forwards %d, uml %d; lines (-host +uml):\n%s", passed, passedToo, d)
			}
			if len(want) < 8 {
				t.Errorf("%d lines of the file decide, want 8 at least: %v", len(want), want)
			}
		})
	}
}

// TestMachineCapture: the drops of a machine are captured, each with its reason
// and line as the packet's comment.
func TestMachineCapture(t *testing.T) {
	require(t, "root", "uml")
	r := newRig(t)
	path := filepath.Join(r.dir, "drops.pcapng")
	r.start(lanPod, lanFile(`"uml"`, fmt.Sprintf(parityFile, "on"), allCapabilities()), "--pcap", path)
	v := arpVariants()[0]
	if err := r.station(lanPod, mallory).send(v.frame); err != nil {
		t.Fatal(err)
	}
	r.must("stop", "--timeout", "1s", lanPod)
	frames, err := replay.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(frames, func(f replay.Frame) bool { return string(f.Data) == string(v.frame) })
	if i < 0 {
		t.Fatalf("%d frames captured, and not the one that dropped", len(frames))
	}
	if f := frames[i]; f.Interface != "mallory" || !strings.HasPrefix(f.Comment, "drop: policy: guard arp at ") || !strings.Contains(f.Comment, lanPod+".star:") {
		t.Errorf("captured of %q with comment %q", f.Interface, f.Comment)
	}
	out := r.must("explain", filepath.Join(r.dir, lanPod+".star"), "-c", "mallory", "--pcap", path, "--frame", fmt.Sprint(i+1))
	if !strings.Contains(out, "guard arp") {
		t.Errorf("explain says %q", out)
	}
}

// TestMachineReload replaces the policy by a callback in the guest while frames
// pass: each is judged by the old one or by the new one, none is lost, and what
// passed before does not pass after.
func TestMachineReload(t *testing.T) {
	require(t, "root", "uml")
	r := newRig(t)
	source := lanFile(`"uml"`, `
def allow_udp(dst_port):
    return dst_port == 4001

def strict(ctx):
    if "allow_udp" in ctx.event:
        ctx.policy.load(policy(allow_arp = True, allow_ipv4 = True, allow_udp = lambda dst_port: dst_port == 53))

P = policy(allow_udp, allow_ipv4 = True, allow_arp = True)
`, allCapabilities())
	// Mallory's is the last container of the file.
	i := strings.LastIndex(source, "    nic = ")
	r.start(lanPod, source[:i]+`    on = {"violation": strict},`+"\n"+source[i:])
	m := r.station(lanPod, mallory)
	good := m.marker(alice)
	bad := datagram{dstMAC: alice.mac, srcMAC: mallory.mac, src: mallory.ip4, dst: alice.ip4, protocol: 17,
		payload: udp(port(mallory.ip4, 1), port(alice.ip4, 9), nil)}.bytes()
	send := func(frames ...[]byte) {
		t.Helper()
		if err := m.send(frames...); err != nil {
			t.Fatal(err)
		}
	}
	batch := slices.Repeat([][]byte{good}, 50)
	send(batch...)
	first := r.stats(lanPod)["mallory"]
	if first.Forwarded < 50 {
		t.Fatalf("before the reload %d frames passed, want 50", first.Forwarded)
	}
	sent := uint64(50)
	var st figures
	if !within(10*time.Second, func() bool {
		send(batch...)
		send(bad)
		sent += 51
		st = r.stats(lanPod)["mallory"]
		return st.Program != first.Program
	}) {
		t.Fatal("the callback loaded nothing")
	}
	before := st.Forwarded
	send(batch...)
	sent += 50
	st = r.stats(lanPod)["mallory"]
	if st.Forwarded != before {
		t.Errorf("%d frames passed under the new policy", st.Forwarded-before)
	}
	if st.Frames < sent || st.Forwarded+st.Dropped != st.Frames {
		t.Errorf("%d frames sent, %d judged: %d forwarded, %d dropped", sent, st.Frames, st.Forwarded, st.Dropped)
	}
	if _, err := os.Stat(filepath.Join(r.state, "pods", lanPod)); err != nil {
		t.Error(err)
	}
	out := r.must("events", "--json", lanPod)
	if !strings.Contains(out, `"type":"policy_load"`) {
		t.Errorf("the journal has no policy_load:\n%s", out)
	}
}
