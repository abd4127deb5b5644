package linux_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/linux"
)

// idBase is where the containers of these tests have their ids.
const idBase = 1 << 20

var applets = strings.Fields("sh echo cat ls id mount sleep ps touch stat hostname readlink dd grep mkdir head kill true wc mknod ln tr sed ip env pwd seq chmod tail rm test")

// rootfs makes a root directory with a busybox in it.
func rootfs(t testing.TB) string {
	t.Helper()
	requireRoot(t)
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("/bin/busybox")
	must(err)
	for _, d := range []string{"bin", "etc", "tmp", "private"} {
		must(os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	must(os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky))
	must(os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755))
	for _, n := range applets {
		must(os.Symlink("busybox", filepath.Join(dir, "bin", n)))
	}
	must(os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n1000:x:0:0::/:/bin/sh\n"), 0o644))
	must(os.WriteFile(filepath.Join(dir, "etc/group"), []byte("root:x:0:\nweb:x:34:\naudio:x:29:web\nwheel:x:10:root,web\n"), 0o644))
	must(os.Chown(filepath.Join(dir, "private"), 33, 34))
	must(os.Chmod(filepath.Join(dir, "private"), 0o700))
	return dir
}

// spec is a default container that runs args in a busybox root under an overlay.
func spec(t testing.TB, args ...string) *bundle.Spec {
	t.Helper()
	s := bundle.Default("c")
	s.Root = bundle.RootFS{Kind: bundle.RootDir, Path: rootfs(t), Overlay: true}
	s.OCI.Process.Args = args
	return s
}

// sh is spec for a shell script.
func sh(t testing.TB, script string) *bundle.Spec {
	t.Helper()
	return spec(t, "sh", "-c", script)
}

// A box is a container with its output.
type box struct {
	*linux.Container
	out *os.File
}

// create makes a container of s, to be destroyed when the test ends. Whatever
// the test leaves behind is an error.
func create(t testing.TB, s *bundle.Spec) *box {
	t.Helper()
	b, err := tryCreate(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tryCreate(t testing.TB, s *bundle.Spec) (*box, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c, err := linux.Create(context.Background(), linux.Config{ID: "test/" + id(t), Spec: s, Stdio: [3]*os.File{nil, w, w}, IDBase: idBase})
	if err != nil {
		r.Close()
		return nil, err
	}
	t.Cleanup(func() {
		r.Close()
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return &box{c, r}, nil
}

// id is the test's name as part of a container's id.
func id(t testing.TB) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '#' || r == '=' || r == ':' || r == '+' || r == ',' {
			return '_'
		}
		return r
	}, t.Name()[:min(50, len(t.Name()))]) + fmt.Sprint("-", serial.Add(1))
}

// serial keeps the containers of one test apart.
var serial atomic.Uint32

// start prepares and starts s.
func start(t testing.TB, s *bundle.Spec) *box {
	t.Helper()
	b := create(t, s)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// fails creates, prepares and starts s, and returns the error that this gives.
func fails(t testing.TB, s *bundle.Spec) error {
	t.Helper()
	b, err := tryCreate(t, s)
	if err != nil {
		return err
	}
	if err := b.Prepare(t.Context()); err != nil {
		return err
	}
	if err := b.Start(t.Context()); err != nil {
		return err
	}
	t.Fatal("container started, want an error")
	return nil
}

// line reads what the container writes until it has written a line.
func (b *box) line(t testing.TB) string {
	t.Helper()
	b.out.SetReadDeadline(time.Now().Add(10 * time.Second))
	var line []byte
	for one := make([]byte, 1); ; {
		if _, err := b.out.Read(one); err != nil {
			t.Fatalf("after %q: %v", line, err)
		}
		if one[0] == '\n' {
			return string(line)
		}
		line = append(line, one[0])
	}
}

// run runs s to its end and returns its output and status.
func run(t testing.TB, s *bundle.Spec) (string, linux.ExitStatus) {
	t.Helper()
	b := start(t, s)
	var out bytes.Buffer
	b.out.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(&out, b.out); err != nil {
		t.Fatalf("after %q: %v", &out, err)
	}
	st, err := b.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), st
}

// want runs s and compares its output.
func want(t testing.TB, s *bundle.Spec, out string) {
	t.Helper()
	if got, st := run(t, s); got != out || st != (linux.ExitStatus{}) {
		t.Errorf("got %q, %+v\nwant %q", got, st, out)
	}
}

func TestRun(t *testing.T) {
	t.Run("output", func(t *testing.T) { want(t, spec(t, "echo", "hello"), "hello\n") })
	t.Run("host name", func(t *testing.T) { want(t, spec(t, "hostname"), "c\n") })
	t.Run("pid 1", func(t *testing.T) { want(t, sh(t, "echo $$"), "1\n") })
	t.Run("environment", func(t *testing.T) {
		s := sh(t, "echo $A $HOME $PATH")
		s.OCI.Process.Env = []string{"A=b", "PATH=/bin"}
		want(t, s, "b /root /bin\n")
	})
	t.Run("working directory", func(t *testing.T) {
		s := sh(t, "pwd")
		s.OCI.Process.Cwd = "/etc"
		want(t, s, "/etc\n")
	})
	t.Run("exit code", func(t *testing.T) {
		if _, st := run(t, sh(t, "exit 7")); st != (linux.ExitStatus{Code: 7}) {
			t.Errorf("got %+v", st)
		}
	})
	t.Run("only lo, and up", func(t *testing.T) { want(t, sh(t, "ls /sys/class/net; ip -o link | grep -c LOOPBACK,UP"), "lo\n1\n") })
	t.Run("umask and session", func(t *testing.T) {
		want(t, sh(t, "umask; cut -d' ' -f6 /proc/self/stat 2>/dev/null || sed 's/.*) . [0-9]* [0-9]* \\([0-9]*\\).*/\\1/' /proc/self/stat"), "0022\n1\n")
	})
	t.Run("signals are reset", func(t *testing.T) {
		want(t, spec(t, "grep", "-E", "Sig(Blk|Ign)", "/proc/1/status"), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n")
	})
	t.Run("devices", func(t *testing.T) {
		want(t, sh(t, "echo x > /dev/null; head -c 2 /dev/zero | wc -c; test -c /dev/tty && readlink /dev/stdin && readlink /dev/ptmx"), "2\n/proc/self/fd/0\npts/ptmx\n")
	})
	t.Run("reopened pipe", func(t *testing.T) {
		want(t, user(sh(t, "echo a > /dev/stdout; echo b > /dev/stderr"), "web"), "a\nb\n")
	})
	t.Run("sysctl", func(t *testing.T) { want(t, sh(t, "tr '\\t' ' ' < /proc/sys/net/ipv4/ping_group_range"), "0 65535\n") })
}

func TestRoot(t *testing.T) {
	t.Run("overlay leaves the source alone", func(t *testing.T) {
		s := sh(t, "echo changed > /etc/passwd; touch /new; rm /etc/group; ls /etc; ls -ln /new | tr -s ' ' | sed 's/ 0 .*//'; mkdir -p /a/b")
		out, _ := run(t, s)
		if out != "passwd\n-rw-r--r-- 1 0\n" && !strings.HasPrefix(out, "passwd\n-rw-r--r-- 1") {
			t.Errorf("got %q", out)
		}
		data, err := os.ReadFile(filepath.Join(s.Root.Path, "etc/passwd"))
		if err != nil || !strings.HasPrefix(string(data), "root:") {
			t.Errorf("passwd of the source: %q, %v", data, err)
		}
		if _, err := os.Stat(filepath.Join(s.Root.Path, "new")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("new file in the source: %v", err)
		}
	})
	t.Run("owners look right", func(t *testing.T) {
		want(t, sh(t, "stat -c '%u:%g %n' / /bin/busybox /etc/passwd /private /tmp"), "0:0 /\n0:0 /bin/busybox\n0:0 /etc/passwd\n33:34 /private\n0:0 /tmp\n")
	})
	t.Run("writable directory", func(t *testing.T) {
		s := sh(t, "echo mine > /etc/new")
		s.Root.Overlay = false
		want(t, s, "")
		st, err := os.Stat(filepath.Join(s.Root.Path, "etc/new"))
		if err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("file on the host: %v, %v", st, err)
		}
	})
	for _, overlay := range []bool{false, true} {
		t.Run("read-only", func(t *testing.T) {
			s := sh(t, "touch /x /etc/x 2>/dev/null && echo written; touch /dev/shm/x && echo shm")
			s.Root.Overlay = overlay
			s.OCI.Root.Readonly = true
			want(t, s, "shm\n")
		})
	}
	t.Run("size is limited", func(t *testing.T) {
		s := sh(t, "dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null || echo full")
		limit := int64(24 << 20)
		s.OCI.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
		out, st := run(t, s)
		if out != "full\n" && st.Signal != syscall.SIGKILL {
			t.Errorf("got %q, %+v", out, st)
		}
	})
	t.Run("missing", func(t *testing.T) {
		s := sh(t, "true")
		s.Root.Path = "/nonexistent/rootfs"
		if err := fails(t, s); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nonexistent/rootfs") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("host", func(t *testing.T) {
		s := sh(t, "cat /etc/shadow 2>/dev/null; ls /home /root /srv /var/log; head -c 4 /etc/passwd; echo; echo x > /etc/mine; cat /etc/mine; stat -c '%u %g' /usr /usr/bin/env; ls -A /run /tmp | grep -v -e lock -e /run -e /tmp -e '^$'")
		s.Root = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}
		out, _ := run(t, s)
		if want := "/home:\n\n/root:\n\n/srv:\n\n/var/log:\nroot\nx\n0 0\n0 0\n"; out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	})
	t.Run("host read-only", func(t *testing.T) {
		s := sh(t, "touch /usr/x /etc/x 2>/dev/null && echo written; head -c 4 /etc/passwd")
		s.Root = bundle.RootFS{Kind: bundle.RootHost}
		want(t, s, "root")
	})
	t.Run("host needs a user namespace", func(t *testing.T) {
		s := sh(t, "true")
		s.Root = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}
		s.OCI.Linux.Namespaces = s.OCI.Linux.Namespaces[1:]
		if err := fails(t, s); !strings.Contains(err.Error(), "needs a user namespace") {
			t.Errorf("got %v", err)
		}
	})
}

// Programs that the demonstration runs, on the host's own root, with the
// capability that makes frames.
func TestHostPrograms(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"python3", "python3 -c 'print(6*7)'", "42\n"},
		{"ping", "ping -c1 -W2 127.0.0.1 | grep -c '1 received'", "1\n"},
		{"ip", "ip -o addr show lo | grep -c 127.0.0.1", "1\n"},
		{"arpspoof", "arpspoof -i lo 127.0.0.9 2>&1 | head -1 | grep -o 'arpspoof: libnet_check_iface\\|couldn.t arp\\|Unknown physical layer type.*\\|[0-9:a-f]* .*' | head -1 | wc -l", "1\n"},
		{"packet socket", "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print(1)'", "1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			program, _, _ := strings.Cut(c.script, " ")
			_, err := os.Stat("/usr/bin/" + program)
			_, err2 := os.Stat("/usr/sbin/" + program)
			require(t, program, err == nil || err2 == nil)
			s := sh(t, c.script)
			s.Root = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}
			s.OCI.Process.Capabilities = bundle.Capabilities(append(bundle.DefaultCapabilities(), "CAP_NET_RAW")...)
			want(t, s, c.want)
		})
	}
	t.Run("ping without the capability", func(t *testing.T) {
		_, err := os.Stat("/usr/bin/ping")
		require(t, "ping", err == nil)
		s := sh(t, "ping -c1 -W2 127.0.0.1 | grep -c '1 received'; ping -c1 -W2 127.0.0.1 >/dev/null")
		s.Root = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}
		want(t, s, "1\n")
	})
}

func TestSignals(t *testing.T) {
	t.Run("a handler", func(t *testing.T) {
		b := start(t, sh(t, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
		b.line(t)
		if err := b.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if st, err := b.Wait(); err != nil || st.Code != 5 {
			t.Errorf("got %+v, %v", st, err)
		}
		if err := b.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal after the end: %v", err)
		}
	})
	t.Run("kill", func(t *testing.T) {
		b := start(t, sh(t, "sleep 1000 & sleep 1000 & echo ready; wait"))
		b.line(t)
		if err := b.Kill(); err != nil {
			t.Fatal(err)
		}
		if st, err := b.Wait(); err != nil || st.Signal != syscall.SIGKILL || st.Status() != 137 {
			t.Errorf("got %+v, %v", st, err)
		}
	})
}

func TestOrder(t *testing.T) {
	b := create(t, sh(t, "true"))
	if err := b.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "it is created, want prepared") {
		t.Errorf("start before prepare: %v", err)
	}
	if _, err := b.Exec(t.Context(), linux.ExecConfig{Args: []string{"true"}}); err == nil {
		t.Error("exec before start")
	}
	ns, err := b.NetNS()
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Prepare(t.Context()); err == nil {
		t.Error("prepared twice")
	}
	for range 2 {
		if err := b.Destroy(); err != nil {
			t.Errorf("destroy: %v", err)
		}
	}
	if err := b.Start(t.Context()); err == nil {
		t.Error("started after destroy")
	}
}

func TestMissingProgram(t *testing.T) {
	for _, reaper := range []bool{false, true} {
		s := spec(t, "nonesuch")
		s.Reaper = reaper
		err := fails(t, s)
		var step *linux.StepError
		if !errors.As(err, &step) || step.Step != "execute nonesuch" || !errors.Is(err, syscall.ENOENT) {
			t.Errorf("reaper %v: got %v", reaper, err)
		}
		if want := "in the PATH of the container"; !strings.HasSuffix(err.Error(), want) {
			t.Errorf("reaper %v: %q; want it to end in %q", reaper, err, want)
		}
		s = spec(t, "/etc/passwd")
		s.Reaper = reaper
		if err := fails(t, s); !errors.Is(err, syscall.EACCES) {
			t.Errorf("reaper %v: got %v", reaper, err)
		}
	}
}

func TestContextEnds(t *testing.T) {
	b := create(t, sh(t, "true"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Prepare(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// hostRoot is the host's root under a private layer.
var hostRoot = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}

// withRaw is the default and the capability that makes frames.
func withRaw() *specs.LinuxCapabilities {
	return bundle.Capabilities(append(bundle.DefaultCapabilities(), "CAP_NET_RAW")...)
}
