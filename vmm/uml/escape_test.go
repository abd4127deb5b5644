package uml_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/vmm/uml"
	"sekimori/vmm/uml/kernel"
)

// jailed is a Config that runs a program of ours where the kernel would be:
// what a guest can do that has taken over its kernel's process.
func jailed(t testing.TB, program string, words ...string) *uml.Config {
	t.Helper()
	return &uml.Config{
		Kernel: program, Memory: 64 << 20, Append: words,
		Info: &kernel.Info{Release: "6.12.0", Major: 6, Minor: 12, Static: true},
	}
}

// run runs a machine to its end.
func run(t testing.TB, c *uml.Config) (console string, err error) {
	t.Helper()
	m, err := uml.Start(ctx(t), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	err = m.Wait()
	return m.Console(), err
}

// TestEscapes tries each way out twice: here, where it must work, or nothing
// is proved; then in the jail, where it must fail.
func TestEscapes(t *testing.T) {
	k := requireKernel(t)
	program := compile(t, "jailed.c")
	victim := machine(t, k) // another pod's
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	named := filepath.Join(dir, "socket")
	abstract := "seki-test-" + strconv.Itoa(os.Getpid())
	for _, name := range []string{named, "@" + abstract} {
		l, err := net.Listen("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	os.Chmod(named, 0o777)
	pid := strconv.Itoa(victim.PID())
	const killed = "killed by the system call filter"
	root := os.Geteuid() == 0

	tests := []struct {
		name, try, arg string
		want           string // "" for any error but done
		rootOnly       bool   // only root can do it outside
	}{
		{"a file of the host", "open", secret, "No such file", false},
		{"the password file", "open", "/etc/passwd", "No such file", false},
		{"proc", "open", "/proc/self/status", "No such file", false},
		{"the memory of another machine", "open", "/proc/" + pid + "/mem", "No such file", false},
		{"another machine's root", "open", "/proc/" + pid + "/root/run", "No such file", false},
		{"shared memory", "open", "/dev/shm", "No such file", false},
		{"a new file at the root", "create", "/x", "", true},
		{"a new file in dev", "create", "/dev/x", "", true},
		{"UDP", "inet", "", killed, false},
		{"raw packets", "packet", "", killed, true},
		{"netlink", "netlink", "", killed, false},
		{"a named socket", "unix", named, "No such file", false},
		{"an abstract socket", "abstract", abstract, "", false},
		{"a signal to another machine", "kill", pid, "No such process", false},
		{"attach to a process", "attach", pid, killed, false},
		{"seize a process", "seize", pid, killed, false},
		{"process_vm_readv", "vmread", "", killed, false},
		{"mount", "mount", "", killed, true},
		{"chroot", "chroot", "", killed, true},
		{"handles of files", "handle", "", killed, false},
		{"unshare", "unshare", "", killed, false},
		{"clone a user namespace", "clone", "", killed, false},
		{"setns", "setns", "", killed, true},
		{"another user", "setuid", "", killed, true},
		{"execute", "exec", program, "", false},
		{"execute by descriptor", "exec_fd", program, "", false},
		{"a file in memory", "memfd", "", killed, false},
		{"bpf", "bpf", "", killed, true},
		{"io_uring", "uring", "", killed, false},
		{"keys", "keyctl", "", killed, false},
		{"filters", "seccomp", "", "not permitted", false},
		{"personality", "personality", "", killed, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			words := []string{"try=" + tt.try, "arg=" + tt.arg}
			if root || !tt.rootOnly {
				out := outside(t, program, words)
				if !strings.Contains(out, tt.try+": done") {
					t.Fatalf("it does not work outside of a jail either: %q", out)
				}
			}
			out, err := run(t, jailed(t, program, words...))
			if err != nil {
				out += err.Error()
			}
			if strings.Contains(out, ": done") || !strings.Contains(out, tt.want) || out == "" {
				t.Errorf("in the jail: %q; want %q", out, tt.want)
			}
		})
	}
}

// outside runs the program without a jail, in namespaces that the test may
// litter: a mount or a signal is nobody else's.
func outside(t *testing.T, program string, words []string) string {
	t.Helper()
	cmd := exec.Command(program, words...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	}
	if err := cmd.Run(); err != nil {
		t.Logf("outside: %v", err)
	}
	return out.String()
}

// TestNothingThere: the jail has two devices and a directory.
func TestNothingThere(t *testing.T) {
	requireKernel(t)
	program := compile(t, "jailed.c")
	out, err := run(t, jailed(t, program, "try=fds"))
	if err != nil || strings.Contains(out, "open:") || !strings.Contains(out, "fds: done") {
		t.Errorf("descriptors in the jail: %q, %v; want none but 0 to 2", out, err)
	}
	c := jailed(t, program, "try=list")
	c.Devices = []uml.Device{{ID: 1}}
	out, err = run(t, c)
	if err != nil {
		t.Fatal(err)
	}
	// Landlock does not let / be read, which is why it is asked of a program
	// that may: see below.
	for line := range strings.Lines(out) {
		switch strings.TrimSpace(line) {
		case "file: /run/device0", "unreadable:", "unreadable: /dev", "list: done":
		default:
			t.Errorf("in the jail: %q", line)
		}
	}

	c = jailed(t, program, "try=list")
	c.Info.Static, c.Info.Interp = false, program // a loader is copied in, and / may be read
	if out, err = run(t, c); err != nil {
		t.Fatal(err)
	}
	want := []string{"file: /dev", "file: /dev/null", "file: /dev/random", "file: /run"}
	for _, w := range want {
		if !strings.Contains(out, w+"\n") {
			t.Errorf("no %q in the jail: %q", w, out)
		}
	}
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if f, ok := strings.CutPrefix(line, "file: "); ok && !strings.HasPrefix(program+"/", f+"/") && !strings.Contains(strings.Join(want, "\n")+"\n", line+"\n") {
			t.Errorf("in the jail: %q", line)
		}
	}
}

// TestGuestRoot tries to get out with all that root of a guest can do.
func TestGuestRoot(t *testing.T) {
	k := requireKernel(t)
	c := config(k, archive(t, compile(t, "init.c")))
	c.Append = []string{"do=escape"}
	out, err := run(t, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{
		"hostfs: No such device", "hostfs dotdot: No such device",
		"/etc/passwd: No such file", "/proc/1/root/etc/passwd: No such file", "/dev/mem: No such", "/dev/ubda: No such", "/run/initrd: No such file",
		"processes: 0",
	} {
		if !strings.Contains(out, w) {
			t.Errorf("the guest does not say %q:\n%s", w, out)
		}
	}
}

// machine starts one that runs until the test ends.
func machine(t testing.TB, k kernel.Kernel) *uml.Machine {
	t.Helper()
	c := config(k, archive(t, compile(t, "init.c")))
	c.Append = []string{"do=tree"}
	said := make(chan struct{}, 1)
	c.Console = signalOn("tree grown", said)
	m, err := uml.Start(ctx(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	select {
	case <-said:
	case <-m.Done():
		t.Fatalf("the machine ended: %v\n%s", m.Wait(), m.Console())
	}
	return m
}

// TestProcess looks at a machine's processes from outside.
func TestProcess(t *testing.T) {
	k := requireKernel(t)
	m := machine(t, k)
	uid := os.Geteuid()
	if uid == 0 {
		uid = 65534
	}
	pids := append(descendants(m.PID()), m.PID())
	if len(pids) < 6 {
		t.Errorf("%d processes; want the kernel and one for each address space", len(pids))
	}
	for _, pid := range pids {
		status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []string{
			"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
			"NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t" + strings.Repeat(strconv.Itoa(uid)+"\t", 3) + strconv.Itoa(uid),
		} {
			if !strings.Contains(string(status), w+"\n") {
				t.Errorf("process %d: no %q in\n%s", pid, w, status)
			}
		}
		for _, ns := range []string{"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"} {
			theirs, err1 := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/" + ns)
			ours, err2 := os.Readlink("/proc/self/ns/" + ns)
			if err := errors.Join(err1, err2); err != nil || theirs == ours {
				t.Errorf("process %d: %s namespace %s is ours (%v)", pid, ns, theirs, err)
			}
		}
	}
	for file, want := range map[string][]string{
		"limits":        {"Max core file size        1                    1 ", "Max open files            1000                 1000 ", "Max locked memory         0                    0 "},
		"oom_score_adj": {"500\n"},
		"personality":   {"00040000\n"}, // ADDR_NO_RANDOMIZE
		"cmdline":       {"seki-uml\x00"},
		"environ":       {"TMPDIR=/run\x00GLIBC_TUNABLES=glibc.pthread.rseq=0\x00"},
	} {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(m.PID()) + "/" + file)
		for _, w := range want {
			if err != nil || !strings.Contains(string(data), w) {
				t.Errorf("%s: %v, no %q in\n%s", file, err, w, data)
			}
		}
	}
	// Introspection reads the kernel's memory by its host address.
	var word [8]byte
	local := []unix.Iovec{{Base: &word[0], Len: 8}}
	remote := []unix.RemoteIovec{{Base: 0x60000000, Len: 8}}
	if n, err := unix.ProcessVMReadv(m.PID(), local, remote, 0); n != 8 || err != nil || string(word[:4]) != "\x7fELF" {
		t.Errorf("process_vm_readv = %d, %v, %q; want the image's header", n, err, word[:4])
	}
}

// descendants are the processes below pid.
func descendants(pid int) (all []int) {
	tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, f := range tasks {
		data, _ := os.ReadFile(f)
		for _, w := range strings.Fields(string(data)) {
			child, _ := strconv.Atoi(w)
			all = append(append(all, child), descendants(child)...)
		}
	}
	return all
}
