package linux_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/linux"
)

// Each test here is a hole that another runtime had.

// noUserNS is s as real root of the host: the cases that a user namespace
// closes by itself must hold without.
func noUserNS(s *bundle.Spec) *bundle.Spec {
	s.OCI.Linux.Namespaces = s.OCI.Linux.Namespaces[1:]
	return s
}

func user(s *bundle.Spec, name string) *bundle.Spec {
	s.OCI.Process.User.Username = name
	return s
}

// A number is never a name: passwd has `1000:x:0:0`.
func TestCVE_2016_3697(t *testing.T) {
	want(t, user(sh(t, "id -u; id -g; id -G"), "1000"), "1000\n0\n0\n")
	want(t, user(sh(t, "id -u; id -g; id -G"), "web"), "33\n34\n34 10 29\n")
	want(t, user(sh(t, "id -u; id -g; id -G"), "web:audio"), "33\n29\n29\n")
	want(t, user(sh(t, "id -u; id -g"), "33:7"), "33\n7\n")
	for _, u := range []string{"-1", "4294967296", "2147483648", "+0", "00", "1:2:3", "0:-1", "nobody-there", "root:nobody-there"} {
		if err := fails(t, user(sh(t, "true"), u)); !strings.Contains(err.Error(), u) && !strings.Contains(err.Error(), strings.TrimPrefix(u, "root:")) && !strings.Contains(err.Error(), "2:3") && !strings.Contains(err.Error(), "-1") {
			t.Errorf("user %q: %v", u, err)
		}
	}
}

// During exec no process inside can read the descriptors or the memory of the
// child that is about to become the new process.
func TestCVE_2016_9962(t *testing.T) {
	for _, userns := range []bool{true, false} {
		s := sh(t, `echo ready; while :; do for p in /proc/[0-9]*; do
			case $p in /proc/1|/proc/$$) continue;; esac
			for f in $p/fd/*; do t=$(readlink $f 2>/dev/null) || continue
				case "$t" in */dev/null|pipe:*|/dev/pts*|"") ;; *) echo LEAK $p $f "$t";; esac; done
			x=$(readlink $p/exe 2>/dev/null); case "$x" in */busybox|"") ;; *) echo EXE $x;; esac
		done; done`)
		if userns { // as real root this capability is over the host's processes
			s.OCI.Process.Capabilities = bundle.Capabilities(append(bundle.DefaultCapabilities(), "CAP_SYS_PTRACE")...)
		} else {
			noUserNS(s)
		}
		b := start(t, s)
		b.line(t)
		for range 30 {
			p, err := b.Exec(t.Context(), linux.ExecConfig{Args: []string{"true"}})
			if err != nil {
				t.Fatal(err)
			}
			if st, err := p.Wait(); err != nil || st.Code != 0 {
				t.Fatal(st, err)
			}
		}
		b.Kill()
		buf := make([]byte, 1<<16)
		b.out.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _ := b.out.Read(buf)
		for l := range strings.Lines(string(buf[:n])) {
			// The starter of a container without a user namespace may be seen: it
			// is confined already, and its socket cannot be opened.
			starter := !userns && (strings.Contains(l, "/memfd:") || strings.Contains(l, "/fd/3 socket:"))
			if !starter {
				t.Errorf("userns %v: seen inside: %s", userns, l)
			}
		}
	}
}

// A workload `#!/proc/self/exe` does not get our binary to execute or overwrite.
func TestCVE_2019_5736(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	hash := func() [32]byte {
		data, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(data)
	}
	before := hash()
	for _, userns := range []bool{true, false} {
		dir := rootfs(t)
		os.WriteFile(filepath.Join(dir, "bin/evil"), []byte("#!/proc/self/exe -test.run=NoSuchTest\n"), 0o755)
		s := bundle.Default("c")
		s.Root = bundle.RootFS{Kind: bundle.RootDir, Path: dir, Overlay: true}
		s.OCI.Process.Args = []string{"/bin/evil"}
		if !userns {
			noUserNS(s)
		}
		if b, err := tryCreate(t, s); err == nil {
			if err := errors.Join(b.Prepare(t.Context()), b.Start(t.Context())); err == nil {
				if st, _ := b.Wait(); !userns && st.Code == 0 {
					t.Error("our binary was executed as the host's root")
				}
			}
		}
		s.OCI.Process.Args = []string{"sh", "-c", "echo ready; i=0; while [ $i -lt 200 ]; do for p in /proc/[0-9]*; do (echo bad > $p/exe) 2>/dev/null && echo WROTE $p; done; i=$((i+1)); done"}
		b := start(t, s)
		b.line(t)
		for range 30 {
			if p, err := b.Exec(t.Context(), linux.ExecConfig{Args: []string{"/bin/evil"}}); err == nil {
				p.Wait()
			}
		}
		b.Kill()
	}
	if hash() != before {
		t.Error("our binary was changed")
	}
}

func TestCVE_2019_16884(t *testing.T) {
	for _, m := range []specs.Mount{
		{Destination: "/proc", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/proc", Type: "bind", Source: "/tmp", Options: []string{"rbind"}},
		{Destination: "/proc/", Source: "/tmp", Options: []string{"bind"}},
		{Destination: "/proc/self/attr", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/x/../proc/1", Type: "tmpfs", Source: "tmpfs"},
	} {
		s := sh(t, "true")
		s.OCI.Mounts = append(s.OCI.Mounts, m)
		var fe *bundle.FieldError
		if err := fails(t, s); !errors.As(err, &fe) {
			t.Errorf("%v: %v", m, err)
		}
	}
}

// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642; CVE-2026-41579 for /dev.
func TestSymlinkedMountPoints(t *testing.T) {
	for _, name := range []string{"proc", "sys", "dev"} {
		s := sh(t, "true")
		other := filepath.Join(s.Root.Path, "other")
		os.Mkdir(other, 0o755)
		if err := os.Symlink("/other", filepath.Join(s.Root.Path, name)); err != nil {
			t.Fatal(err)
		}
		for _, overlay := range []bool{true, false} {
			s.Root.Overlay = overlay
			err := fails(t, s)
			if !errors.Is(err, syscall.ELOOP) || !strings.Contains(err.Error(), "mount /"+name) {
				t.Errorf("%s is a symbolic link: %v", name, err)
			}
			if e, _ := os.ReadDir(other); len(e) != 0 {
				t.Errorf("%s: made %v", name, e)
			}
		}
	}
}

// The root directory itself may be reached by a link; what is inside decides.
func TestSymlinkedRoot(t *testing.T) {
	s := sh(t, "echo here")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(s.Root.Path, link); err != nil {
		t.Fatal(err)
	}
	s.Root.Path = link
	want(t, s, "here\n")
}

// racer swaps a and b as fast as it can, until the test ends.
func racer(t *testing.T, a, b string) {
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		}
	}()
	t.Cleanup(func() { stop.Store(true); <-done })
}

// CVE-2021-30465 and CVE-2024-45310: a mount destination on a shared directory
// is swapped for a link to the host while containers start. Nothing must ever be
// mounted or made on the host.
func TestDestinationRace(t *testing.T) {
	starts := 150
	if testing.Short() {
		starts = 20
	}
	canary := t.TempDir()
	os.Chmod(canary, 0o777)
	s := sh(t, "true")
	shared := filepath.Join(s.Root.Path, "shared")
	os.MkdirAll(filepath.Join(shared, "a/b"), 0o777)
	up := strings.Repeat("../", 20)
	if err := os.Symlink(up+canary, filepath.Join(shared, "x")); err != nil {
		t.Fatal(err)
	}
	racer(t, filepath.Join(shared, "a"), filepath.Join(shared, "x"))
	s.Root.Overlay = false
	s.OCI.Mounts = append(s.OCI.Mounts,
		specs.Mount{Destination: "/shared/a/b", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/shared/a/new/dir", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/shared/a/file", Type: "bind", Source: "/etc/hostname", Options: []string{"bind"}})
	before := mountinfo(t)
	for range starts {
		b, err := tryCreate(t, s)
		if err != nil {
			t.Fatal(err)
		}
		b.Prepare(t.Context()) // may fail: the race was lost, or won
		b.Destroy()
		if e, err := os.ReadDir(canary); err != nil || len(e) > 0 {
			t.Fatalf("made on the host: %v, %v", e, err)
		}
	}
	if after := mountinfo(t); after != before {
		t.Errorf("mounts of the host changed:\n%s\nwere:\n%s", after, before)
	}
}

func mountinfo(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// CVE-2021-43784: sizes that overflow sixteen bits.
func TestLongFields(t *testing.T) {
	s := sh(t, "echo ${#LONG}")
	s.OCI.Process.Env = append(s.OCI.Process.Env, "LONG="+strings.Repeat("x", 70000))
	want(t, s, "70000\n")
	s = sh(t, "true")
	s.OCI.Mounts = append(s.OCI.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "/" + strings.Repeat("y/", 35000), Options: []string{"bind"}})
	if err := fails(t, s); err == nil {
		t.Error("70 kB of mount source accepted")
	}
	s = sh(t, "true")
	for i := range uint32(400) {
		s.OCI.Linux.UIDMappings = append(s.OCI.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: i, HostID: 1<<20 + i, Size: 1})
	}
	if err := fails(t, s); err == nil {
		t.Error("400 extents accepted")
	}
}

// CVE-2022-29162 and CVE-2022-27650: inheritable capabilities are none, for the
// container and for exec.
func TestInheritableCapabilities(t *testing.T) {
	b := start(t, sh(t, "grep -E 'Cap(Inh|Amb|Bnd|Eff)|NoNewPrivs|Seccomp:' /proc/self/status; sleep 100"))
	wanted := []string{"CapInh:\t0000000000000000", "CapEff:\t00000000800405fb", "CapBnd:\t00000000800405fb", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}
	for _, w := range wanted {
		if l := b.line(t); l != w {
			t.Errorf("container: got %q, want %q", l, w)
		}
	}
	for i, l := range strings.Split(strings.TrimSpace(output(t, b, linux.ExecConfig{Args: []string{"grep", "-E", "Cap(Inh|Amb|Bnd|Eff)|NoNewPrivs|Seccomp:", "/proc/self/status"}})), "\n") {
		if l != wanted[i] {
			t.Errorf("exec: got %q, want %q", l, wanted[i])
		}
	}
	out := output(t, b, linux.ExecConfig{Args: []string{"grep", "-E", "Cap(Inh|Eff|Prm)", "/proc/self/status"}, User: "web"})
	if out != "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n" {
		t.Errorf("exec as a user: %q", out)
	}
}

// CVE-2023-25809: the container cannot change its cgroup, with and without a
// cgroup namespace.
func TestCVE_2023_25809(t *testing.T) {
	for _, cgroupns := range []bool{true, false} {
		s := sh(t, "cd /sys/fs/cgroup; for f in */cgroup.procs */tasks cgroup.procs */notify_on_release; do (echo 1 > $f) 2>/dev/null && echo wrote $f; done; mkdir x memory/x 2>/dev/null && echo made; grep . memory/memory.limit_in_bytes >/dev/null && echo seen")
		if !cgroupns {
			s.OCI.Linux.Namespaces = s.OCI.Linux.Namespaces[:6]
		}
		require(t, "cgroup v1", exists("/sys/fs/cgroup/memory"))
		want(t, s, "seen\n")
		want(t, noUserNS(s), "seen\n")
	}
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// CVE-2024-21626: open directories of the parent, and a working directory that
// names one of them.
func TestCVE_2024_21626(t *testing.T) {
	for range 60 {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0) // on purpose not close-on-exec
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	want(t, sh(t, "ls /proc/1/fd; true"), "0\n1\n2\n")
	b := start(t, spec(t, "sleep", "100"))
	if out := output(t, b, linux.ExecConfig{Args: []string{"sh", "-c", "ls /proc/$$/fd; true"}}); out != "0\n1\n2\n" {
		t.Errorf("exec: descriptors %q", out)
	}
	for fd := 0; fd <= 100; fd++ {
		s := sh(t, "true")
		s.OCI.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd)
		if fd%10 == 3 {
			if err := fails(t, s); !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ELOOP) && !errors.Is(err, syscall.ENOTDIR) {
				t.Errorf("cwd %s: %v", s.OCI.Process.Cwd, err)
			}
		}
		if _, err := b.Exec(t.Context(), linux.ExecConfig{Args: []string{"true"}, Cwd: s.OCI.Process.Cwd}); err == nil {
			t.Errorf("exec with cwd %s", s.OCI.Process.Cwd)
		}
	}
}

// CVE-2025-31133: what masks a file is the null device, whatever lies at
// /dev/null in the container's file system.
func TestCVE_2025_31133(t *testing.T) {
	s := sh(t, "stat -c '%F %t:%T' /proc/keys /proc/timer_list; cat /proc/keys | wc -c; ls /sys/firmware | wc -l")
	want(t, s, "character special file 1:3\ncharacter special file 1:3\n0\n0\n")
	// A /dev of the container's own making, with a link in place of null.
	s = sh(t, "stat -c '%F %t:%T' /proc/keys; { echo x > /proc/sys/kernel/core_pattern; } 2>&- && echo wrote; true")
	dev := filepath.Join(s.Root.Path, "dev")
	os.Mkdir(dev, 0o755)
	os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(dev, "null"))
	s.OCI.Mounts = []specs.Mount{s.OCI.Mounts[0]}
	out, _ := run(t, s)
	if out != "character special file 1:3\n" {
		t.Errorf("got %q", out)
	}
}

// CVE-2025-52881: sysctls land in the kernel, or nowhere; the mount that shows
// /proc has no say.
func TestCVE_2025_52881(t *testing.T) {
	s := sh(t, "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmni")
	s.OCI.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "33", "kernel/shmmni": "77"}
	want(t, s, "33\n77\n")
	s = sh(t, "ls / | grep -c proc; true")
	s.OCI.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "33"}
	s.OCI.Mounts = nil // no /proc at all
	s.OCI.Linux.MaskedPaths, s.OCI.Linux.ReadonlyPaths = nil, nil
	want(t, s, "0\n")
	for _, k := range []string{"kernel.core_pattern", "vm.swappiness", "net.ipv4...ip_forward", "net.ipv4.nonesuch", "kernel.hostname"} {
		s = sh(t, "true")
		s.OCI.Linux.Sysctl = map[string]string{k: "1"}
		if err := fails(t, s); !strings.Contains(err.Error(), k) {
			t.Errorf("%s: %v", k, err)
		}
	}
}

// GHSA-g54h-m393-cpwq: an empty device list allows the default nodes only.
func TestDevicesAreDenied(t *testing.T) {
	s := noUserNS(sh(t, `for t in c b; do for m in 1 4 5 7 8 10 29 116 180 204 226 252; do for n in 0 1 2 4 11 63 200 232; do
		mknod /x $t $m $n 2>/dev/null || continue; (: < /x) 2>/tmp/e && echo "opened $t $m $n"; rm -f /x; done; done; done; echo x > /dev/null; head -c 1 /dev/zero | wc -c`))
	s.OCI.Process.Capabilities = bundle.Capabilities(append(bundle.DefaultCapabilities(), "CAP_MKNOD")...)
	s.OCI.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{}}
	// The root is nodev already; a tmpfs that is not shows the cgroup's work.
	s.OCI.Process.Args[2] = strings.ReplaceAll(s.OCI.Process.Args[2], "/x", "/devices/x")
	s.OCI.Mounts = append(s.OCI.Mounts, specs.Mount{Destination: "/devices", Type: "tmpfs", Source: "tmpfs"})
	out, _ := run(t, s)
	for l := range strings.Lines(out) {
		if strings.HasPrefix(l, "opened") && l != "opened c 5 0\n" && l != "opened c 5 1\n" && l != "opened c 5 2\n" {
			t.Error(strings.TrimSpace(l))
		}
	}
	if !strings.HasSuffix(out, "1\n") {
		t.Errorf("default nodes: %q", out)
	}
	want(t, sh(t, "mknod /tmp/x c 1 3 2>/dev/null && echo made; ls -l /tmp"), "total 0\n")
}

// CVE-2026-47262: accounts files of any size and kind.
func TestHugeGroupFile(t *testing.T) {
	s := user(sh(t, "true"), "web")
	group := filepath.Join(s.Root.Path, "etc/group")
	if err := os.Truncate(group, 1<<30); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := fails(t, s); !strings.Contains(err.Error(), "/etc/group") {
		t.Errorf("got %v", err)
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	os.Remove(group)
	if err := unix.Mkfifo(group, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fails(t, s); !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("fifo: %v", err)
	}
	os.Remove(group)
	os.Symlink("/etc/shadow", group) // inside the container: not there, so no groups
	want(t, s, "")
}

// CVE-2020-15257: nothing of ours listens in the abstract namespace.
func TestNoAbstractSockets(t *testing.T) {
	start(t, spec(t, "sleep", "100"))
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "@seki") {
		t.Error("an abstract socket")
	}
}

// TestSessionKeyring: who possesses a keyring reads it, whatever his user. The
// supervisor's, which may be a login's with its tickets, is not the container's,
// even without a system call filter.
func TestSessionKeyring(t *testing.T) {
	_, err := os.Stat("/usr/bin/python3")
	require(t, "python3", err == nil)
	key := os.Getenv("SEKI_TEST_KEY")
	if key == "" { // in a process of its own, all threads of which have the keyring
		runtime.LockOSThread() // for ever: the keyring is the thread's, which ends with the test
		if _, err := unix.KeyctlJoinSessionKeyring("sekitest"); err != nil {
			t.Skipf("no keyrings: %v", err)
		}
		n, err := unix.AddKey("user", "sekitest", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestSessionKeyring$")
		cmd.Env = append(os.Environ(), fmt.Sprint("SEKI_TEST_KEY=", n))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	script := fmt.Sprintf("python3 -c 'import ctypes; print(ctypes.CDLL(None).syscall(%d, %d, %s, None, 0, 0))'", unix.SYS_KEYCTL, unix.KEYCTL_READ, key)
	s := sh(t, "read go; "+script)
	s.Root = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}
	s.OCI.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c, err := linux.Create(t.Context(), linux.Config{ID: "test/" + id(t), Spec: s, Stdio: [3]*os.File{r, end, end}, IDBase: idBase})
	end.Close()
	if err != nil {
		t.Fatal(err)
	}
	b := &box{c, out}
	defer b.Destroy()
	if err := errors.Join(b.Prepare(t.Context()), b.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := output(t, b, linux.ExecConfig{Args: []string{"sh", "-c", script}}); got != "-1\n" {
		t.Errorf("a process beside the first reads %q of the key", got)
	}
	w.WriteString("\n")
	w.Close()
	got, err := io.ReadAll(out)
	if err != nil || string(got) != "-1\n" {
		t.Errorf("the first process reads %q of the key, %v", got, err)
	}
	if _, err := b.Wait(); err != nil {
		t.Fatal(err)
	}
}
