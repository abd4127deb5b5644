package lifecycle_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/store"
)

// roleEnv turns the test binary into something else, see TestMain.
const roleEnv = "SEKI_LIFECYCLE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		os.Exit(m.Run())
	case "supervisor":
		supervise()
	case "background":
		background()
	case "stranger":
		stranger()
	}
}

// supervise is a supervisor of its own process: it reads the specifications
// from standard input, runs the pod and ends with its code.
func supervise() {
	var specs []*bundle.Spec
	if err := json.NewDecoder(os.Stdin).Decode(&specs); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	cfg := lifecycle.PodConfig{
		Name: "lifecycletest", Root: os.Getenv("ROOT"), NetworkRecord: json.RawMessage(`{"table":"t"}`),
		Stdio: lifecycle.Stdio{Out: os.Stdout, Err: os.Stderr},
	}
	for _, s := range specs {
		cfg.Containers = append(cfg.Containers, lifecycle.Config{Spec: s, StopTimeout: 5 * time.Second})
	}
	fmt.Println("starting")
	code, err := lifecycle.Run(context.Background(), cfg, func(*lifecycle.Pod) { fmt.Println("started") })
	if err != nil {
		fmt.Println("error:", err)
	}
	os.Exit(code)
}

// role returns a command that plays a role of TestMain.
func role(name string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), append(env, roleEnv+"="+name)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// A supervisor is a process that plays one.
type supervisor struct {
	*exec.Cmd
	out *bufio.Scanner
}

func startSupervisor(t *testing.T, cfg *lifecycle.PodConfig) *supervisor {
	t.Helper()
	var specs []*bundle.Spec
	for _, c := range cfg.Containers {
		specs = append(specs, c.Spec)
	}
	in, err := json.Marshal(specs)
	if err != nil {
		t.Fatal(err)
	}
	cmd := role("supervisor", "ROOT="+cfg.Root)
	cmd.Stdin = strings.NewReader(string(in))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &supervisor{cmd, bufio.NewScanner(out)}
}

// until reads lines until one is want.
func (s *supervisor) until(t *testing.T, want string) {
	t.Helper()
	for s.out.Scan() {
		if s.out.Text() == want {
			return
		}
		t.Logf("supervisor: %s", s.out.Text())
	}
	t.Fatalf("the supervisor never said %q", want)
}

// TestKilledSupervisor kills a supervisor with SIGKILL: the next clean-up leaves
// nothing, and until then the pod is known to be dead.
func TestKilledSupervisor(t *testing.T) {
	cfg := hostPod(t, busybox(t, "a", "sleep", "1000"), shell(t, "b", "sleep 1000 & wait"))
	s := startSupervisor(t, cfg)
	s.until(t, "started")
	list := listPods(t, cfg.Root)
	if len(list) != 1 || !list[0].Live || list[0].State == nil || list[0].State.Supervisor != s.Process.Pid {
		t.Fatalf("List() = %+v; want a live pod of process %d", list, s.Process.Pid)
	}
	if removed, err := lifecycle.CleanUp(t.Context(), lifecycle.CleanUpConfig{Root: cfg.Root}); len(removed) != 0 || err != nil {
		t.Fatalf("CleanUp() beside a living supervisor = %q, %v; want nothing removed", removed, err)
	}
	var pids []int
	for _, c := range list[0].State.Containers {
		pids = append(pids, c.Pid)
	}
	s.Process.Kill()
	s.Wait()
	list = listPods(t, cfg.Root)
	if len(list) != 1 || list[0].Live || list[0].State.Ended() {
		t.Fatalf("List() = %+v; want one dead pod", list)
	}
	if _, err := lifecycle.Start(t.Context(), *cfg); err == nil || !strings.Contains(err.Error(), "its supervisor died") {
		t.Errorf("Start() over a dead pod = %v", err)
	}
	if _, err := lifecycle.Dial(cfg.Root, cfg.Name); err == nil || err.Error() != `pod "lifecycletest": not running` {
		t.Errorf("Dial() of a dead pod = %v", err)
	}
	var record string
	clean := lifecycle.CleanUpConfig{Root: cfg.Root, Network: func(_ context.Context, pod string, r json.RawMessage) error {
		record = pod + " " + string(r)
		return nil
	}}
	removed, err := lifecycle.CleanUp(t.Context(), clean)
	if len(removed) != 1 || err != nil {
		t.Errorf("CleanUp() = %q, %v; want the pod removed", removed, err)
	}
	if want := `lifecycletest {"table":"t"}`; record != want {
		t.Errorf("the network's clean-up got %s; want %s", record, want)
	}
	for _, pid := range pids {
		if pid == 0 || processLives(pid) {
			t.Errorf("process %d of a container lives", pid)
		}
	}
	if removed, err := lifecycle.CleanUp(t.Context(), clean); len(removed) != 0 || err != nil {
		t.Errorf("CleanUp() again = %q, %v; want nothing", removed, err)
	}
}

// TestNameElsewhere: the clean-up after a killed supervisor leaves alone a pod
// of the same name in another state directory, which runs meanwhile.
func TestNameElsewhere(t *testing.T) {
	cfg := hostPod(t, busybox(t, "a", "sleep", "1000"))
	s := startSupervisor(t, cfg)
	s.until(t, "started")
	elsewhere := *cfg
	elsewhere.Root = filepath.Join(t.TempDir(), "elsewhere")
	p, err := lifecycle.Start(t.Context(), elsewhere)
	if err != nil {
		t.Fatalf("Start() beside a pod of that name in another directory = %v", err)
	}
	s.Process.Kill()
	s.Wait()
	if removed, err := lifecycle.CleanUp(t.Context(), lifecycle.CleanUpConfig{Root: cfg.Root}); len(removed) != 1 || err != nil {
		t.Errorf("CleanUp() = %q, %v; want the dead pod removed", removed, err)
	}
	if pid := p.Container("a").Pid(); pid == 0 || !processLives(pid) {
		t.Error("the pod elsewhere was killed")
	}
	if err := p.Stop(t.Context(), time.Second); err != nil {
		t.Error(err)
	}
	p.Wait()
}

// TestKilledWhileStarting kills supervisors at some moment of their start.
func TestKilledWhileStarting(t *testing.T) {
	cfg := hostPod(t, busybox(t, "a", "sleep", "1000"), busybox(t, "b", "sleep", "1000"))
	cut := 0
	for range 25 {
		s := startSupervisor(t, cfg)
		s.until(t, "starting")
		time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond)
		s.Process.Kill()
		rest, _ := io.ReadAll(s.StdoutRest())
		if !strings.Contains(string(rest), "started") {
			cut++
		}
		s.Wait()
		if _, err := lifecycle.CleanUp(t.Context(), lifecycle.CleanUpConfig{Root: cfg.Root}); err != nil {
			t.Fatal(err)
		}
		nothingLeft(t, cfg)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d of 25 were killed before all ran", cut)
}

// StdoutRest reads what the supervisor still has to say.
func (s *supervisor) StdoutRest() io.Reader {
	var b strings.Builder
	for s.out.Scan() {
		b.WriteString(s.out.Text() + "\n")
	}
	return strings.NewReader(b.String())
}

// TestSupervisorSignal: SIGTERM to the supervisor stops the pod, and its end is
// clean.
func TestSupervisorSignal(t *testing.T) {
	cfg := hostPod(t, shell(t, "a", "while :; do sleep 0.05; done"), shell(t, "b", "while :; do sleep 0.05; done"))
	s := startSupervisor(t, cfg)
	s.until(t, "started")
	for _, c := range listPods(t, cfg.Root)[0].State.Containers {
		awaitTrap(t, c.Pid)
	}
	s.Process.Signal(syscall.SIGTERM)
	if err := s.Wait(); err != nil {
		t.Errorf("the supervisor ended with %v; want 0", err)
	}
}

// TestSupervisorInterruptedStart: SIGTERM during the start calls it off.
func TestSupervisorInterruptedStart(t *testing.T) {
	cfg := hostPod(t, busybox(t, "a", "sleep", "1000"), busybox(t, "b", "sleep", "1000"))
	for range 10 {
		s := startSupervisor(t, cfg)
		s.until(t, "starting")
		time.Sleep(time.Duration(rand.IntN(10_000)) * time.Microsecond)
		s.Process.Signal(syscall.SIGTERM)
		io.ReadAll(s.StdoutRest())
		s.Wait()
		nothingLeft(t, cfg)
	}
}

func listPods(t *testing.T, root string) []store.Entry {
	t.Helper()
	s, err := store.OpenExisting(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// processLives reports whether there is a process pid that is not a zombie.
func processLives(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// TestCleanUpFails: what could not be removed is tried again, and does not keep
// others from being removed.
func TestCleanUpFails(t *testing.T) {
	r := newRig(t, "a")
	trouble := errors.New("device busy")
	r.fail["destroy a"] = trouble
	for _, name := range []string{"one", "two"} {
		r.cfg.Name = name
		p := r.start()
		r.exit("a", 0)
		if _, err := wait(t, p); !errors.Is(err, trouble) {
			t.Errorf("Wait() = _, %v; want %v", err, trouble)
		}
	}
	r.net.closed = 1
	clean := lifecycle.CleanUpConfig{Root: r.root, Runtime: r.rt}
	clean.Network = func(_ context.Context, pod string, _ json.RawMessage) error {
		if pod == "one" {
			return trouble
		}
		return nil
	}
	// Nothing is recorded of the network of these pods: it is not asked.
	r.fail[`reap "record a"`] = trouble
	removed, err := lifecycle.CleanUp(t.Context(), clean)
	if len(removed) != 0 || !errors.Is(err, trouble) || !strings.Contains(err.Error(), `pod "two": clean up: container "a": device busy`) {
		t.Errorf("CleanUp() = %q, %v; want both to fail", removed, err)
	}
	delete(r.fail, `reap "record a"`)
	removed, err = lifecycle.CleanUp(t.Context(), clean)
	if diff := cmp.Diff([]string{"one", "two"}, removed); diff != "" || err != nil {
		t.Errorf("CleanUp() = %v (-want +got):\n%s", err, diff)
	}
}
