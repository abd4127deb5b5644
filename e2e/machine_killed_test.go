package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process is one that was seen: its number, and when it began, which no later
// process of that number shares.
type process struct {
	pid     int
	comm    string
	started string
}

func lookAt(pid int) (process, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	i, j := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[j+1:])) // from the third on (proc_pid_stat(5))
	// The first thread of one that was killed is a zombie while others, in the kernel for
	// a vCPU, still hold its files: num_threads counts them.
	if len(fields) < 20 || fields[0] == "Z" && fields[17] == "1" {
		return process{}, false
	}
	return process{pid, string(b[i+1 : j]), fields[19]}, true
}

// lives says that the process is there, and not only for its parent to wait for.
func (p process) lives() bool {
	now, ok := lookAt(p.pid)
	return ok && now == p
}

// below are the processes under pid, pid itself the first.
func below(pid int) (all []process) {
	if p, ok := lookAt(pid); ok {
		all = append(all, p)
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for _, w := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(w); err == nil {
				all = append(all, below(child)...)
			}
		}
	}
	return all
}

// traced are the address spaces of guest processes, the agent's the first.
func traced(all []process) []process {
	return slices.DeleteFunc(slices.Clone(all), func(p process) bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
		return len(b) == 0 || strings.Contains(string(b), "TracerPid:\t0\n")
	})
}

// cgroupsOf are the directories of a process's control groups.
func cgroupsOf(pid int) (dirs []string) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for line := range strings.Lines(string(b)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 || part[2] == "/" {
			continue
		}
		name := strings.TrimPrefix(part[1], "name=")
		dirs = append(dirs, filepath.Join("/sys/fs/cgroup", name, part[2]))
	}
	return dirs
}

// TestMachineKilled kills each process of a machine. The pod ends, says why,
// and leaves nothing; what a supervisor that was killed leaves, the next start
// removes.
func TestMachineKilled(t *testing.T) {
	require(t, "root", "uml")
	const source = `
machine("uml")
container(name = "a", rootfs = host_root(), args = ["/t/inside", "tick"], mounts = [bind("tools", "/t")])
`
	// The kernel's process is the supervisor's child; below that are a thread for
	// disks, of which there are none, and the address spaces of the guest's
	// processes.
	for _, c := range []struct {
		name   string
		victim func(tree []process) process
		says   string
	}{
		{"the kernel", func(tree []process) process { return tree[1] }, "machine: killed"},
		{"the address space of the agent", func(tree []process) process { return traced(tree)[0] }, "machine: "},
		{"the address space of the workload", func(tree []process) process { return traced(tree)[1] }, ""},
		{"the supervisor", func(tree []process) process { return tree[0] }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			var errs bytes.Buffer
			cmd := r.command("run", "-q", r.write("pod.star", source))
			cmd.Stderr = &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			// The pod is "running" in `seki ps` as soon as it has a supervisor.
			var tree []process
			if !within(20*time.Second, func() bool {
				tree = below(cmd.Process.Pid)
				return r.status("pod", "a") == "running" && len(traced(tree)) == 2
			}) {
				t.Fatalf("the pod does not run: processes %v, %s", tree, errs.String())
			}
			own := map[string]bool{}
			for _, dir := range cgroupsOf(os.Getpid()) {
				own[dir] = true
			}
			var groups []string
			for _, dir := range cgroupsOf(tree[1].pid) {
				if !own[dir] {
					groups = append(groups, dir)
				}
			}
			victim := c.victim(tree)
			if err := unix.Kill(victim.pid, unix.SIGKILL); err != nil {
				t.Fatalf("kill %v: %v", victim, err)
			}
			// What does not run does not notice that it is no more.
			r.seki("exec", "pod/a", "--", "true")
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Fatalf("the pod goes on for 20 s after %v was killed", victim)
			}
			if code := cmd.ProcessState.ExitCode(); code == 0 || !strings.Contains(errs.String(), c.says) {
				t.Errorf("exit code %d, and it says %q; want %q", code, errs.String(), c.says)
			}
			t.Logf("killed %v of %d, exit code %d: %s", victim, len(tree), cmd.ProcessState.ExitCode(), strings.TrimSpace(errs.String()))
			if !within(5*time.Second, func() bool {
				for _, p := range tree {
					if p.lives() {
						return false
					}
				}
				return true
			}) {
				t.Errorf("of %v some live", tree)
			}
			// The next start cleans up, and works.
			r.must("run", "-q", r.write("next.star", `container(name = "n", rootfs = host_root(), args = ["true"])`+"\n"+`machine("uml")`))
			for _, dir := range groups {
				if _, err := os.Stat(dir); err == nil {
					t.Errorf("control group %s is left", dir)
				}
			}
			if left := r.pods(); len(left) > 0 {
				t.Errorf("pods %v are left", left)
			}
		})
	}
}

// TestMachineStandsStill: a guest that does nothing any more cannot keep its pod from
// being stopped.
func TestMachineStandsStill(t *testing.T) {
	require(t, "root", "uml")
	r := newRig(t)
	r.start("pod", `
machine("uml")
container(name = "a", rootfs = host_root(), args = ["/t/inside", "idle"], mounts = [bind("tools", "/t")])
`)
	tree := below(r.ps()[0].Pid)
	if err := unix.Kill(tree[1].pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r.must("stop", "--timeout", "1s", "pod")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, p := range tree {
		if !within(5*time.Second, func() bool { return !p.lives() }) {
			t.Errorf("%v lives", p)
		}
	}
}
