package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// startRounds is the least number of container starts of each kind.
const startRounds = 21

// settle is between two starts of which one must not see the other. The kernel
// tears a network namespace down after its last process is gone, under the
// lock that whoever makes a card needs; it may take tens of milliseconds.
const settle = 100 * time.Millisecond

// start measures a container that says hello, from the start of the command to
// its end: ours with NIC, policy, cgroup limits and seccomp, crun's without a
// NIC. Wall clock, taking turns.
//
// There are two bars, for they tell different things. On a machine at rest crun
// waits for the whole grace period that its write to cgroup.procs begins. Back to
// back that period is already running, so it is processor time that counts; and
// a card takes the lock that the end of the other's namespace holds.
func start(w io.Writer, rounds int) ([]bar, error) {
	dir, err := os.MkdirTemp("", "seki-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// Where it would be by default, and where crun's is: below /run, which is a
	// tmpfs on most machines.
	state, err := os.MkdirTemp("/run", "seki-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(state)
	starters, err := newStarters(dir, state)
	if err != nil {
		return nil, err
	}
	rounds = max(rounds, startRounds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "Starting a container that says hello, start to exit: ms of wall clock\n\n")
	fmt.Fprintf(t, "runtime\trounds\tleast\tmedian\t90 %%\tcpu\tx crun\t\n")
	var bars []bar
	for _, apart := range []time.Duration{settle, 0} {
		if err := taketurns(starters, rounds, apart); err != nil {
			return nil, err
		}
		how := "at rest"
		if apart == 0 {
			how = "back to back"
		}
		peer := starters[len(starters)-1]
		for _, s := range starters {
			fmt.Fprintf(t, "%s, %s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t\n", s.name, how, len(s.took),
				s.at(0), s.at(0.5), s.at(0.9), ms(s.cpu)/float64(len(s.took)), duel{s.took, peer.took}.ratio())
		}
		bars = append(bars, bar{"start to exit, " + how + ": time of crun without a NIC", duel{starters[0].took, peer.took}.ratio(), startLimit, false})
	}
	t.Flush()
	return bars, nil
}

// startLimit is how much of crun's time ours may take.
const startLimit = 1

// taketurns starts each, anew, after one start that warms caches; ours is the
// first, its peer the last.
func taketurns(starters []*starter, rounds int, apart time.Duration) error {
	turn := func(n int) error {
		for j := range starters {
			s := starters[(n+j)%len(starters)]
			time.Sleep(apart)
			took, cpu, err := s.once()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.took, s.cpu = append(s.took, ms(took)), s.cpu+cpu
		}
		return nil
	}
	if err := turn(0); err != nil {
		return err
	}
	for _, s := range starters {
		s.took, s.cpu = nil, 0
	}
	so := func() duel { return duel{starters[0].took, starters[len(starters)-1].took} }
	return fight(rounds, startLimit, so, func() error { return turn(len(starters[0].took)) })
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A starter is a way to run a container.
type starter struct {
	name  string
	args  func() []string
	where func(func() error) error // runs its argument where the command can run
	took  []float64                // ms
	cpu   time.Duration            // of all of them, with the processes they waited for
}

// at is a quantile of the times.
func (s *starter) at(q float64) float64 {
	sorted := slices.Sorted(slices.Values(s.took))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

func (s *starter) once() (took, cpu time.Duration, err error) {
	err = s.where(func() error {
		args := s.args()
		var out, diag bytes.Buffer
		c := exec.Command(args[0], args[1:]...)
		c.Stdout, c.Stderr = &out, &diag
		begin := time.Now()
		err := c.Run()
		took = time.Since(begin)
		if c.ProcessState != nil {
			cpu = c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(diag.String()))
		}
		if out.String() != "hello\n" {
			return fmt.Errorf("it said %q, want hello", out.String())
		}
		return nil
	})
	return took, cpu, err
}

// newStarters prepares a root file system, our file and crun's bundle below
// dir; our state directory is state. Ours comes first, crun last.
func newStarters(dir, state string) ([]*starter, error) {
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return nil, err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755); err != nil {
		return nil, err
	}
	if err := crunBundle(dir); err != nil {
		return nil, err
	}
	crunNamespace, err := mountNamespaceForCrun()
	if err != nil {
		return nil, err
	}
	seki, err := installed(dir)
	if err != nil {
		return nil, err
	}
	// The pod is named after its file, and the name must be nobody else's.
	file := filepath.Join(dir, fmt.Sprintf("bench%d.star", os.Getpid()))
	if err := os.WriteFile(file, []byte(sekiHello), 0o644); err != nil {
		return nil, err
	}
	n := 0
	return []*starter{
		{name: "seki run: NIC, policy, cgroup, seccomp", where: func(f func() error) error { return f() }, args: func() []string {
			return []string{seki, "--root", state, "run", file}
		}},
		{name: "crun run: no NIC", where: crunNamespace, args: func() []string {
			n++
			return []string{"crun", "run", "--bundle", dir, fmt.Sprintf("seki-bench-%d-%d", os.Getpid(), n)}
		}},
	}, nil
}

// installed puts the command into dir, where it has been written as make install
// writes it: the linker leaves its output in the page cache page by page, and
// until that is dropped every start of it faults in 1 ms longer than one of a
// copy, such as crun's is.
func installed(dir string) (string, error) {
	from := *sekiPath
	if from == "" {
		from = filepath.Join(dir, "seki.built")
		if err := build(from); err != nil {
			return "", err
		}
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, "seki")
	return to, os.WriteFile(to, b, 0o755)
}

// build builds the command in its own module, with its own versions.
func build(to string) error {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sekimori").Output()
	if err != nil {
		return fmt.Errorf("find the module sekimori: %w", err)
	}
	command := exec.Command("go", "build", "-C", strings.TrimSpace(string(module)), "-trimpath", "-ldflags", "-s -w", "-o", to, "./cmd/seki")
	command.Env = append(os.Environ(), "CGO_ENABLED=0") // static, as make build has it: with libc a start takes 5 ms of processor time more
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build seki: %w: %s", err, out)
	}
	return nil
}

// sekiHello is the container of ours; its rootfs lies beside the file.
const sekiHello = `
def allow_arp(dst_ip):
    return dst_ip in net("10.99.0.0/24")

def allow_tcp(dst_ip, dst_port):
    return dst_port in (80, 443)

container(
    name = "hello",
    rootfs = dir("rootfs"),
    args = ["/bin/busybox", "echo", "hello"],
    nic = nic(ip = "10.99.0.2/24", policy = policy(allow_arp, allow_tcp, allow_ipv4 = True)),
    resources = resources(memory = "64MiB", pids = 64),
)
`

// crunBundle writes config.json: what "crun spec" writes, without a terminal
// and with our command, in the version that crun 1.8 still takes.
func crunBundle(dir string) error {
	spec := exec.Command("crun", "spec")
	spec.Dir = dir
	if out, err := spec.CombinedOutput(); err != nil {
		return fmt.Errorf("crun spec: %w: %s", err, out)
	}
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(b, &config); err != nil {
		return err
	}
	process, ok := config["process"].(map[string]any)
	if !ok {
		return errors.New("crun spec: no process in config.json")
	}
	config["ociVersion"] = "1.0.2"
	process["terminal"] = false
	process["args"] = []string{"/bin/busybox", "echo", "hello"}
	if b, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// mountNamespaceForCrun returns a way to run things in a private mount
// namespace without the cgroup v2 tree: crun 1.8.1 refuses a machine that has
// v1 controllers and v2 mounted ("cgroups in hybrid mode not supported"). It is
// made once: what it costs is not crun's.
func mountNamespaceForCrun() (func(func() error) error, error) {
	work, done := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the namespace dies with the thread
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return fmt.Errorf("private mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("private mounts: %w", err)
			}
			if err := unix.Unmount("/sys/fs/cgroup/unified", 0); err != nil && err != unix.EINVAL && err != unix.ENOENT {
				return fmt.Errorf("unmount cgroup v2: %w", err)
			}
			return nil
		}()
		for f := range work {
			done <- f()
		}
	}()
	if err := <-done; err != nil {
		return nil, err
	}
	return func(f func() error) error {
		work <- f
		return <-done
	}, nil
}
