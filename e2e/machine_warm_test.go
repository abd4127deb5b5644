package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// warmFlags are those of machine start for the machine of [ownKernel].
func warmFlags() []string {
	if onKVM() {
		return append(ownKernelFlags(), "--cpu", "1")
	}
	return ownKernelFlags()
}

// warm boots a machine that waits.
func (r *rig) warm(name string, flags ...string) {
	r.t.Helper()
	r.must(append(append([]string{"machine", "start"}, warmFlags()...), append(flags, name)...)...)
}

// refused is seki that fails, with that in what it says.
func (r *rig) refused(want string, args ...string) {
	r.t.Helper()
	if _, errs, code := r.seki(args...); code == 0 || !strings.Contains(errs, want) {
		r.t.Errorf("seki %v: exit %d, says %q; want %q", args, code, errs, want)
	}
}

// TestMachineWarm runs containers in a machine that has booted before: all that a
// user has of seki run is there, and what the machine cannot do costs no machine.
func TestMachineWarm(t *testing.T) {
	requireMachine(t, "root")
	r := newRig(t)
	r.warm("spare", "--cards", "1")
	if out := r.must("ps"); !strings.Contains(out, "warm") {
		t.Errorf("seki ps says %s", out)
	}
	one := `container(name = "a", rootfs = host_root(), args = ["true"])`
	card := func(i int, more string) string {
		return fmt.Sprintf(`container(name = "c%d", rootfs = host_root(), args = ["true"], nic = nic("10.0.0.%d/24"%s, policy = policy(allow_ethernet = True)))`+"\n", i, i+1, more)
	}
	r.refused("name in use", append(append([]string{"machine", "start"}, warmFlags()...), "spare")...)
	r.refused("no such pod", "run", "--warm", "spar", r.write("one.star", one))
	r.refused("has no container", "exec", "spare", "--", "true")
	r.refused("without containers", "stats", "spare")
	r.refused(`typo.star:1:45: container: unknown argument "arg"`, "run", "--warm", "spare", r.write("typo.star", strings.Replace(one, "args", "arg", 1)))
	r.refused("wants 2 cards, and machine spare has 1", "run", "--warm", "spare", r.write("cards.star", card(1, "")+card(2, "")))
	r.refused("wants a card with mtu = 9000", "run", "-d", "--warm", "spare", r.write("mtu.star", card(1, ", mtu = 9000")))
	r.refused("wants 64 MiB of memory", "run", "--warm", "spare", r.write("memory.star", one+"\nmachine(memory = \"64MiB\")"))
	r.refused(map[bool]string{false: "wants a kernel of machine kvm", true: `wants a kernel with ["nosmt"]`}[onKVM()], "run", "--warm", "spare", r.write("args.star", one+"\nmachine(\"kvm\", kernel_args = [\"nosmt\"])"))
	r.refused(`wants nic = "shared"`, "run", "--warm", "spare", r.write("shared.star", card(1, "")+"\nmachine(nic = \"shared\")"))
	r.refused("without --machine", "run", "--warm", "spare", "--machine", "host", r.write("one.star", one))

	// Streams, the directory that paths on the command line are relative to, a
	// callback that the guest runs, the exit code: as of a pod whose machine booted
	// for it.
	r.write("own/pod.star", `
def told(ctx):
    ctx.log("started")

container(name = "a", rootfs = host_root(), args = ["sh", "-c", "cat; echo to stderr >&2; exit 7"], on = {"poststart": told})
`)
	cmd := r.command("run", "-q", "--warm", "spare", "--pcap", "drops.pcapng", "pod.star")
	cmd.Dir += "/own"
	cmd.Stdin = strings.NewReader("from stdin\n")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	// Where it takes long, seki says that it is starting the pod.
	if code := cmd.ProcessState.ExitCode(); code != 7 || out.String() != "from stdin\n" || !strings.HasSuffix(errs.String(), "to stderr\n") {
		t.Errorf("exit %d (%v)\n%s%s", code, err, out.String(), errs.String())
	}
	if _, err := os.Stat(r.dir + "/own/drops.pcapng"); err != nil {
		t.Error(err)
	}
	if left := r.pods(); len(left) > 0 {
		t.Errorf("pods %v are left: a machine is of one pod", left)
	}
}

// TestMachineWarmSignals stops what runs in a warm machine as its user would: by
// Ctrl-C, which the container may answer, and by making an end of the command.
func TestMachineWarmSignals(t *testing.T) {
	requireMachine(t, "root")
	for _, c := range []struct {
		name string
		sig  unix.Signal
		code int
		says string
	}{
		{"interrupted", unix.SIGINT, 7, "asked to end"},
		{"killed", unix.SIGKILL, -1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.warm("spare")
			cmd := r.command("run", "-q", "--warm", "spare", r.write("pod.star",
				`container(name = "a", rootfs = host_root(), args = ["sh", "-c", "trap 'echo asked to end; exit 7' TERM; echo ready; while :; do sleep 0.1; done"])`))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if err := out.(*os.File).SetReadDeadline(time.Now().Add(patience(30 * time.Second))); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
				t.Fatal(err)
			}
			// It is heard before its start has ended, which the signal would call off.
			if !within(patience(5*time.Second), func() bool { return r.status("spare", "a") == "running" }) {
				t.Fatal("seki ps does not say that it runs")
			}
			if err := cmd.Process.Signal(c.sig); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(out)
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); err != nil || code != c.code || !strings.Contains(string(rest), c.says) {
				t.Errorf("exit %d, %q, %v; want %d and %q", code, rest, err, c.code, c.says)
			}
			if !within(patience(5*time.Second), func() bool { return len(r.pods()) == 0 }) {
				t.Errorf("pods %v go on", r.pods())
			}
		})
	}
}

// TestMachineWarmEnds ends machines that wait: by seki stop; with their kernel, whose
// console and whose end can still be looked at; and with their supervisor.
func TestMachineWarmEnds(t *testing.T) {
	requireMachine(t, "root")
	supervisor := func(r *rig) int {
		for _, p := range r.ps() {
			if p.Name == "spare" {
				return p.Pid
			}
		}
		return 0
	}
	t.Run("stopped", func(t *testing.T) {
		r := newRig(t)
		r.warm("spare")
		tree := below(supervisor(r))
		r.must("stop", "spare")
		if len(tree) == 0 {
			t.Error("seki ps names no supervisor")
		}
		for _, p := range tree {
			if !within(patience(5*time.Second), func() bool { return !p.lives() }) {
				t.Errorf("%v lives", p)
			}
		}
		if left := r.pods(); len(left) > 0 {
			t.Errorf("pods %v are left", left)
		}
	})
	t.Run("the supervisor is killed", func(t *testing.T) {
		r := newRig(t)
		r.warm("spare")
		tree := below(supervisor(r))
		if err := unix.Kill(supervisor(r), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, p := range tree {
			if !within(patience(5*time.Second), func() bool { return !p.lives() }) {
				t.Errorf("%v lives", p)
			}
		}
		r.warm("spare") // cleans up first
		r.must("stop", "spare")
	})
	t.Run("the kernel is killed", func(t *testing.T) {
		if onKVM() {
			t.Skip("the processors of machine kvm are threads of its supervisor")
		}
		r := newRig(t)
		r.warm("spare")
		if err := unix.Kill(below(supervisor(r))[1].pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if !within(5*time.Second, func() bool { return strings.Contains(r.must("ps", "-a"), "ended") }) {
			t.Errorf("seki ps -a says %s", r.must("ps", "-a"))
		}
		if out := r.must("events", "spare"); !strings.Contains(out, "ended while it waited") {
			t.Errorf("seki events says %s", out)
		}
		r.refused("is not running", "run", "--warm", "spare", r.write("one.star", `container(name = "a", rootfs = host_root(), args = ["true"])`))
		r.must("stop", "spare") // forgets it
	})
}

// TestMachineWarmAttacks has hostile frames sent over cards that were there before the
// containers were: each is the card of the container that got it, and of no other.
func TestMachineWarmAttacks(t *testing.T) {
	requireMachine(t, "root")
	for _, c := range machineNICs {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.warm(lanPod, "--nic", c.name)
			l := r.lan(lanFile(c.machine, allowEverything, c.may), "--warm", lanPod)
			want := l.stats(lanPod)["mallory"].reasons()
			var frames [][]byte
			for _, v := range allVariants() {
				if v.hostile {
					want[reasonOf(v, c.name)]++
					frames = append(frames, v.frame)
				}
			}
			if heard, err := l.try(frames...); err != nil || len(heard) > 0 {
				t.Errorf("alice heard %v, %v", heard, err)
			}
			if lies := l.lies(t); len(lies) > 0 {
				t.Error(lies)
			}
			got := l.stats(lanPod)["mallory"].reasons()
			for why, n := range want {
				if got[why] != n {
					t.Errorf("dropped for %s: %d; want %d", why, got[why], n)
				}
			}
		})
	}
}
