package linux

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// useV2 points the package at a cgroup v2 hierarchy for the length of a test: on
// a host with v1 controllers the empty one beside them. It has no limits, but
// all else.
func useV2(t *testing.T) {
	if unified() {
		return
	}
	var st unix.Statfs_t
	const beside = "/sys/fs/cgroup/unified"
	if unix.Statfs(beside, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Skip("needs cgroup v2")
	}
	oldRoot, oldUnified := cgroupRoot, unified
	cgroupRoot, unified = beside, func() bool { return true }
	t.Cleanup(func() { cgroupRoot, unified = oldRoot, oldUnified })
}

// On v2 the child is cloned into its group, devices are denied by a program,
// all processes are killed by one write, and nothing is left.
func TestUnified(t *testing.T) {
	cfg := faultConfig(t)
	useV2(t)
	cfg.ID = "faults/v2"
	cfg.Spec.OCI.Process.Args = []string{"/bin/busybox", "sh", "-c", "/bin/busybox cat /proc/self/cgroup; /bin/busybox ls /sys/fs/cgroup; /bin/busybox mknod /dev/shm/k c 10 200; /bin/busybox cat /dev/shm/k; /bin/busybox mknod /dev/shm/full c 1 7; /bin/busybox head -c 1 /dev/shm/full | /bin/busybox wc -c; echo x > /dev/null && echo null; /bin/busybox sleep 100"}
	// As real root, so that the kernel lets nodes be made, and the filter decides.
	cfg.Spec.OCI.Linux.Namespaces = cfg.Spec.OCI.Linux.Namespaces[1:]
	caps := cfg.Spec.OCI.Process.Capabilities
	caps.Bounding, caps.Effective, caps.Permitted = append(caps.Bounding, "CAP_MKNOD"), append(caps.Effective, "CAP_MKNOD"), append(caps.Permitted, "CAP_MKNOD")
	for i, m := range cfg.Spec.OCI.Mounts {
		if m.Destination == "/dev/shm" {
			cfg.Spec.OCI.Mounts[i].Options = []string{"nosuid"}
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cfg.Stdio = [3]*os.File{nil, w, w}
	c, err := Create(context.Background(), cfg)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	if err := errors.Join(c.Prepare(t.Context()), c.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(out.String(), "null\n") {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", &out, err)
		}
		out.Write(buf[:n])
	}
	for _, want := range []string{"0::/\n", "cgroup.procs\n", "cat: can't open '/dev/shm/k': Operation not permitted\n", "\n1\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
	p, err := c.Exec(t.Context(), ExecConfig{Args: []string{"/bin/busybox", "sleep", "100"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cgroupRoot, "seki+faults+v2")
	pids, err := readPids(dir)
	if err != nil || len(pids) < 2 { // the shell or its last command, and the other sleep
		t.Errorf("processes %v, %v", pids, err)
	}
	if _, err := c.Stats(); err != nil {
		t.Error(err)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	if st, err := p.Wait(); err != nil || st.Signal != unix.SIGKILL {
		t.Errorf("exec: %+v, %v", st, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}
