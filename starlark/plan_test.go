package starlark_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark"
)

var update = flag.Bool("update", false, "write golden files")

// The plan of a pod with something of everything, in full.
func TestPlanGolden(t *testing.T) {
	pod := load(t, "testdata/plan.star", starlark.Options{Params: map[string]string{"replicas": "2"}})
	got, err := pod.Plan()
	if err != nil {
		t.Fatal(err)
	}
	got = normalize(t, got)
	const golden = "testdata/plan.golden"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("plan (-golden +got), go test ./starlark -update writes it:\n%s", d)
	}
}

// normalize takes out what the compiler and the place of the checkout decide.
func normalize(t *testing.T, plan []byte) []byte {
	t.Helper()
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(plan, &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v["containers"].([]any) {
		if p, ok := c.(map[string]any)["policy"].(map[string]any); ok {
			prog := p["program"].(map[string]any)
			if hash := prog["sha256"].(string); len(hash) != 64 {
				t.Errorf("program hash %q", hash)
			}
			p["program"] = "..."
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(b.Bytes(), []byte(dir), []byte("/DIR"))
}

// The same files and parameters make the same bytes, wherever they lie.
func TestPlanIsDeterministic(t *testing.T) {
	source, err := os.ReadFile("testdata/plan.star")
	if err != nil {
		t.Fatal(err)
	}
	var first []byte
	for range 5 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "plan.star"), source, 0o600); err != nil {
			t.Fatal(err)
		}
		pod := load(t, filepath.Join(dir, "plan.star"), starlark.Options{})
		plan, err := pod.Plan()
		if err != nil {
			t.Fatal(err)
		}
		// Positions name the file as it was given, binds are absolute, and the
		// program carries the file's name in its debug lines.
		plan = bytes.ReplaceAll(normalize(t, plan), []byte(dir), nil)
		if first == nil {
			first = plan
		}
		if d := cmp.Diff(string(first), string(plan)); d != "" {
			t.Fatalf("plans differ:\n%s", d)
		}
	}
	a := load(t, "testdata/plan.star", starlark.Options{})
	b := load(t, "testdata/plan.star", starlark.Options{})
	c := load(t, "testdata/plan.star", starlark.Options{Params: map[string]string{"replicas": "1"}})
	if a.Digest != b.Digest || a.Digest == c.Digest || len(a.Digest) != 64 {
		t.Errorf("digests %s, %s, %s; want the first two equal", a.Digest, b.Digest, c.Digest)
	}
}

func container(t *testing.T, body string) *starlark.Container {
	t.Helper()
	pod := load(t, filepath.Join(write(t, "-- c.star --\n"+body), "c.star"), starlark.Options{})
	return pod.Containers[len(pod.Containers)-1]
}

// What a file that says nothing gets is what bundle.Default says.
func TestDefaults(t *testing.T) {
	got := container(t, `container(name = "web")`)
	want := bundle.Default("web")
	want.Root = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}
	want.OCI.Process.Args = []string{"/bin/sh"}
	want.OCI.Process.Env = append(want.OCI.Process.Env, "TERM=xterm", "HOME=/root")
	want.OCI.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 4096}}
	pids := int64(4096)
	want.OCI.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}
	if d := cmp.Diff(want, got.Spec, cmp.Comparer(func(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if err := got.Spec.Validate(); err != nil {
		t.Errorf("Validate: %v", err)
	}
	for _, c := range got.Spec.OCI.Process.Capabilities.Bounding {
		if c == "CAP_NET_RAW" {
			t.Error("CAP_NET_RAW is kept by default")
		}
	}
	if got.Policy != nil || got.Spec.NIC != nil || got.StopSignal != "TERM" || got.StopTimeout.Seconds() != 10 {
		t.Errorf("container = %+v", got)
	}
}

func TestInherit(t *testing.T) {
	got := container(t, `
f = lambda ctx: None
g = lambda ctx: None
base = defaults(
    args = ["a"], env = {"A": "1", "B": "1"}, hostname = "base", user = "7:8",
    on = {"ready": f, "poststop": f}, annotations = {"x": "1"},
)
mid = container(name = "mid", base = base, env = {"B": "2"}, capabilities = ["cap_net_raw", "NET_RAW"])
container(name = "end", base = mid, env = {"C": "3"}, args = ["b"], on = {"ready": g}, hostname = None)
`)
	p := got.Spec.OCI.Process
	if got.Spec.Name != "end" || got.Spec.OCI.Hostname != "base" || strings.Join(p.Args, " ") != "b" || p.User.UID != 7 || p.User.GID != 8 {
		t.Errorf("name %s, hostname %s, args %s, user %+v", got.Spec.Name, got.Spec.OCI.Hostname, p.Args, p.User)
	}
	if env := strings.Join(p.Env[1:], " "); env != "TERM=xterm HOME=/ A=1 B=2 C=3" {
		t.Errorf("env = %s", env)
	}
	if caps := strings.Join(p.Capabilities.Ambient, " "); caps != "CAP_NET_RAW" {
		t.Errorf("ambient capabilities = %s", caps)
	}
	if len(got.Callbacks) != 2 || got.Callbacks[0].Point != "poststop" || got.Callbacks[1].Pos.Line != 3 {
		t.Errorf("callbacks = %+v", got.Callbacks)
	}
	if got.Spec.OCI.Annotations["x"] != "1" {
		t.Errorf("annotations = %v", got.Spec.OCI.Annotations)
	}
}

// The derived MAC is the same for the same names, another for others, locally
// administered and unicast.
func TestDerivedMAC(t *testing.T) {
	body := `
[container(name = n, nic = nic("10.0.0.%d/24" % (i + 2))) for i, n in enumerate(["a", "b", "c"])]
`
	seen := map[string]string{}
	for _, name := range []string{"one.star", "two.star"} {
		pod := load(t, filepath.Join(write(t, "-- "+name+" --\n"+body), name), starlark.Options{})
		for _, c := range pod.Containers {
			m := c.Identity().MAC
			if m[0] != 2 {
				t.Errorf("%s/%s: MAC %s", name, c.Spec.Name, m)
			}
			if old, ok := seen[m.String()]; ok {
				t.Errorf("%s/%s: MAC %s is also of %s", name, c.Spec.Name, m, old)
			}
			seen[m.String()] = name + "/" + c.Spec.Name
		}
	}
	again := container(t, `container(name = "a", nic = nic("10.0.0.2/24"))`)
	if again.Identity().MAC != container(t, `container(name = "a", nic = nic("10.0.0.9/24"))`).Identity().MAC {
		t.Error("the MAC depends on more than the names")
	}
}

func TestSpecDetails(t *testing.T) {
	c := container(t, `
container(
    name = "a", rootfs = dir("root", overlay = False, readonly = True), init = True, terminal = True,
    seccomp = "unconfined", no_new_privileges = False, user = "www-data:www-data", capabilities = ["all"],
    mounts = [bind("data", "/data", readonly = False), tmpfs("/dev/shm", size = "1MiB"), bind("/etc/hosts")],
    rlimits = [rlimit("nofile", 5, 6), rlimit("RLIMIT_NOFILE", 7), rlimit("core", "unlimited")],
    sysctls = {"net.ipv4.ping_group_range": "1 0"}, masked_paths = [],
)
`)
	s, dir := c.Spec, filepath.Dir(c.Pos.Filename())
	if s.Root != (bundle.RootFS{Kind: bundle.RootDir, Path: dir + "/root"}) || !s.OCI.Root.Readonly || !s.Reaper || !s.OCI.Process.Terminal || s.OCI.Process.NoNewPrivileges {
		t.Errorf("root %+v, reaper %v, process %+v", s.Root, s.Reaper, s.OCI.Process)
	}
	if s.OCI.Process.User.Username != "www-data:www-data" || len(s.OCI.Process.Capabilities.Ambient) != 41 {
		t.Errorf("user %+v, %d ambient capabilities", s.OCI.Process.User, len(s.OCI.Process.Capabilities.Ambient))
	}
	if s.OCI.Linux.Seccomp == nil || s.OCI.Linux.Seccomp.DefaultAction != specs.ActAllow || len(s.OCI.Linux.MaskedPaths) != 0 {
		t.Errorf("seccomp %+v, masked %v", s.OCI.Linux.Seccomp, s.OCI.Linux.MaskedPaths)
	}
	want := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 7, Hard: 7}, {Type: "RLIMIT_CORE", Soft: 1<<64 - 1, Hard: 1<<64 - 1}}
	if d := cmp.Diff(want, s.OCI.Process.Rlimits); d != "" {
		t.Errorf("rlimits (-want +got):\n%s", d)
	}
	if s.OCI.Linux.Sysctl["net.ipv4.ping_group_range"] != "1 0" {
		t.Errorf("sysctl = %v", s.OCI.Linux.Sysctl)
	}
	text := ""
	for _, m := range s.OCI.Mounts {
		text += m.Destination + " " + m.Source + " " + strings.Join(m.Options, ",") + "\n"
	}
	for _, w := range []string{
		"/data " + dir + "/data rbind,rw,nosuid,nodev\n", "/etc/hosts /etc/hosts rbind,ro,nosuid,nodev\n",
		"/dev/shm tmpfs nosuid,nodev,size=1048576,mode=1777\n/dev/mqueue",
	} {
		if !strings.Contains(text, w) {
			t.Errorf("mounts have no %q:\n%s", w, text)
		}
	}
	if err := s.Validate(); err != nil {
		t.Errorf("Validate: %v", err)
	}
}
