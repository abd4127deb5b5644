package nested_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"sekimori/e2e/nested"
	umlkernel "sekimori/vmm/uml/kernel"
)

// TestCgroup2 is for hosts that have cgroup v2 alone, with all its controllers,
// as distributions have been since 2021: containers are limited, and denied what
// is not theirs, there too.
func TestCgroup2(t *testing.T) {
	t.Parallel()
	kernel, err := umlkernel.Find(umlkernel.Dirs(os.Getenv)...)
	if err != nil {
		missing(t, "uml", err)
	}
	text := func(name, s string) nested.File { return nested.File{Name: name, Data: []byte(s), Mode: 0o644} }
	ctx, m := boot(t, nested.Config{Kernel: nested.Require(t, "6.12"), Modules: []string{"tun", "overlay"}, Files: []nested.File{
		{Name: "tests/linux.test", From: nested.BuildTest(t, "sekimori/lifecycle/linux"), Mode: 0o755},
		{Name: "bin/seki", From: nested.Build(t, "sekimori/cmd/seki"), Mode: 0o755},
		{Name: "tests/linux", From: kernel.Path, Mode: 0o755},
		text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), text("etc/group", "root:x:0:\n"), text("tests/pod.star", cgroup2File),
	}})
	run := func(args ...string) (int, string) {
		t.Helper()
		var out bytes.Buffer
		status, err := m.Run(ctx, &out, args...)
		if err != nil {
			t.Fatal(err)
		}
		return status, out.String()
	}
	// Of what package linux tests that which is of cgroups, and no more: it is
	// slow in here.
	tests := []string{"TestMemoryLimit", "TestPidsLimit", "TestCPULimit", "TestDevicesAreDenied", "TestUnified", "TestSupported"}
	_, out := run("SEKI_TEST_REQUIRE=root,busybox,userns", "/tests/linux.test", "-test.v", "-test.run=^("+strings.Join(tests, "|")+")$")
	for _, name := range tests {
		if !strings.Contains(out, "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass:\n%s", name, out)
		}
	}
	if status, out := run("seki", "run", "-d", "/tests/pod.star"); status != 0 {
		t.Fatalf("run: %d\n%s", status, out)
	}
	if _, out := run("seki", "stats", "--json", "pod"); !strings.Contains(out, `"memory_limit_bytes": 67108864`) {
		t.Errorf("stats: %s", out)
	}
	const want = "50000 100000\n67108864\n32\n"
	if _, out := run("seki", "exec", "pod/a", "--", "/bin/cat", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"); out != want {
		t.Errorf("limits, from inside: %q; want %q", out, want)
	}
	if status, out := run("seki", "exec", "pod/a", "--", "/bin/tail", "/dev/zero"); status != 137 {
		t.Errorf("more memory than it may have: status %d, %s", status, out)
	}
	if _, out := run("seki", "events", "pod"); !strings.Contains(out, "oom") {
		t.Errorf("events without a word of memory:\n%s", out)
	}
	if status, out := run("seki", "stop", "pod"); status != 0 {
		t.Errorf("stop: %d\n%s", status, out)
	}
	// A machine with a kernel of its own is bounded by the same hierarchy.
	if status, out := run("seki", "run", "-d", "--name", "own", "--machine", "uml", "--kernel", "/tests/linux", "/tests/pod.star"); status != 0 {
		t.Fatalf("run on machine uml: %d\n%s", status, out)
	}
	if _, out := run("sh", "-c", "cat /sys/fs/cgroup/seki+own+*/memory.max /sys/fs/cgroup/seki+own+*/cgroup.procs"); strings.Count(out, "\n") < 3 || strings.HasPrefix(out, "max") {
		t.Errorf("the machine's group: %q", out)
	}
	if _, out := run("seki", "exec", "own/a", "--", "/bin/sh", "-c", "uname -r; cat /sys/fs/cgroup/memory.max"); out != kernel.Release+"\n67108864\n" {
		t.Errorf("in the machine: %q", out)
	}
	if status, out := run("seki", "stop", "own"); status != 0 {
		t.Errorf("stop of the machine: %d\n%s", status, out)
	}
	if _, out := run("sh", "-c", "find /sys/fs/cgroup -name '*seki*'; cat /proc/mounts; ip -o link"); strings.Contains(out, "seki") {
		t.Errorf("left: %s", out)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// missing skips the test, or fails it where the feature is asked for.
func missing(t *testing.T, feature string, err error) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), feature) {
		t.Fatal(err)
	}
	t.Skipf("needs %s: %v", feature, err)
}

const cgroup2File = `
container(
    name = "a", rootfs = host_root(), args = ["/bin/sleep", "1000"], stop_timeout = "1s",
    nic = nic("10.9.0.2/24", policy = policy(allow_arp = True)),
    resources = resources(memory = "64MiB", pids = 32, cpu = 0.5),
)
`
