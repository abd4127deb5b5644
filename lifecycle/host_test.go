package lifecycle_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/store"
)

// requireRoot skips a test that needs to make namespaces, unless the
// environment says that root must be there.
func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	for _, f := range strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ",") {
		if f == "root" {
			t.Fatal("root is required and missing")
		}
	}
	t.Skip("missing feature: root")
}

// busybox makes a root directory with a busybox in it, and returns a
// specification that runs args there.
func busybox(t testing.TB, name string, args ...string) *bundle.Spec {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"sh", "echo", "sleep", "cat", "nc", "ls", "true", "tail", "tr", "kill", "stty", "tty"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", n)); err != nil {
			t.Fatal(err)
		}
	}
	s := bundle.Default(name)
	s.Root = bundle.RootFS{Kind: bundle.RootDir, Path: dir, Overlay: true}
	s.OCI.Process.Args = args
	return s
}

// shell is busybox with a script that ends on SIGTERM.
func shell(t *testing.T, name, script string) *bundle.Spec {
	return busybox(t, name, "sh", "-c", "trap 'exit 0' TERM; "+script)
}

// hostPod is the configuration of a pod on the real runtime, without network.
func hostPod(t *testing.T, specs ...*bundle.Spec) *lifecycle.PodConfig {
	t.Helper()
	requireRoot(t)
	cfg := &lifecycle.PodConfig{Name: "lifecycletest", Root: filepath.Join(t.TempDir(), "seki"), Detached: true}
	for _, s := range specs {
		cfg.Containers = append(cfg.Containers, lifecycle.Config{Spec: s})
	}
	t.Cleanup(func() { nothingLeft(t, cfg) })
	return cfg
}

// nothingLeft looks for what a pod on the host could have left.
func nothingLeft(t *testing.T, cfg *lifecycle.PodConfig) {
	t.Helper()
	if !cfg.Keep {
		if left := tree(cfg.Root); len(left) != 0 {
			t.Errorf("left in the state directory: %q", left)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/seki+" + cfg.Name + "+*", "/sys/fs/cgroup/*/seki+" + cfg.Name + "+*"} {
		if left, _ := filepath.Glob(pattern); len(left) != 0 {
			t.Errorf("cgroups left: %q", left)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), cfg.Root) {
		t.Errorf("mounts left under %s", cfg.Root)
	}
}

func TestHostExitCode(t *testing.T) {
	cfg := hostPod(t, busybox(t, "a", "sh", "-c", "echo out; echo err >&2; exit 7"))
	cfg.Keep = true
	p, err := lifecycle.Start(context.Background(), *cfg)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := wait(t, p); code != 7 || err != nil {
		t.Errorf("Wait() = %d, %v; want 7, nil", code, err)
	}
	got := make(map[string]string)
	for _, r := range readLog(t, cfg.Root, "a") {
		got[r.Stream] += r.Line + "\n"
	}
	if got["stdout"] != "out\n" || got["stderr"] != "err\n" {
		t.Errorf("log = %q; want out and err", got)
	}
}

// readLog reads the log of a container of the one pod under root.
func readLog(t *testing.T, root, container string) []lifecycle.LogRecord {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(root, "pods", "*", store.LogName(container)))
	if len(files) != 1 {
		t.Fatalf("logs of %q: %q", container, files)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var list []lifecycle.LogRecord
	for line := range strings.Lines(string(b)) {
		var r lifecycle.LogRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		list = append(list, r)
	}
	return list
}

// awaitTrap waits until the process handles SIGTERM: until then process 1 of a
// pid namespace does not get it.
func awaitTrap(t *testing.T, pid int) {
	t.Helper()
	for range 1000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		var mask uint64
		_, rest, _ := strings.Cut(string(b), "\nSigCgt:")
		fmt.Sscanf(rest, "%x", &mask)
		if mask>>(syscall.SIGTERM-1)&1 == 1 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("process %d sets no trap", pid)
}

// TestHostStop stops what handles the signal, and what cannot.
func TestHostStop(t *testing.T) {
	cfg := hostPod(t, shell(t, "handles", "while :; do sleep 0.05; done"), busybox(t, "ignores", "sleep", "1000"))
	p, err := lifecycle.Start(context.Background(), *cfg)
	if err != nil {
		t.Fatal(err)
	}
	awaitTrap(t, p.Container("handles").Pid())
	began := time.Now()
	if err := p.Stop(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("Stop() took %v; process 1 without a handler must be killed at once", d)
	}
	if code, err := wait(t, p); code != 0 || err != nil {
		t.Errorf("Wait() = %d, %v; want 0, nil", code, err)
	}
	if st := p.Container("handles").ExitStatus(); st != 0 {
		t.Errorf("the container with a handler ended with %d; want 0", st)
	}
	if st := p.Container("ignores").ExitStatus(); st != 128+9 {
		t.Errorf("the container without a handler ended with %d; want 137", st)
	}
}

// TestHostStartFails has a workload that cannot be executed after one that
// already runs.
func TestHostStartFails(t *testing.T) {
	cfg := hostPod(t, busybox(t, "good", "sleep", "1000"), busybox(t, "bad", "/bin/nonesuch"))
	_, err := lifecycle.Start(context.Background(), *cfg)
	if err == nil || !strings.Contains(err.Error(), `container "bad": start: `) {
		t.Errorf("Start() = %v", err)
	}
}

func TestHostReadyTCP(t *testing.T) {
	cfg := hostPod(t, shell(t, "a", "sleep 0.3; nc -l -p 8080 & wait"))
	cfg.Containers[0].Ready = &lifecycle.Probe{TCP: 8080, Interval: 20 * time.Millisecond}
	ready := make(chan time.Duration, 1)
	began := time.Now()
	cfg.Containers[0].Hooks = []lifecycle.Hook{{Point: lifecycle.Ready, Name: "ready",
		Run: func(context.Context, *lifecycle.Container, lifecycle.Event) error {
			ready <- time.Since(began)
			return nil
		}}}
	p, err := lifecycle.Start(context.Background(), *cfg)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case d := <-ready:
		if d < 250*time.Millisecond {
			t.Errorf("ready after %v, before anything listened", d)
		}
	case <-time.After(10 * time.Second):
		t.Error("never ready")
	}
	p.Kill()
	wait(t, p)
}

func TestHostExec(t *testing.T) {
	cfg := hostPod(t, busybox(t, "a", "sleep", "1000"))
	p, err := lifecycle.Start(context.Background(), *cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer wait(t, p)
	defer p.Kill()
	res, err := p.Container("a").Output(context.Background(), []string{"sh", "-c", "echo hello; echo oops >&2; exit 3"})
	want := lifecycle.ExecResult{Status: 3, Stdout: "hello\n", Stderr: "oops\n"}
	if err != nil || res != want {
		t.Errorf("Output() = %+v, %v; want %+v", res, err, want)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if res, err := p.Container("a").Output(ctx, []string{"sleep", "1000"}); res.Status != 128+9 || err == nil {
		t.Errorf("Output() beyond its time = %+v, %v; want status 137 and an error", res, err)
	}
}

func TestHostOOM(t *testing.T) {
	s := shell(t, "a", "while :; do sleep 0.05; done")
	limit := int64(32 << 20)
	s.OCI.Linux.Resources = memoryLimit(limit)
	cfg := hostPod(t, s)
	killed := make(chan uint64, 8)
	cfg.Containers[0].Hooks = []lifecycle.Hook{{Point: lifecycle.OOM, Name: "oom",
		Run: func(_ context.Context, _ *lifecycle.Container, e lifecycle.Event) error {
			killed <- e.Count
			return nil
		}}}
	p, err := lifecycle.Start(context.Background(), *cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer wait(t, p)
	defer p.Kill()
	res, err := p.Container("a").Output(context.Background(), []string{"tail", "/dev/zero"})
	if err != nil || res.Status != 128+9 {
		t.Errorf("Output() of a process that takes all memory = %+v, %v; want status 137", res, err)
	}
	select {
	case n := <-killed:
		if n != 1 {
			t.Errorf("the oom hook counts %d kills; want 1", n)
		}
	case <-time.After(5 * time.Second):
		t.Error("the oom hook has not run")
	}
}

func memoryLimit(n int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}}
}

// TestHostExecWhileKilled runs processes in a container while it is killed: each
// of them ends, one way or the other, and so does the pod.
func TestHostExecWhileKilled(t *testing.T) {
	cfg := hostPod(t, busybox(t, "a", "sleep", "1000"))
	for range 5 {
		p, err := lifecycle.Start(context.Background(), *cfg)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					if _, err := p.Container("a").Output(context.Background(), []string{"true"}); err != nil {
						return
					}
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
		p.Kill()
		wg.Wait()
		if code, err := wait(t, p); code != 137 || err != nil {
			t.Errorf("Wait() = %d, %v; want 137, nil", code, err)
		}
	}
}
