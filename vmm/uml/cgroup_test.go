package uml_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sekimori/vmm/uml"
)

// TestCgroup: a machine's processes are in its group from the first on, with
// its limits, and the group goes with it.
func TestCgroup(t *testing.T) {
	k := requireKernel(t)
	require(t, "root", os.Geteuid() == 0)
	c := config(k, archive(t, compile(t, "init.c")))
	c.Append = []string{"do=tree"}
	c.Cgroup, c.CPUs = "seki/umltest", 0.5
	said := make(chan struct{}, 1)
	c.Console = signalOn("tree grown", said)
	m, err := uml.Start(ctx(t), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	select {
	case <-said:
	case <-m.Done():
		t.Fatal(m.Wait())
	}
	for _, pid := range append(descendants(m.PID()), m.PID()) {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
		if err != nil || !strings.Contains(string(data), "/seki/umltest") {
			t.Errorf("process %d: %v, in\n%s", pid, err, data)
		}
	}
	value := func(v1, v2 string) string {
		for _, p := range []string{v1, v2} {
			if data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", p)); err == nil {
				return strings.TrimSpace(string(data))
			}
		}
		return "none"
	}
	limit, err := strconv.ParseInt(value("memory/seki/umltest/memory.limit_in_bytes", "seki/umltest/memory.max"), 10, 64)
	if err != nil || limit < c.Memory || limit > c.Memory+256<<20 {
		t.Errorf("memory limit %d, %v; want a little more than the guest's %d", limit, err, c.Memory)
	}
	if quota := value("cpu/seki/umltest/cpu.cfs_quota_us", "seki/umltest/cpu.max"); quota != "50000" && quota != "50000 100000" {
		t.Errorf("cpu quota %q; want half a CPU", quota)
	}
	m.Close()
	for _, p := range []string{"memory/seki/umltest", "cpu/seki/umltest", "pids/seki/umltest", "seki/umltest"} {
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", p)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", p, err)
		}
	}

	for _, bad := range []string{"/", ".", "../x", "a/../../b"} {
		c.Cgroup = bad
		if m, err := uml.Start(ctx(t), c); err == nil {
			m.Close()
			t.Errorf("cgroup %q: started", bad)
		}
	}
}
