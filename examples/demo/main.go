// Command demo runs examples/arp_guard.star and checks, step by step, what
// the file promises: poisoned while the policy is only watched, healed and
// safe once it is enforced, and ping working throughout for whom it is
// allowed. It ends with a table, and exits 0 only if all of it held.
//
//	go run ./examples/demo -seki bin/seki
//	go run ./examples/demo -seki bin/seki -machine uml
//	go run ./examples/demo -seki bin/seki -machine kvm -kernel /boot/vmlinuz-6.12-amd64
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

const (
	podName = "arp_guard"
	bobIP   = "10.77.0.3"
	// How long the policy is only watched.
	watch = 8 * time.Second
	// Long enough for several rounds of arpspoof, which repeats itself every
	// two seconds.
	staysFor = 8 * time.Second
)

func main() {
	seki := flag.String("seki", "bin/seki", "the seki binary")
	file := flag.String("file", "examples/arp_guard.star", "the file to run")
	machine := flag.String("machine", "host", "the kernel to run it on: host; uml, which needs no root; or kvm")
	kernel := flag.String("kernel", "", "the kernel of machine uml or kvm, instead of its own choice")
	arg := flag.String("kernel-arg", "", "a parameter for the kernel of machine kvm")
	patience := flag.Int("patience", 1, "how many times as long as usual to wait, for an emulated processor")
	flag.Parse()
	d, err := newDemo(*seki, *file)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	d.machine, d.kernel, d.kernelArg, d.patience = *machine, *kernel, *arg, time.Duration(*patience)
	ok := d.run()
	if err := d.close(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		ok = false
	}
	if !ok {
		os.Exit(1)
	}
}

// A demo is one run of the file in a state directory of its own.
type demo struct {
	seki, file string
	machine    string
	kernel     string        // "" for the machine's own choice
	kernelArg  string        // "" for none
	patience   time.Duration // a factor of all that is waited for
	root       string
	start      time.Time
	checks     []check
}

// A check is one row of the closing table.
type check struct {
	what, seen string
	ok         bool
}

func newDemo(seki, file string) (*demo, error) {
	abs, err := filepath.Abs(seki)
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp("", "seki-demo-")
	if err != nil {
		return nil, err
	}
	return &demo{seki: abs, file: file, root: root, start: time.Now()}, nil
}

// close stops the pod, however far the demo came.
func (d *demo) close() error {
	if _, err := d.call("stop", "--timeout", "2s", podName); err != nil {
		return err
	}
	return os.RemoveAll(d.root)
}

func (d *demo) run() bool {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() { defer close(done); d.story() }()
	select {
	case <-done:
		return d.table()
	case <-interrupted:
		fmt.Fprintln(os.Stderr, "demo: interrupted")
		return false
	}
}

// story tells the demo in the order it happens.
func (d *demo) story() {
	d.say("starting alice, bob and mallory (%s) on machine %s", d.file, d.machine)
	run := []string{"run", "-d", "--machine", d.machine, "--set", fmt.Sprintf("watch=%v", watch*d.patience)}
	if d.kernel != "" {
		run = append(run, "--kernel", d.kernel)
	}
	if d.kernelArg != "" {
		run = append(run, "--kernel-arg", d.kernelArg)
	}
	if out, err := d.call(append(run, d.file)...); err != nil {
		d.check("the pod starts", false, "%v: %s", err, out)
		return
	}
	bob, err := d.mac("bob")
	if err != nil {
		d.check("bob has a card", false, "%v", err)
		return
	}
	mallory, err := d.mac("mallory")
	if err != nil {
		d.check("mallory has a card", false, "%v", err)
		return
	}
	d.say("bob is %s, mallory is %s", bob, mallory)

	d.say("audit: mallory's arpspoof is watched, not stopped")
	seen, ok := d.neighbour(mallory, 7*time.Second)
	d.show("alice", "ip", "neigh", "show", bobIP)
	d.check("audit: alice's entry for bob turns to mallory", ok, "%s", seen)
	d.reports("would drop")
	d.drops(true, "audit: what would drop is listed with its line")

	d.say("waiting for the lifecycle callback that enforces the policy")
	if !d.enforced(15 * time.Second) {
		d.check("a callback reloads the policy", false, "no such event")
		return
	}
	d.check("a callback reloads the policy while arpspoof runs", d.spoofing(), "arpspoof alive")

	seen, ok = d.neighbour(bob, 20*time.Second)
	d.show("alice", "ip", "neigh", "show", bobIP)
	d.check("enforce: alice's entry is bob's again", ok, "%s", seen)
	d.say("watching it for %v", staysFor)
	seen, ok = d.stays(bob)
	d.check("enforce: and stays so", ok && d.spoofing(), "%s", seen)
	d.reports("dropped")
	d.drops(false, "enforce: forged frames are dropped, with their line")

	for _, p := range [][2]string{{"alice", "bob"}, {"bob", "alice"}, {"mallory", "bob"}} {
		to := map[string]string{"alice": "10.77.0.2", "bob": bobIP}[p[1]]
		out, err := d.exec(p[0], "ping", "-c", "2", "-W", "2", to)
		d.check(p[0]+" can ping "+p[1], err == nil, "%s", pingSummary(out))
	}
}

// mac is the hardware address of a container's card, as the container sees it.
func (d *demo) mac(name string) (string, error) {
	out, err := d.exec(name, "cat", "/sys/class/net/eth0/address")
	return strings.TrimSpace(out), err
}

// neighbour waits until alice's entry for bob is at mac, and says what it last was.
func (d *demo) neighbour(mac string, within time.Duration) (string, bool) {
	seen := ""
	for end := time.Now().Add(within * d.patience); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		seen = d.entry()
		if strings.Contains(seen, mac) {
			return seen, true
		}
	}
	return seen, false
}

// stays reports whether alice's entry is never anybody's but mac's for a while.
func (d *demo) stays(mac string) (string, bool) {
	looks := 0
	for end := time.Now().Add(staysFor); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		seen := d.entry()
		if strings.Contains(seen, "lladdr") && !strings.Contains(seen, mac) {
			return seen, false
		}
		looks++
	}
	return fmt.Sprintf("%d looks in %v, always %s", looks, staysFor, mac), true
}

func (d *demo) entry() string {
	out, err := d.exec("alice", "ip", "neigh", "show", bobIP)
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(out), " ")
}

// spoofing reports whether mallory's arpspoof is still running.
func (d *demo) spoofing() bool {
	out, err := d.exec("mallory", "sh", "-c", "cat /proc/[0-9]*/comm")
	return err == nil && strings.Contains(out, "arpspoof")
}

// table prints the checks and reports whether all held.
func (d *demo) table() bool {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	all := len(d.checks) > 0
	for _, c := range d.checks {
		mark := "ok"
		if !c.ok {
			mark, all = "NOT OK", false
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", mark, c.what, c.seen)
	}
	w.Flush()
	return all
}

func (d *demo) check(what string, ok bool, format string, args ...any) {
	d.checks = append(d.checks, check{what, fmt.Sprintf(format, args...), ok})
}

func (d *demo) say(format string, args ...any) {
	fmt.Printf("%5.1fs  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

// show runs a command in a container and prints it with its output.
func (d *demo) show(container string, argv ...string) {
	out, _ := d.exec(container, argv...)
	fmt.Printf("        %s$ %s\n", container, strings.Join(argv, " "))
	s := bufio.NewScanner(strings.NewReader(out))
	for s.Scan() {
		fmt.Printf("        %s\n", s.Text())
	}
}

func (d *demo) exec(container string, argv ...string) (string, error) {
	return d.call(append([]string{"exec", podName + "/" + container, "--"}, argv...)...)
}

// call runs seki and returns what it printed on stdout.
func (d *demo) call(args ...string) (string, error) {
	cmd := exec.Command(d.seki, append([]string{"--root", d.root}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("seki %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), err
}

func pingSummary(out string) string {
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, "packets transmitted") {
			return line
		}
	}
	return "no answer"
}

// A drop is one line of `seki stats --json`: what decided, and how often.
type drop struct {
	Kind  string `json:"kind"`
	Why   string `json:"why"`
	File  string `json:"file"`
	Line  int    `json:"line"`
	Count uint64 `json:"count"`
	Would bool   `json:"would"`
}

// reports shows the last frame that was reported as dropped, or as one that
// would have been, in the words of the pod's events.
func (d *demo) reports(verdict string) {
	out, _ := d.call("events", podName)
	last := ""
	for _, line := range strings.Split(out, "\n") {
		if _, report, ok := strings.Cut(line, " violation "); ok && strings.Contains(report, verdict+" arp") {
			last = strings.TrimSpace(report)
		}
	}
	if last != "" {
		fmt.Printf("        mallory: %s\n", last)
	}
}

// drops lists mallory's frames that were dropped (or would have been) by a
// line of the file, and checks that there are some.
func (d *demo) drops(would bool, what string) {
	var stats struct {
		Containers []struct {
			Name string
			Net  struct{ Drops []drop }
		}
	}
	out, err := d.call("stats", "--json", podName)
	if err == nil {
		err = json.Unmarshal([]byte(out), &stats)
	}
	if err != nil {
		d.check(what, false, "%v", err)
		return
	}
	source := d.source()
	var seen []string
	for _, c := range stats.Containers {
		for _, n := range c.Net.Drops {
			if c.Name != "mallory" || n.Would != would || n.Count == 0 || n.Line == 0 || n.Line > len(source) {
				continue
			}
			at := fmt.Sprintf("%s:%d", n.File, n.Line)
			did := map[bool]string{false: "dropped", true: "would have dropped"}[would]
			fmt.Printf("        %d %s (%s) at %s: %s\n", n.Count, did, n.because(), at, strings.TrimSpace(source[n.Line-1]))
			seen = append(seen, fmt.Sprintf("%d by %s", n.Count, at))
		}
	}
	d.check(what, len(seen) > 0, "%s", strings.Join(seen, ", "))
}

// because names what decided: a predicate, or that there is none.
func (n *drop) because() string {
	if n.Kind == "unspoken" {
		return "no predicate for " + n.Why
	}
	return n.Why
}

// source is the file, line by line.
func (d *demo) source() []string {
	b, err := os.ReadFile(d.file)
	if err != nil {
		return nil
	}
	return strings.Split(string(b), "\n")
}

// enforced waits for the callback's reload.
func (d *demo) enforced(within time.Duration) bool {
	for end := time.Now().Add(within * d.patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		out, err := d.call("events", "--json", podName)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(out, "\n") {
			var e struct {
				Type, Container, Mode string
				Duration              time.Duration `json:"duration_ns"`
			}
			if json.Unmarshal([]byte(line), &e) != nil || e.Container != "mallory" || e.Type != "policy_load" || e.Mode != "enforce" {
				continue
			}
			d.say("mallory's policy is enforced; the reload took %v", e.Duration)
			return true
		}
	}
	return false
}
