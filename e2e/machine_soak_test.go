package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// soakFile is a pod that makes one of all that a machine makes on the host.
const soakFile = `
machine("uml", memory = "96MiB")
container(
    name = "a", rootfs = host_root(), args = ["/t/inside", "idle"], stop_timeout = "1s",
    mounts = [bind("tools", "/t"), bind("rw", "/rw", readonly = False)],
    nic = nic("10.77.0.2/24", policy = policy(allow_arp = True)),
)
`

// traces are what is on the host of pods whose names begin so: processes,
// control groups, and what lies in shared memory.
func traces(t *testing.T, state, prefix string) (all []string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), "SEKI_ROOT="+state) {
			all = append(all, p)
		}
	}
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, prefix) {
			all = append(all, path)
		}
		return nil // a group that ends while we look is none of ours
	})
	for _, dir := range []string{"/dev/shm", "/run/netns"} {
		names, _ := filepath.Glob(dir + "/*" + prefix + "*")
		all = append(all, names...)
	}
	return all
}

// TestMachineSoak starts and stops pods, one after the other and as many three at
// a time; then nothing of them is left on the host. SEKI_SOAK says how many: with
// 500 it is a thousand boots.
func TestMachineSoak(t *testing.T) {
	require(t, "root", "uml")
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	if s := os.Getenv("SEKI_SOAK"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil || rounds < 1 {
			t.Fatalf("SEKI_SOAK=%s: want a number of pods", s)
		}
	}
	r := newRig(t)
	if err := os.Mkdir(filepath.Join(r.dir, "rw"), 0o755); err != nil {
		t.Fatal(err)
	}
	prefix := fmt.Sprintf("soak%d-", os.Getpid())
	var mu sync.Mutex // mu guards seen
	var seen []process
	once := func(name string) error {
		file := filepath.Join(r.dir, name+".star")
		if err := os.WriteFile(file, []byte(soakFile), 0o644); err != nil {
			return err
		}
		for _, args := range [][]string{{"run", "-d", "-q", file}, {"exec", name + "/a", "--", "true"}, nil, {"stop", name}} {
			if args == nil {
				procs, err := supervisor(r, name)
				if err != nil {
					return err
				}
				mu.Lock()
				seen = append(seen, procs...)
				mu.Unlock()
				continue
			}
			if out, err := r.command(args...).CombinedOutput(); err != nil {
				return fmt.Errorf("seki %v: %w\n%s", args, err, out)
			}
		}
		return nil
	}
	for i := range rounds {
		if err := once(fmt.Sprint(prefix, i)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for j := range (rounds + 2) / 3 {
				if err := once(fmt.Sprint(prefix, i, "-", j)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if len(seen) < 4*rounds {
		t.Errorf("%d processes seen in %d pods: it looked in the wrong place", len(seen), 2*rounds)
	}
	var left []string
	if !within(5*time.Second, func() bool {
		left = traces(t, r.state, prefix)
		for _, p := range seen {
			if p.lives() {
				left = append(left, fmt.Sprint(p))
			}
		}
		return len(left) == 0
	}) {
		t.Errorf("left: %v", left)
	}
}

// supervisor is the supervisor of a pod and all below it.
func supervisor(r *rig, pod string) ([]process, error) {
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	for _, p := range procs {
		var pid int
		b, err := os.ReadFile(p)
		if err != nil || !strings.Contains(string(b), "SEKI_ROOT="+r.state) {
			continue
		}
		if words, err := os.ReadFile(filepath.Dir(p) + "/cmdline"); err != nil || !strings.Contains(string(words), "run\x00") || !strings.Contains(string(words), "/"+pod+".star") {
			continue
		}
		if _, err := fmt.Sscanf(p, "/proc/%d/", &pid); err != nil {
			return nil, err
		}
		if all := below(pid); len(all) > 1 {
			return all, nil
		}
	}
	return nil, fmt.Errorf("pod %s: no supervisor seen", pod)
}
