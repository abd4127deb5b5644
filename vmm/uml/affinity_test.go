package uml_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/uml"
)

// processors are those that the threads of a process may use, as one word for each
// choice that there is.
func processors(t *testing.T, pids ...int) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, pid := range pids {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
			if err != nil {
				continue // a thread that has ended
			}
			_, list, _ := strings.Cut(string(b), "Cpus_allowed_list:\t")
			list, _, _ = strings.Cut(list, "\n")
			all[list] = true
		}
	}
	return all
}

// TestAffinity: a machine, its programs and this process are on one processor; they move,
// all of them, when somebody else wants that one, unless the others are as busy; and in
// the end this process may use what it could before.
func TestAffinity(t *testing.T) {
	k := requireKernel(t)
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	require(t, "two processors", allowed.Count() > 1)
	before := processors(t, os.Getpid())
	c := config(k, archive(t, compile(t, "init.c")))
	c.Append, c.OneCPU = []string{"do=tree"}, true
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
	where := func() map[string]bool {
		return processors(t, append(descendants(m.PID()), m.PID(), os.Getpid())...)
	}
	if n := len(descendants(m.PID())); n < 3 {
		t.Errorf("%d processes of the machine", n)
	}
	first := where()
	if len(first) != 1 {
		t.Fatalf("processors %v; want one for all", first)
	}
	var cpu int
	for list := range first {
		if cpu, err = strconv.Atoi(list); err != nil {
			t.Fatalf("processors %q; want one", list)
		}
	}
	hog(t, cpu)
	for moved, tries := false, 0; !moved; tries++ {
		was := uml.Idle()
		select {
		case <-m.Done():
			t.Fatal(m.Wait())
		case <-time.After(time.Second):
			now := where() // while it moves, some have and some have not
			moved = len(now) == 1 && !now[strconv.Itoa(cpu)]
		}
		// A machine that does nothing looks every four seconds.
		if best, idle := calmest(was, uml.Idle(), cpu); tries > 10 && idle > 700*time.Millisecond {
			t.Fatalf("the machine stays on processor %d, where somebody else is; %d was idle for %v of a second", cpu, best, idle)
		} else if tries > 10 {
			t.Logf("all processors are busy: the machine stays on %d", cpu)
			break
		}
	}
	m.Close()
	for i := 0; !before[list(processors(t, os.Getpid()))]; i++ {
		if i == 100 {
			t.Fatalf("processors %v; before %v", processors(t, os.Getpid()), before)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// calmest is the processor that was idle for longest, but that one.
func calmest(was, is map[int]time.Duration, but int) (cpu int, idle time.Duration) {
	for c := range is {
		if d := is[c] - was[c]; c != but && d > idle {
			cpu, idle = c, d
		}
	}
	return cpu, idle
}

func list(m map[string]bool) string {
	var all []string
	for l := range m {
		all = append(all, l)
	}
	return strings.Join(all, " ")
}

// hog is somebody else, who takes all that he gets of that processor.
func hog(t *testing.T, cpu int) {
	t.Helper()
	// Not a child of this process, which is the machine's: the shell between ends.
	out, err := exec.Command("sh", "-c", "while :; do :; done >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Kill(pid, unix.SIGKILL) })
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(pid, &one); err != nil {
		t.Fatal(err)
	}
}
