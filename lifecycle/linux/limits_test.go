package linux_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/linux"
)

func TestMemoryLimit(t *testing.T) {
	limit := int64(16 << 20)
	s := sh(t, "echo ready; read x; tail /dev/zero")
	s.OCI.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	s.OCI.Process.Args[2] = "echo ready; tail /dev/zero; echo $?; sleep 100"
	b := start(t, s)
	events, err := b.OOMEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.line(t)
	select {
	case <-events:
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	b.line(t)
	if l := b.line(t); l != "137" && !strings.Contains(l, "Killed") {
		t.Errorf("tail ended with %s", l)
	}
	st, err := b.Stats()
	if err != nil || st.OOMKills != 1 || st.MemoryLimit != 16<<20 || st.MemoryPeak < 15<<20 || st.Pids == 0 || st.CPUNanos == 0 {
		t.Errorf("got %+v, %v", st, err)
	}
	b.Destroy()
	for range events { // closed when the container is gone
	}
}

func TestPidsLimit(t *testing.T) {
	n := int64(8)
	s := sh(t, "i=0; while [ $i -lt 20 ]; do sleep 100 & i=$((i+1)); done 2>/dev/null; echo not reached")
	s.OCI.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}
	b := start(t, s)
	b.Wait()
	st, _ := b.Stats()
	if st.Pids > 8 {
		t.Errorf("%d processes", st.Pids)
	}
	out := make([]byte, 100)
	b.out.SetReadDeadline(time.Now().Add(time.Second))
	if k, _ := b.out.Read(out); strings.Contains(string(out[:k]), "not reached") {
		t.Error("20 processes")
	}
}

func TestCPULimit(t *testing.T) {
	quota, period := int64(20000), uint64(100000)
	script, says := "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpuset.cpus", "20000 100000\n0\n"
	if exists("/sys/fs/cgroup/cpu") { // v1
		script, says = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "20000\n"
	}
	s := sh(t, script)
	s.OCI.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period, Cpus: "0"}}
	want(t, s, says)
}

func TestRlimits(t *testing.T) {
	s := sh(t, "ulimit -n; ulimit -Hn; ulimit -c")
	s.OCI.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128}, {Type: "RLIMIT_CORE"}}
	want(t, s, "64\n128\n0\n")
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		t.Fatal(err)
	}
	s.OCI.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: have.Max + 1}}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: have.Cur, Max: have.Max + 1}); err == nil {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &have)
		t.Skip("this root may raise limits")
	}
	if err := fails(t, s); !strings.Contains(err.Error(), fmt.Sprintf("raising the hard limit from %d to %d needs CAP_SYS_RESOURCE", have.Max, have.Max+1)) {
		t.Errorf("got %v", err)
	}
}

func TestOOMScore(t *testing.T) {
	n := 500
	s := sh(t, "cat /proc/self/oom_score_adj")
	s.OCI.Process.OOMScoreAdj = &n
	want(t, s, "500\n")
}

func TestBindMounts(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	os.WriteFile(filepath.Join(dir, "f"), []byte("data\n"), 0o644)
	os.Mkdir(filepath.Join(dir, "sub"), 0o755)
	if err := unix.Mount("tmpfs", filepath.Join(dir, "sub"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(dir, "sub"), unix.MNT_DETACH)
	bind := func(script, source, dest string, options ...string) *bundle.Spec {
		s := sh(t, script)
		s.OCI.Mounts = append(s.OCI.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: source, Options: options})
		return s
	}
	t.Run("writable, owners as on the host", func(t *testing.T) {
		want(t, bind("cat /a/b/f; stat -c %u /a/b/f; echo x > /a/b/new; touch /a/b/sub/y && echo sub", dir, "/a/b", "rbind"), "data\n0\nsub\n")
		if st, err := os.Stat(filepath.Join(dir, "new")); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("on the host: %v, %v", st, err)
		}
	})
	t.Run("read-only, all the way down", func(t *testing.T) {
		want(t, bind("{ echo x > /m/f; echo x > /m/sub/f; } 2>&-; touch /m/sub/z 2>&- && echo wrote; cat /m/f", dir, "/m", "rbind", "ro", "rro"), "data\n")
	})
	t.Run("not recursive", func(t *testing.T) { want(t, bind("ls /m/sub", dir, "/m", "bind"), "") })
	t.Run("a file", func(t *testing.T) {
		want(t, bind("cat /etc/x/y", filepath.Join(dir, "f"), "/etc/x/y", "bind", "ro"), "data\n")
	})
	t.Run("missing source", func(t *testing.T) {
		if err := fails(t, bind("true", "/nonexistent/x", "/m", "bind")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "mount /m") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("unknown option", func(t *testing.T) {
		s := sh(t, "true")
		s.OCI.Mounts = append(s.OCI.Mounts, specs.Mount{Destination: "/m", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuchoption=1"}})
		if err := fails(t, s); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "mount /m") {
			t.Errorf("got %v", err)
		}
	})
}

func TestJoinNamespaces(t *testing.T) {
	first := start(t, spec(t, "sleep", "100"))
	for _, types := range [][]specs.LinuxNamespaceType{
		{specs.NetworkNamespace},
		{specs.UserNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace},
		{specs.UserNamespace, specs.PIDNamespace},
	} {
		s := sh(t, "for n in user net ipc uts pid mnt; do readlink /proc/self/ns/$n; done; ps | wc -l")
		if len(types) == 1 {
			// A foreign network namespace cannot be configured from another user namespace.
			s.OCI.Linux.Sysctl = nil
			s.OCI.Mounts = append(s.OCI.Mounts[:5:5], s.OCI.Mounts[6:]...)
		}
		for i, n := range s.OCI.Linux.Namespaces {
			for _, typ := range types {
				if n.Type == typ {
					name := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.UserNamespace: "user", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.PIDNamespace: "pid"}[typ]
					s.OCI.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", first.Pid(), name)
				}
			}
		}
		if types[0] == specs.UserNamespace {
			s.OCI.Linux.Sysctl = nil
			s.OCI.Hostname = ""
			s.Root.Overlay = true
			if len(types) == 2 {
				s.OCI.Mounts = append(s.OCI.Mounts[:5:5], s.OCI.Mounts[6:]...) // its network namespace is new, sysfs would do
			}
		}
		out, st := run(t, s)
		lines := strings.Fields(out)
		if st.Code != 0 || len(lines) < 6 {
			t.Errorf("%v: %q, %+v", types, out, st)
			continue
		}
		for i, n := range []string{"user", "net", "ipc", "uts", "pid", "mnt"} {
			theirs, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", first.Pid(), n))
			joined := false
			for _, typ := range types {
				joined = joined || string(typ) == n || typ == specs.NetworkNamespace && n == "net"
			}
			if (lines[i] == theirs) != joined {
				t.Errorf("%v: %s is %s, the first container's %s", types, n, lines[i], theirs)
			}
		}
	}
}

// terminal opens a pseudo terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.IoctlRetInt(int(master.Fd()), unix.TIOCGPTPEER)
	if err != nil {
		n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
		if err != nil {
			t.Fatal(err)
		}
		if fd, err = unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
	}
	slave = os.NewFile(uintptr(fd), "slave")
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestTerminal(t *testing.T) {
	master, slave := terminal(t)
	s := sh(t, "test -t 0 && test -c /dev/console && echo ok > /dev/tty; stat -c %t /dev/console")
	s.OCI.Process.Terminal = true
	c, err := linux.Create(t.Context(), linux.Config{ID: "test/terminal", Spec: s, Stdio: [3]*os.File{slave, slave, slave}, IDBase: idBase})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	if err := errors.Join(c.Prepare(t.Context()), c.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, _ := master.Read(buf)
	if got := string(buf[:n]); !strings.HasPrefix(got, "ok\r\n") {
		t.Errorf("got %q", got)
	}
	s.OCI.Process.Terminal = true
	if err := fails(t, s); !strings.Contains(err.Error(), "standard input is none") {
		t.Errorf("no terminal: %v", err)
	}
}

func TestReaper(t *testing.T) {
	reaper := func(script string) *bundle.Spec {
		s := sh(t, script)
		s.Reaper = true
		return s
	}
	t.Run("exit code", func(t *testing.T) {
		if _, st := run(t, reaper("exit 9")); st.Code != 9 {
			t.Errorf("got %+v", st)
		}
	})
	t.Run("workload killed", func(t *testing.T) {
		if _, st := run(t, reaper("kill -9 $$")); st.Code != 137 {
			t.Errorf("got %+v", st)
		}
	})
	t.Run("no zombies", func(t *testing.T) {
		out, _ := run(t, reaper("i=0; while [ $i -lt 20 ]; do (sleep 0.01 &); i=$((i+1)); done; sleep 0.3; cat /proc/[0-9]*/status | grep -c 'State:.Z'; echo $$"))
		if out != "0\n2\n" {
			t.Errorf("got %q", out)
		}
	})
	t.Run("signals", func(t *testing.T) {
		b := start(t, reaper("trap 'echo got; exit 4' TERM USR1; echo ready; while :; do sleep 0.05; done"))
		b.line(t)
		b.Signal(syscall.SIGUSR1)
		if l := b.line(t); l != "got" {
			t.Errorf("got %q", l)
		}
		if st, _ := b.Wait(); st.Code != 4 {
			t.Errorf("got %+v", st)
		}
	})
	t.Run("memory", func(t *testing.T) {
		b := start(t, reaper("echo ready; sleep 100"))
		b.line(t)
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", b.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		pss := 0
		for l := range strings.Lines(string(data)) {
			if f := strings.Fields(l); f[0] == "Pss:" {
				pss, _ = strconv.Atoi(f[1])
			}
		}
		if pss == 0 || pss > 64 {
			t.Errorf("%d KiB", pss)
		}
		t.Logf("proportional set size %d KiB", pss)
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.Pid()))
		if len(fds) != 0 {
			t.Errorf("%d open files", len(fds))
		}
	})
	t.Run("last process ends the rest", func(t *testing.T) {
		b := start(t, reaper("sleep 1000 & echo ready; exit 2"))
		b.line(t)
		if st, err := b.Wait(); err != nil || st.Code != 2 {
			t.Errorf("got %+v, %v", st, err)
		}
	})
}

// TestMain also plays the supervisor that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SEKI_TEST_SUPERVISOR"); dir != "" {
		supervise(dir)
		return
	}
	os.Exit(m.Run())
}

// supervise starts a container on the root directory dir, prints its record and
// sleeps for ever.
func supervise(dir string) {
	s := bundle.Default("c")
	s.Root = bundle.RootFS{Kind: bundle.RootDir, Path: dir, Overlay: true}
	s.OCI.Process.Args = []string{"sh", "-c", "sleep 1000 & sleep 1000"}
	c, err := linux.Create(context.Background(), linux.Config{ID: "test/killed", Spec: s, IDBase: idBase})
	if err == nil && os.Getenv("SEKI_TEST_STAGE") == "started" {
		err = errors.Join(c.Prepare(context.Background()), c.Start(context.Background()))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(c.Record())
	select {}
}

func TestSupervisorKilled(t *testing.T) {
	for _, stage := range []string{"created", "started"} {
		t.Run(stage, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "SEKI_TEST_SUPERVISOR="+rootfs(t), "SEKI_TEST_STAGE="+stage)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var r linux.Record
			if err := json.NewDecoder(out).Decode(&r); err != nil {
				rest, _ := io.ReadAll(out)
				t.Fatalf("%v %s", err, rest)
			}
			cmd.Process.Kill()
			cmd.Wait()
			begin := time.Now()
			if err := linux.Reap(t.Context(), r); err != nil {
				t.Error(err)
			}
			if d := time.Since(begin); d > 2*time.Second {
				t.Errorf("took %v", d)
			}
			if err := syscall.Kill(r.Pid, 0); err == nil && !zombie(r.Pid) {
				t.Errorf("process %d lives", r.Pid)
			}
			for _, d := range r.Cgroups {
				if exists(d) {
					t.Errorf("%s is left", d)
				}
			}
			if err := linux.Reap(t.Context(), r); err != nil { // idempotent
				t.Error(err)
			}
		})
	}
}

func zombie(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}

// A record of a process id that now belongs to somebody else kills nobody.
func TestReapSparesOthers(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms, and these two must differ
	b := start(t, spec(t, "sleep", "100"))
	r := b.Record()
	r.Pid = cmd.Process.Pid
	r.Cgroups = nil
	if err := linux.Reap(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil || zombie(cmd.Process.Pid) {
		t.Errorf("the other process: %v", err)
	}
	r.Cgroups = []string{"/etc"}
	if err := linux.Reap(t.Context(), r); err == nil {
		t.Error("removed /etc as a cgroup")
	}
}

func TestPlan(t *testing.T) {
	s := spec(t, "sleep", "100")
	r, err := linux.Plan(linux.Config{ID: "test/plan", Spec: s, IDBase: idBase})
	if err != nil || len(r.Cgroups) == 0 || r.Pid != 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if _, err := linux.Create(t.Context(), linux.Config{ID: "test/plan", Spec: s, IDBase: idBase}); err != nil {
		t.Fatal(err)
	}
	if err := linux.Reap(t.Context(), r); err != nil { // with the plan alone
		t.Error(err)
	}
	if exists(r.Cgroups[0]) {
		t.Error("cgroup is left")
	}
}
