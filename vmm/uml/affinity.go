package uml

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An affinity keeps a machine, and all threads of the process that serves its devices, on
// one processor of the host, and looks for a better one when others want it.
//
// There is nothing to be done at the same time: the kernel waits for its programs,
// which wait for it, and both for who serves a kick. On two processors each of those
// wakes the other, which in a virtual machine takes longer than what it is woken for:
// a first word takes 104 instead of 71 ms, one more container 55 instead of 34, and a
// container sends 5,200 datagrams a second instead of 14,000 (bench -only machine, on
// two processors of a virtual machine; medians).
type affinity struct {
	allowed unix.CPUSet // what this process had
	cpu     int
	kernel  int // its process, 0 until it is known, which is no process
}

// pinned puts the threads of this process on the processor that it runs on, for who
// is started now to be there, too. It returns nil where there is no choice, or no way
// to change it later.
func pinned() *affinity {
	a := &affinity{}
	if unix.SchedGetaffinity(0, &a.allowed) != nil || a.allowed.Count() < 2 {
		return nil
	}
	if _, err := os.Stat("/proc/thread-self/children"); err != nil {
		return nil // the machine's processes could not be found (CONFIG_PROC_CHILDREN)
	}
	self, err := readStat("/proc/thread-self/stat")
	if err != nil || a.pin(self.cpu) != nil {
		a.unpin()
		return nil
	}
	return a
}

// pin puts everybody on a processor.
func (a *affinity) pin(cpu int) error {
	var one unix.CPUSet
	one.Set(cpu)
	a.cpu = cpu
	return a.confine(&one)
}

// unpin gives everybody the choice back.
func (a *affinity) unpin() { _ = a.confine(&a.allowed) } // who cannot be told stays where he is

// confine bounds everybody: a parent before its children, for a new one has what its
// parent had.
func (a *affinity) confine(set *unix.CPUSet) error {
	if err := confine(os.Getpid(), set); err != nil {
		return err
	}
	for _, pid := range children(os.Getpid()) { // the kernel, and who makes the uplink
		if err := confine(pid, set); err != nil {
			return err
		}
	}
	for _, pid := range children(a.kernel) {
		if err := confine(pid, set); err != nil {
			return err
		}
	}
	return nil
}

// confine bounds the threads of a process, until there is none that it has not seen.
func confine(pid int, set *unix.CPUSet) error {
	seen := map[string]bool{}
	for more := true; more; {
		more = false
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if errors.Is(err, os.ErrNotExist) {
			return nil // it has ended
		}
		if err != nil {
			return err
		}
		for _, t := range tasks {
			if seen[t.Name()] {
				continue
			}
			seen[t.Name()], more = true, true
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if err := unix.SchedSetaffinity(tid, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return os.NewSyscallError("sched_setaffinity", err)
			}
		}
	}
	return nil
}

// children are the processes that the threads of pid have started.
func children(pid int) (all []int) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	for _, t := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			continue
		}
		for _, w := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(w); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// How often it is looked whether there is a better processor: an idle machine is let
// be.
const (
	shortLook = 250 * time.Millisecond
	longLook  = 4 * time.Second
)

// follow looks for a better processor, until the machine has ended.
func (a *affinity) follow(kernel int, done <-chan struct{}) {
	a.kernel = kernel
	defer a.unpin()
	before, every := a.look(), shortLook
	for {
		select {
		case <-done:
			return
		case <-time.After(every):
		}
		now := a.look()
		ran := now.ours - before.ours
		if cpu, ok := a.better(before, now); ok {
			if a.pin(cpu) != nil {
				return
			}
			every = longLook / 4 // it has cost the caches
		} else if every = shortLook; ran < every/50 {
			every = longLook
		}
		before = now
	}
}

// A load is how much of their time processors have been busy and idle since the host
// was started, and how much of it this machine and its process have had.
type load struct {
	busy, idle map[int]time.Duration
	ours       time.Duration
}

// better is a processor that has been idle while others had a good part of ours. It
// compares a processor's own figures, in ticks of 10 ms, which are right over a
// quarter of a second.
func (a *affinity) better(before, now load) (cpu int, ok bool) {
	spent := func(of, was map[int]time.Duration, cpu int) time.Duration { return of[cpu] - was[cpu] }
	all := spent(now.busy, before.busy, a.cpu) + spent(now.idle, before.idle, a.cpu)
	others := spent(now.busy, before.busy, a.cpu) - (now.ours - before.ours)
	if others < all/4 {
		return 0, false
	}
	best := all / 2
	for c := range now.idle {
		if idle := spent(now.idle, before.idle, c); c != a.cpu && a.allowed.IsSet(c) && idle > best {
			cpu, ok, best = c, true, idle
		}
	}
	return cpu, ok
}

// tick is the unit of times in /proc (USER_HZ, on x86 always 100).
const tick = 10 * time.Millisecond

// look reads what there is to know. What cannot be read is 0, and nobody moves.
func (a *affinity) look() load {
	l := load{busy: map[int]time.Duration{}, idle: map[int]time.Duration{}}
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return l
	}
	for line := range strings.Lines(string(b)) {
		// cpuN user nice system idle iowait irq softirq steal (proc_stat(5))
		f := strings.Fields(line)
		n, err := strconv.Atoi(strings.TrimPrefix(f[0], "cpu"))
		if err != nil || len(f) < 8 {
			continue
		}
		for i, word := range f[1:8] {
			v, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				continue
			}
			if i == 3 || i == 4 {
				l.idle[n] += time.Duration(v) * tick
			} else {
				l.busy[n] += time.Duration(v) * tick
			}
		}
	}
	for _, pid := range append(append(children(a.kernel), children(os.Getpid())...), os.Getpid()) {
		if st, err := readStat(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			l.ours += st.ran
		}
	}
	return l
}

// A stat is what the kernel says of a process, or of a thread.
type stat struct {
	ran time.Duration // its own, and of its children that have ended
	cpu int           // that it was on last
}

// readStat reads a stat file of /proc (proc_pid_stat(5)).
func readStat(path string) (stat, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the third field on
	const utime, cpu = 14 - 3, 39 - 3
	if len(f) <= cpu {
		return stat{}, fmt.Errorf("%s: %d fields", path, len(f))
	}
	var st stat
	for _, word := range f[utime : utime+4] { // utime stime cutime cstime
		v, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("%s: %w", path, err)
		}
		st.ran += time.Duration(v) * tick
	}
	if st.cpu, err = strconv.Atoi(f[cpu]); err != nil {
		return stat{}, fmt.Errorf("%s: %w", path, err)
	}
	return st, nil
}
