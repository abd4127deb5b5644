package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// warm is how many containers are made in one machine, to see what one more
// takes.
const warm = 8

// flood is how long a container sends, in the shortest datagrams.
const flood = time.Second

const (
	floods      = 3    // of each card at least
	tracedLimit = 1.25 // the time of a frame that is traced, beside one that need not be
)

// machine measures what a kernel of its own costs a pod: a start in a fresh one,
// a further container in a running one, and how many frames a second a container
// sends through a card of its own and through one that it shares, where each
// frame's sender is looked for in the guest's memory.
func machine(w io.Writer, rounds int) ([]bar, error) {
	dir, err := os.MkdirTemp("", "seki-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	m, err := newMachineBench(dir)
	if errors.Is(err, errNoKernel) {
		fmt.Fprintf(w, "Machine uml: %v: not measured\n", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	first, err := m.firstWords(w, rounds)
	if err != nil {
		return nil, err
	}
	warmed, err := m.warmWords(rounds)
	if err != nil {
		return nil, err
	}
	further, err := m.further()
	if err != nil {
		return nil, err
	}
	var own, shared []float64
	so := func() duel { return duel{own, shared} } // the more a second the less time each
	if err := fight(floods, tracedLimit, so, func() error {
		for nic, rates := range map[string]*[]float64{"own": &own, "shared": &shared} {
			n, err := m.rate(nic)
			if err != nil {
				return err
			}
			*rates = append(*rates, n)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	read, write, err := m.rates()
	if err != nil {
		return nil, err
	}
	memory, err := m.memory()
	if err != nil {
		return nil, err
	}
	least := slices.Min(first.ours)
	fmt.Fprintf(w, "A pod in a User-Mode Linux kernel of its own, %d rounds\n\n", len(first.ours))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "seki run to the first word of hello\tleast %.0f ms\tmedian %.0f ms\n", least, median(first.ours))
	if first.peer != nil {
		fmt.Fprintf(t, "runsc run to the same\tleast %.0f ms\tmedian %.0f ms\n", slices.Min(first.peer), median(first.peer))
	}
	fmt.Fprintf(t, "the same of seki, in a machine that waits for it\tleast %.0f ms\tmedian %.0f ms\n", slices.Min(warmed), median(warmed))
	fmt.Fprintf(t, "one more container in a running machine\tmedian %.1f ms\n", ms(further))
	fmt.Fprintf(t, "datagrams a second, card of its own\t%.0f\n", slices.Max(own))
	fmt.Fprintf(t, "the same, shared card, each traced to its sender\t%.0f\n", slices.Max(shared))
	fmt.Fprintf(t, "over 9P, MB a second\tread %.0f\twritten %.0f\n", read, write)
	fmt.Fprintf(t, "memory of a container that sleeps, with machine and supervisor\t%.0f MB\n", float64(memory)/(1<<20))
	t.Flush()
	bars := []bar{
		{"machine uml, to the first word of hello, in ms", least, 150, false},
		{"machine uml, one more container, in ms", ms(further), 50, false},
		{"machine uml, time of a frame traced to its sender: of one that need not be", so().ratio(), tracedLimit, false},
	}
	if first.peer != nil {
		bars = append(bars, bar{"machine uml, to the first word of hello: time of runsc", first.ratio(), 1, false})
	}
	return bars, nil
}

// firstWords are the times to the first word of hello in ms, of ours and of
// runsc, where that can be had.
func (m *machineBench) firstWords(w io.Writer, rounds int) (d duel, err error) {
	peer, perr := newRunsc(m.dir)
	if perr != nil {
		fmt.Fprintf(w, "Machine uml beside runsc: %v: not measured\n", perr)
	} else {
		defer func() { err = errors.Join(err, peer.close()) }()
	}
	round := func() error {
		took, err := m.firstWord()
		if err != nil {
			return err
		}
		d.ours = append(d.ours, ms(took))
		if peer == nil {
			return nil
		}
		took, err = firstWord(peer.command())
		d.peer = append(d.peer, ms(took))
		return err
	}
	if err := round(); err != nil { // which fills the caches
		return d, err
	}
	d = duel{}
	if peer == nil {
		for range rounds {
			if err := round(); err != nil {
				return d, err
			}
		}
		return d, nil
	}
	err = fight(rounds, 1, func() duel { return d }, round)
	return d, err
}

func median(s []float64) float64 {
	return slices.Sorted(slices.Values(s))[len(s)/2]
}

// A machineBench is what the measurements share.
type machineBench struct{ seki, dir, state string }

var errNoKernel = errors.New("no kernel is built: make kernel")

func newMachineBench(dir string) (*machineBench, error) {
	seki, err := installed(dir)
	if err != nil {
		return nil, err
	}
	m := &machineBench{seki: seki, dir: dir, state: filepath.Join(dir, "state")}
	if exec.Command(m.seki, "machine", "kernel", "path").Run() != nil {
		return nil, errNoKernel
	}
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for name, from := range map[string]string{"busybox": "/bin/busybox", "bench": self} {
		b, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(root, "bin", name), b, 0o755); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// command is a run of the file with that text.
func (m *machineBench) command(text string, flags ...string) (*exec.Cmd, error) {
	file := filepath.Join(m.dir, fmt.Sprintf("machine%d.star", os.Getpid()))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	c := exec.Command(m.seki, append([]string{"--root", m.state, "run", "-q", file}, flags...)...)
	c.Stderr = os.Stderr
	return c, nil
}

// hello says a word in a machine of its own.
const hello = `
machine("uml", memory = "64MiB")
container(name = "hello", rootfs = dir("rootfs"), args = ["/bin/busybox", "echo", "hello"])
`

// warmWords are the times of [machineBench.firstWord] in machines that have booted
// before, in ms.
func (m *machineBench) warmWords(rounds int) (all []float64, err error) {
	for range rounds {
		start := exec.Command(m.seki, "--root", m.state, "machine", "start", "--memory", "64MiB", "--cards", "0", "warm")
		if out, err := start.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%v: %w\n%s", start, err, out)
		}
		c, err := m.command(hello, "--warm", "warm")
		if err != nil {
			return nil, err
		}
		took, err := firstWord(c)
		if err != nil {
			return nil, err
		}
		all = append(all, ms(took))
	}
	return all, nil
}

// firstWord is the time from the start of the command to the first output of
// the container.
func (m *machineBench) firstWord() (time.Duration, error) {
	c, err := m.command(hello)
	if err != nil {
		return 0, err
	}
	c.Stderr = nil // it says that it is starting, if that takes long
	return firstWord(c)
}

// further is the time that one more container takes in a running machine, from
// its making to its running, as the pod's events tell.
func (m *machineBench) further() (time.Duration, error) {
	c, err := m.command(fmt.Sprintf(`
machine("uml")
[container(
    name = "c%%d" %% i, rootfs = dir("rootfs"), args = ["/bin/busybox", "sleep", "1"],
    nic = nic("10.99.0.%%d/24" %% (i + 2), policy = policy(allow_arp = True)),
) for i in range(%d)]
`, warm))
	if err != nil {
		return 0, err
	}
	c.Args = slices.Insert(c.Args, 4, "-d")
	if err := c.Run(); err != nil {
		return 0, err
	}
	pod := strings.TrimSuffix(filepath.Base(c.Args[len(c.Args)-1]), ".star")
	defer exec.Command(m.seki, "--root", m.state, "stop", "--timeout", "1s", pod).Run()
	b, err := exec.Command(m.seki, "--root", m.state, "events", "--json", pod).Output()
	if err != nil {
		return 0, err
	}
	var last time.Time
	took := map[string]time.Duration{}
	for line := range strings.Lines(string(b)) {
		var e struct {
			Time            time.Time
			Type, Container string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return 0, err
		}
		// The steps of all containers follow each other: what has passed since
		// the event before was this container's.
		if e.Container != "" && e.Container != "c0" {
			took[e.Container] += e.Time.Sub(last)
		}
		last = e.Time
		if e.Type == "pod_started" {
			break
		}
	}
	if len(took) != warm-1 {
		return 0, fmt.Errorf("events of %d containers; want %d", len(took), warm-1)
	}
	var all []time.Duration
	for _, d := range took {
		all = append(all, d)
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// rate is how many datagrams a second a container sends.
func (m *machineBench) rate(nic string) (float64, error) {
	c, err := m.command(fmt.Sprintf(`
machine("uml", nic = %q)
P = policy(allow_arp = True, allow_ipv4 = True)
container(name = "a", rootfs = dir("rootfs"), args = ["/bin/bench", "flood", "10.99.0.3:9"], nic = nic("10.99.0.2/24", policy = P))
container(name = "b", rootfs = dir("rootfs"), args = ["/bin/busybox", "sleep", "%d"], nic = nic("10.99.0.3/24", policy = P))
`, nic, int(flood/time.Second)+1))
	if err != nil {
		return 0, err
	}
	c.Stderr = nil
	out, err := c.Output()
	if err != nil {
		return 0, err
	}
	_, n, _ := strings.Cut(strings.TrimSpace(string(out)), "| ")
	return strconv.ParseFloat(n, 64)
}

// floodFrom is the program in the container: it sends for a while, and prints
// how many datagrams a second that was.
func floodFrom(to string) error {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	n, begin := 0, time.Now()
	for b := make([]byte, 18); time.Since(begin) < flood; n++ {
		// Nobody listens, and the other's kernel says so now and then.
		if _, err := conn.Write(b); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
	}
	fmt.Println(float64(n) / time.Since(begin).Seconds())
	return nil
}
