package linux

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle/bundle"
)

// This file is inside the package to make single calls of a script fail.

// leftovers is what a container could leave behind: mounts, cgroups, children,
// descriptors.
func leftovers(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	b.Write(mounts)
	for _, c := range controllers() {
		dirs, _ := filepath.Glob(filepath.Join(cgroupRoot, c, "seki/faults/*"))
		b.WriteString(strings.Join(dirs, "\n"))
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range tasks {
		data, _ := os.ReadFile(f)
		b.Write(data)
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if !strings.Contains(to, "anon_inode:[event") && to != "/proc/self/fd" && !strings.HasSuffix(to, "/fd") {
			b.WriteString(fd.Name() + " " + to + "\n")
		}
	}
	return b.String()
}

func faultConfig(t *testing.T) Config {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox")
	}
	os.Mkdir(filepath.Join(dir, "bin"), 0o755)
	os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755)
	s := bundle.Default("c")
	s.Root = bundle.RootFS{Kind: bundle.RootDir, Path: dir, Overlay: true}
	s.OCI.Process.Args = []string{"/bin/busybox", "true"}
	s.OCI.Root.Readonly = true
	return Config{ID: "faults/c", Spec: s, IDBase: 1 << 20}
}

// Every step of the script fails once. The error names the step, and nothing is
// left behind.
func TestEveryStepFails(t *testing.T) {
	cfg := faultConfig(t)
	newFault := func(at int) (steps []int, err error) {
		change := func(s *script) {
			last := -1
			for pc, o := range s.ops {
				if int(o.step) != last && o.nr < opGate {
					steps = append(steps, pc)
					last = int(o.step)
				}
			}
			if at >= 0 {
				o := &s.ops[steps[at]]
				o.nr, o.on = 999, [3]branch{} // no such call: ENOSYS
			}
		}
		c, err := create(context.Background(), cfg, change)
		if err != nil {
			return steps, err
		}
		err = c.Prepare(context.Background())
		if err == nil {
			err = c.Start(context.Background())
		}
		if err == nil {
			_, err = c.Wait()
		}
		return steps, errors.Join(err, c.Destroy())
	}
	steps, err := newFault(-1) // also warms up what stays open on purpose
	if err != nil {
		t.Fatal(err)
	}
	before := leftovers(t)
	seen := 0
	for i := range steps {
		_, err := newFault(i)
		var step *StepError
		if !errors.As(err, &step) {
			// A masked path that does not exist is passed over: its later calls never run.
			t.Errorf("step %d: %v", i, err)
			continue
		}
		if step.Err != unix.ENOSYS {
			t.Errorf("step %d: %v", i, err)
		}
		seen++
		if after := leftovers(t); after != before {
			t.Fatalf("step %d (%s): left behind:\n%s\nwas:\n%s", i, step.Step, after, before)
		}
	}
	t.Logf("%d of %d steps", seen, len(steps))
}

// What the parent does can fail, too.
func TestParentFails(t *testing.T) {
	newConfig := func() Config { return faultConfig(t) }
	c, err := Create(context.Background(), newConfig())
	if err != nil {
		t.Fatal(err)
	}
	c.Destroy()
	before := leftovers(t)
	cases := map[string]func(*Config){
		"a controller's limit":  func(c *Config) { c.Spec.OCI.Linux = withBadLimit(*c.Spec.OCI.Linux) },
		"rootfs":                func(c *Config) { c.Spec.Root.Path = "/nonexistent" },
		"an unknown mount type": func(c *Config) { c.Spec.OCI.Mounts[1].Type = "nosuchfs" },
		"an id map":             func(c *Config) { c.IDBase = 0 },
		"a device":              func(c *Config) { c.Spec.OCI.Linux.Namespaces[0].Path = "/dev/null" },
		"a user":                func(c *Config) { c.Spec.OCI.Process.User.Username = "nobody-there" },
		"an oom score":          func(c *Config) { n := -1001; c.Spec.OCI.Process.OOMScoreAdj = &n },
		"a capability":          func(c *Config) { c.Spec.OCI.Process.Capabilities.Bounding = []string{"CAP_NONESUCH"} },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig()
			spoil(&cfg)
			c, err := Create(context.Background(), cfg)
			if err == nil {
				if err = c.Prepare(context.Background()); err == nil {
					err = c.Start(context.Background())
				}
				if e := c.Destroy(); e != nil {
					t.Error(e)
				}
			}
			if err == nil {
				t.Error("no error")
			}
			if after := leftovers(t); after != before {
				t.Errorf("%v: left behind:\n%s\nwas:\n%s", err, after, before)
			}
		})
	}
}

// A child that is killed at any point is reported as such.
func TestKilledWhilePreparing(t *testing.T) {
	cfg := faultConfig(t)
	c, err := Create(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	syscall.Kill(c.Pid(), syscall.SIGKILL)
	if err := c.Prepare(context.Background()); !errors.Is(err, errKilled) || !strings.Contains(err.Error(), "process was killed") {
		t.Errorf("got %v", err)
	}
}

// withBadLimit asks for a processor that this machine does not have.
func withBadLimit(l specs.Linux) *specs.Linux {
	l.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}
	return &l
}
