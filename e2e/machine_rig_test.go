package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/sys/capability"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if built.made {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// built are the programs of the machine tests, made once.
var built struct {
	once sync.Once
	dir  string
	made bool // dir, for this run
	err  error
}

func programs(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir = os.Getenv(programsDir); built.dir != "" {
			return
		}
		built.made = true
		if built.dir, built.err = os.MkdirTemp("", "seki-e2e"); built.err != nil {
			return
		}
		if built.err = os.Chmod(built.dir, 0o755); built.err != nil {
			return
		}
		for name, pkg := range map[string]string{"seki": "../cmd/seki", "seki-net": "../cmd/seki-net", "tools/inside": "./testdata/inside"} {
			cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(built.dir, name), pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				built.err = fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
				return
			}
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// A rig is seki as its users have it, with a state directory of the test's own.
type rig struct {
	t      *testing.T
	dir    string   // of the test's files
	state  string   // of seki
	prefix []string // before seki's name: setpriv and its arguments
}

func newRig(t *testing.T, prefix ...string) *rig {
	t.Helper()
	bin := programs(t)
	dir, err := os.MkdirTemp("", "seki-e2e")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, state: filepath.Join(dir, "state"), prefix: prefix}
	t.Cleanup(func() { r.clean() })
	if len(prefix) > 0 {
		err = os.Chmod(dir, 0o777) // of a test that is root, for the user that seki runs as
	}
	if err = errors.Join(err, os.Symlink(filepath.Join(bin, "tools"), filepath.Join(dir, "tools"))); err != nil {
		t.Fatal(err)
	}
	return r
}

// clean ends what the test left running, and finds out whether anything is
// left of it all.
func (r *rig) clean() {
	for _, p := range r.pods() {
		r.seki("stop", "--timeout", "0s", p)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(r.dir)) {
		r.t.Errorf("mounts below %s are left (%v)", r.dir, err)
	}
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil || bytes.Contains(sockets, []byte(r.dir)) {
		r.t.Errorf("sockets below %s are left (%v)", r.dir, err)
	}
	if left, err := filepath.Glob(filepath.Join(r.state, "pods", "*")); err != nil || len(left) > 0 {
		r.t.Errorf("state is left: %v %v", left, err)
	}
	if err := os.RemoveAll(r.dir); err != nil {
		r.t.Error(err)
	}
}

// command is seki with arguments.
func (r *rig) command(args ...string) *exec.Cmd {
	words := append(append([]string{}, r.prefix...), filepath.Join(built.dir, "seki"))
	words = append(words, args...)
	cmd := exec.CommandContext(r.t.Context(), words[0], words[1:]...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "SEKI_ROOT="+r.state)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// seki runs it to its end.
func (r *rig) seki(args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	cmd := r.command(args...)
	if r.t.Context().Err() != nil { // of a cleanup
		c := exec.Command(cmd.Path, cmd.Args[1:]...)
		c.Dir, c.Env = cmd.Dir, cmd.Env
		cmd = c
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("seki %v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is seki that succeeds, and what it prints.
func (r *rig) must(args ...string) string {
	r.t.Helper()
	out, errs, code := r.seki(args...)
	if code != 0 {
		r.t.Fatalf("seki %v: exit %d\n%s%s", args, code, out, errs)
	}
	return out
}

// write writes a file of the test's.
func (r *rig) write(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return path
}

// start runs a pod in the background.
func (r *rig) start(pod, source string, flags ...string) {
	r.t.Helper()
	r.must(append(append([]string{"run", "-d", "-q"}, flags...), r.write(pod+".star", source))...)
}

// A listed pod is what `seki ps` says of it.
type listed struct {
	Name       string
	Pid        int // of the supervisor
	Containers []struct{ Name, Status string }
}

// ps are the pods that seki knows.
func (r *rig) ps() []listed {
	out, _, code := r.seki("ps", "-a", "--json")
	var report struct{ Pods []listed }
	if code != 0 || json.Unmarshal([]byte(out), &report) != nil {
		return nil // it never ran, or the check of what is left tells
	}
	return report.Pods
}

// pods are their names.
func (r *rig) pods() (names []string) {
	for _, p := range r.ps() {
		names = append(names, p.Name)
	}
	return names
}

// status is a container's, "" of one that seki does not know.
func (r *rig) status(pod, container string) string {
	for _, p := range r.ps() {
		for _, c := range p.Containers {
			if p.Name == pod && c.Name == container {
				return c.Status
			}
		}
	}
	return ""
}

// figures are what `seki stats --json` says of a container's card.
type figures struct {
	Mode, Program                         string
	Frames, Forwarded, Dropped, Delivered uint64
	WouldDrop                             uint64 `json:"would_drop"`
	Drops                                 []dropLine
}

type dropLine struct {
	Reason, Kind, Why, File string
	Line, Col               int
	Count                   uint64
	Would                   bool
}

func (d dropLine) reason() string {
	if d.Kind == "" {
		return d.Reason
	}
	return d.Kind + " " + d.Why
}

// reasons counts by the words of the variants.
func (f figures) reasons() map[string]uint64 {
	m := map[string]uint64{}
	for _, d := range f.Drops {
		m[d.reason()] += d.Count
	}
	return m
}

// nobodys counts what belongs to no container of a pod: frames whose sender was not
// found, and hypercalls that were refused.
func (r *rig) nobodys(pod string) (frames, calls uint64) {
	r.t.Helper()
	var report struct {
		Unattributed uint64
		Refused      uint64 `json:"hypercalls_refused"`
	}
	if err := json.Unmarshal([]byte(r.must("stats", "--json", pod)), &report); err != nil {
		r.t.Fatal(err)
	}
	return report.Unattributed, report.Refused
}

// stats are the figures of a pod, by container.
func (r *rig) stats(pod string) map[string]figures {
	r.t.Helper()
	var report struct {
		Containers []struct {
			Name string
			Net  figures
		}
	}
	if err := json.Unmarshal([]byte(r.must("stats", "--json", pod)), &report); err != nil {
		r.t.Fatal(err)
	}
	all := map[string]figures{}
	for _, c := range report.Containers {
		all[c.Name] = c.Net
	}
	return all
}

// inMachine is a station that runs in a container.
type inMachine struct {
	host
	in  io.Writer
	out *bufio.Scanner
}

// station starts one in a running container.
func (r *rig) station(pod string, h host) *inMachine {
	r.t.Helper()
	cmd := r.command("exec", "-i", pod+"/"+h.name, "--", "/t/inside", "station")
	in, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { in.Close(); cmd.Wait() })
	s := &inMachine{host: h, in: in, out: bufio.NewScanner(out)}
	s.out.Buffer(nil, 1<<20)
	if _, err := s.ask("sink", fmt.Sprint(secretPort)); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// ask has a command carried out, and returns the answer.
func (s *inMachine) ask(words ...string) (answer []string, err error) {
	if _, err := fmt.Fprintln(s.in, strings.Join(words, " ")); err != nil {
		return nil, err
	}
	for s.out.Scan() {
		line := s.out.Text()
		if line == "." {
			return answer, nil
		}
		if why, ok := strings.CutPrefix(line, "! "); ok {
			return answer, fmt.Errorf("%s: %s: %s", s.name, words[0], why)
		}
		answer = append(answer, line)
	}
	return answer, fmt.Errorf("%s: %s: no answer: %w", s.name, words[0], errors.Join(s.out.Err(), io.ErrUnexpectedEOF))
}

// send sends frames.
func (s *inMachine) send(frames ...[]byte) error {
	words := []string{"send"}
	for _, f := range frames {
		words = append(words, hex.EncodeToString(f))
	}
	_, err := s.ask(words...)
	return err
}

// until returns what arrives before a frame, without the group memberships that
// the kernels report.
func (s *inMachine) until(marker []byte) (heard []string, err error) {
	heard, err = s.ask("until", hex.EncodeToString(marker))
	return slices.DeleteFunc(heard, func(f string) bool { return strings.HasPrefix(f, "333300000016") }), err
}

// lies are the entries of the neighbour table that are not true, and the routes
// that an advertisement made.
func (s *inMachine) lies() (lies []string, err error) {
	all, err := s.ask("neigh")
	for _, line := range all {
		ip, card, _ := strings.Cut(line, " ")
		a, perr := netip.ParseAddr(ip)
		m, merr := net.ParseMAC(card)
		if perr != nil || merr != nil || a.IsMulticast() == false && known[a] != mac(m) && a != netip4(255, 255, 255, 255) {
			lies = append(lies, s.name+" believes: "+line)
		}
	}
	return lies, err
}

// marker is an honest datagram from s to to, unlike any other. It goes to all:
// links on one card hand on what is sent to all later than what is for one, and
// the marker must not overtake it.
func (s *inMachine) marker(to host) []byte {
	m := (&station{host: s.host}).marker(&station{host: to})
	copy(m, broadcast[:])
	return m
}

// allCapabilities are those of Linux but some, as a list of Starlark.
func allCapabilities(but ...string) string {
	var names []string
	for _, c := range capability.ListKnown() {
		name := strings.ToUpper(c.String())
		keep := true
		for _, b := range but {
			keep = keep && b != name
		}
		if keep {
			names = append(names, `"CAP_`+name+`"`)
		}
	}
	return "[" + strings.Join(names, ", ") + "]"
}

// lanFile is a pod of the three stations, of which mallory may do what a
// container can be allowed to. The policy of each is P.
func lanFile(machine, policy, malloryMay string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "machine(%s)\n%s\n", machine, policy)
	for _, h := range []host{alice, bob, mallory} {
		may := `["NET_RAW", "NET_ADMIN"]`
		if strings.Contains(machine, "shared") {
			may = `["NET_RAW"]`
		}
		if h.name == mallory.name {
			may = malloryMay
		}
		fmt.Fprintf(&b, `
container(
    name = %q, rootfs = host_root(), args = ["/t/inside", "idle"], mounts = [bind("tools", "/t")],
    capabilities = %s, seccomp = "unconfined", stop_timeout = "1s",
    sysctls = {"net.ipv6.conf.eth0.router_solicitations": "0", "net.ipv6.conf.eth0.mldv2_unsolicited_report_interval": "1",
        "net.ipv4.neigh.eth0.locktime": "0"},
    nic = nic(["%v/24", "%v/64"], mac = %q, policy = P),
)
`, h.name, may, h.ip4, h.ip6, net.HardwareAddr(h.mac[:]))
	}
	return b.String()
}

// allowEverything leaves everything to the default guards.
const allowEverything = "P = policy(allow_ethernet = True, allow_arp = True, allow_ipv4 = True, allow_ipv6 = True)"
