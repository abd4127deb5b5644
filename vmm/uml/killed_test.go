package uml_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/uml"
	"sekimori/vmm/uml/kernel"
)

// gone waits until none of pids is a process, with a deadline: a zombie's
// parent may still be about to reap it.
func gone(t testing.TB, pids []int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for _, pid := range pids {
		for {
			stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("process %d is left: %s", pid, stat)
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// TestKilled kills each process of a machine in turn. The kernel's death is the
// machine's and is reported. That of a process behind an address space of the
// guest ends what ran there: either the guest goes on without it, or it panics,
// which is reported too. Nothing is left in any case.
func TestKilled(t *testing.T) {
	k := requireKernel(t)
	for victim := 0; ; victim++ {
		m := machine(t, k)
		pids := append([]int{m.PID()}, descendants(m.PID())...)
		if victim == len(pids) {
			m.Close()
			gone(t, pids)
			break
		}
		if err := unix.Kill(pids[victim], unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {
		case <-m.Done():
			if err := m.Wait(); err == nil {
				t.Errorf("process %d of %d killed: the machine ended without an error", victim, len(pids))
			} else {
				t.Logf("process %d of %d killed: %v", victim, len(pids), err)
			}
		case <-time.After(500 * time.Millisecond):
			if victim == 0 {
				t.Error("the kernel was killed, and the machine goes on")
			}
			t.Logf("process %d of %d killed: the machine goes on", victim, len(pids))
			m.Close()
		}
		gone(t, pids)
	}
}

// TestSupervisorKilled kills the process that started a machine: no other
// process holds the machine, so it goes with it.
func TestSupervisorKilled(t *testing.T) {
	if os.Getenv("SEKI_TEST_SUPERVISOR") != "" {
		m := machine(t, requireKernel(t))
		fmt.Println("pid", m.PID())
		time.Sleep(time.Minute)
		return
	}
	requireKernel(t)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSupervisorKilled$")
	cmd.Env = append(os.Environ(), "SEKI_TEST_SUPERVISOR=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if word, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
			pid, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(descendants(pid), pid)
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if len(pids) < 6 {
		t.Fatalf("the other process's machine: %v", pids)
	}
	gone(t, pids)
}

// traces is what machines could leave on this host, counted by kind.
func traces(t testing.TB) map[string]int {
	t.Helper()
	n := map[string]int{"goroutines": runtime.NumGoroutine()}
	fds, _ := os.ReadDir("/proc/self/fd")
	n["descriptors"] = len(fds)
	n["children"] = len(descendants(os.Getpid()))
	for name, file := range map[string]string{"mounts": "/proc/self/mountinfo", "sockets": "/proc/net/unix"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// Other programs come and go; ours are below /run/device in a jail.
		n[name] = strings.Count(string(data), "\n")
		if name == "sockets" {
			n[name] = strings.Count(string(data), "/run/device") + strings.Count(string(data), "/run/m/")
		}
	}
	shm, _ := filepath.Glob("/dev/shm/*")
	n["shared memory"] = len(shm)
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/seki/umltest*")
	more, _ := filepath.Glob("/sys/fs/cgroup/seki/umltest*")
	n["cgroups"] = len(groups) + len(more)
	return n
}

// TestNothingLeft boots and ends machines, by turns in each way that there is.
func TestNothingLeft(t *testing.T) {
	k := requireKernel(t)
	initrd := archive(t, compile(t, "init.c"))
	rounds := 200
	if testing.Short() {
		rounds = 10
	}
	one(t, k, initrd, 0) // what is made once: the thread that clones
	before := traces(t)
	for i := range rounds {
		one(t, k, initrd, i)
	}
	var after map[string]int
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if after = traces(t); maps.Equal(before, after) || time.Now().After(deadline) {
			break
		}
	}
	for _, what := range slices.Sorted(maps.Keys(before)) {
		if after[what] > before[what] {
			t.Errorf("%s: %d before, %d after %d machines", what, before[what], after[what], rounds)
		}
	}
}

// one runs the ith machine.
func one(t *testing.T, k kernel.Kernel, initrd *os.File, i int) {
	c := config(k, initrd)
	if os.Geteuid() == 0 && i%4 == 1 {
		c.Cgroup = "seki/umltest" + strconv.Itoa(i)
	}
	cx, cancel := context.WithCancel(ctx(t))
	defer cancel()
	switch i % 4 {
	case 0, 1: // powers off
	case 2: // is killed somewhere in its boot
		c.Append = []string{"do=wait"}
		defer time.AfterFunc(time.Duration(i)%40*time.Millisecond, cancel).Stop()
	case 3: // waits for a device that nobody serves
		c.Devices = []uml.Device{{ID: 1}}
		defer time.AfterFunc(5*time.Millisecond, cancel).Stop()
	}
	m, err := uml.Start(cx, c)
	if err != nil {
		if cx.Err() == nil {
			t.Fatal(err)
		}
		return
	}
	if err := m.Wait(); err != nil && i%4 < 2 {
		t.Errorf("machine %d: %v\n%s", i, err, m.Console())
	}
}
