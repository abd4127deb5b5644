package lifecycle_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
	"sekimori/lifecycle/store"
)

func dial(t *testing.T, r *rig) *lifecycle.Client {
	t.Helper()
	c, err := lifecycle.Dial(r.root, "pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestControlVerbs(t *testing.T) {
	r := newRig(t, "a", "b")
	p := r.start()
	c := dial(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Ping(ctx); err != nil {
		t.Errorf("Ping() = %v", err)
	}
	stats, err := c.Stats(ctx, "")
	want := []lifecycle.ContainerStats{
		{Name: "a", Status: lifecycle.Running, Pid: 1 << 22, Stats: lifecycle.Stats{Pids: 1}, Network: []byte(`{"forwarded":7}`)},
		{Name: "b", Status: lifecycle.Running, Pid: 1<<22 + 1, Stats: lifecycle.Stats{Pids: 1}, Network: []byte(`{"forwarded":7}`)},
	}
	if diff := cmp.Diff(want, stats); err != nil || diff != "" {
		t.Errorf("Stats(): %v (-want +got):\n%s", err, diff)
	}
	if stats, err := c.Stats(ctx, "b"); err != nil || len(stats) != 1 || stats[0].Name != "b" {
		t.Errorf("Stats(b) = %+v, %v", stats, err)
	}
	var remote *lifecycle.RemoteError
	if _, err := c.Stats(ctx, "x"); !errors.As(err, &remote) || err.Error() != `pod "pod" has no container "x", but ["a" "b"]` {
		t.Errorf("Stats(x) = %v", err)
	}
	if err := c.SetMode(ctx, "", lifecycle.Audit); err != nil || r.net.card("a").mode != lifecycle.Audit || r.net.card("b").mode != lifecycle.Audit {
		t.Errorf("SetMode() = %v; modes %+v, %+v", err, r.net.card("a"), r.net.card("b"))
	}
	if err := c.SetMode(ctx, "a", "lenient"); err == nil {
		t.Error(`SetMode("lenient") is fine`)
	}
	if err := c.Signal(ctx, "", syscall.SIGUSR1); err == nil {
		t.Error("Signal() without a name, to a pod of two, is fine")
	}
	if err := c.Signal(ctx, "a", syscall.SIGUSR1); err != nil {
		t.Errorf("Signal() = %v", err)
	}
	if err := c.Stop(ctx, time.Second); err != nil {
		t.Errorf("Stop() = %v", err)
	}
	if left := tree(r.root); len(left) != 0 {
		t.Errorf("Stop() has returned, and there is still %q", left)
	}
	if code, err := wait(t, p); code != 128+10 || err != nil {
		t.Errorf("Wait() = %d, %v; want 138 (of a, before the stop), nil", code, err)
	}
	var down *store.DownError
	if err := c.Ping(ctx); !errors.As(err, &down) {
		t.Errorf("Ping() of an ended pod = %v; want a DownError", err)
	}
}

func TestControlKill(t *testing.T) {
	r := newRig(t, "a")
	r.rt.onCreate = func(i *fakeInstance) { i.deaf = true }
	p := r.start()
	if err := dial(t, r).Kill(t.Context()); err != nil {
		t.Errorf("Kill() = %v", err)
	}
	if code, err := wait(t, p); code != 137 || err != nil {
		t.Errorf("Wait() = %d, %v; want 137, nil", code, err)
	}
}

func TestControlExec(t *testing.T) {
	r := newRig(t, "a")
	r.rt.onCreate = func(i *fakeInstance) {
		i.onExec = func(args []string) int {
			return map[string]int{"fine": 0, "five": 5, "long": -1}[args[0]]
		}
	}
	p := r.start()
	c := dial(t, r)
	run := func(ctx context.Context, args ...string) (*lifecycle.RemoteProcess, *os.File) {
		t.Helper()
		out, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { out.Close() })
		defer w.Close()
		p, err := c.Exec(ctx, "a", lifecycle.ExecConfig{Args: args, Stdio: [3]*os.File{nil, w, nil}})
		if err != nil {
			t.Fatalf("Exec(%q) = %v", args, err)
		}
		return p, out
	}
	proc, out := run(t.Context(), "five", "x")
	if st, err := proc.Wait(); st.Code != 5 || err != nil {
		t.Errorf("Wait() = %+v, %v; want 5, nil", st, err)
	}
	// The end of the pipe comes only if the supervisor has closed its copy.
	if b, err := io.ReadAll(out); string(b) != "a says five\n" || err != nil {
		t.Errorf("output = %q, %v", b, err)
	}
	proc, _ = run(t.Context(), "long")
	if err := proc.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if st, err := proc.Wait(); st.Signal != syscall.SIGINT || err != nil {
		t.Errorf("Wait() = %+v, %v; want SIGINT, nil", st, err)
	}
	// A client that goes away takes its process with it.
	events, stop := p.Subscribe(64)
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	proc, _ = run(ctx, "long")
	cancel()
	if _, err := proc.Wait(); err == nil {
		t.Error("Wait() after the end of the context is fine")
	}
	if e := next(t, events, lifecycle.EventExecExit); e.Signal != "KILL" {
		t.Errorf("the process ended by %q; want KILL", e.Signal)
	}
	r.exit("a", 0)
	wait(t, p)
}

// raw connects to the socket past the client.
func raw(t *testing.T, r *rig) *net.UnixConn {
	t.Helper()
	s, err := store.OpenExisting(r.root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := s.Dial("pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// TestControlRefuses sends what a client should not, and wants the right refusal
// and a pod that goes on.
func TestControlRefuses(t *testing.T) {
	r := newRig(t, "a")
	p := r.start()
	tests := []struct{ name, send, want string }{
		{"not json", "hello\n", "message: invalid character"},
		{"empty", "\n", "message: EOF"},
		{"verb", `{"verb":"reboot"}` + "\n", `verb \"reboot\": unknown`},
		{"unknown field", `{"verb":"ping","force":true}` + "\n", "unknown field"},
		{"two objects", `{"verb":"ping"}{"verb":"kill"}` + "\n", "something follows the object"},
		{"signal 0", `{"verb":"signal","signal":0}` + "\n", "signal 0: want 1 to 64"},
		{"exec nothing", `{"verb":"exec","container":"a"}` + "\n", "exec: no command"},
		{"exec without files", `{"verb":"exec","exec":{"args":["x"]}}` + "\n", "came with 0 files, want 3"},
		{"relative cwd", `{"verb":"exec","exec":{"args":["x"],"cwd":"tmp"}}` + "\n", "not absolute"},
		{"variable", `{"verb":"exec","exec":{"args":["x"],"env":["=x"]}}` + "\n", "want KEY=value"},
		{"zero byte", `{"verb":"exec","exec":{"args":["a\u0000b"]}}` + "\n", "zero byte"},
		{"timeout", `{"verb":"stop","timeout_ms":-1}` + "\n", "timeout of -1 ms"},
		{"deep", `{"verb":` + strings.Repeat("[", 100_000) + "\n", "message: "},
		{"long", strings.Repeat("x", 300<<10), "message: too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn := raw(t, r)
			conn.Write([]byte(tt.send))
			line, _ := bufio.NewReader(conn).ReadString('\n')
			if !strings.HasPrefix(line, `{"ok":false,`) || !strings.Contains(line, tt.want) {
				t.Errorf("answer %q; want %q", line, tt.want)
			}
		})
	}
	if err := dial(t, r).Ping(t.Context()); err != nil {
		t.Errorf("Ping() = %v", err)
	}
	r.exit("a", 0)
	wait(t, p)
}

// TestControlTooManyFiles: descriptors that are not wanted are not kept.
func TestControlTooManyFiles(t *testing.T) {
	r := newRig(t, "a")
	p := r.start()
	before := openFiles(t)
	for range 20 {
		conn := raw(t, r)
		var fds []int
		for range 10 {
			fds = append(fds, int(os.Stderr.Fd()))
		}
		conn.WriteMsgUnix([]byte(`{"verb":"ping"}`+"\n"), unix.UnixRights(fds...), nil)
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d open files; %d before", after, before)
	}
	r.exit("a", 0)
	wait(t, p)
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestControlCrowd: clients that say nothing do not keep others out for ever,
// nor the pod from ending.
func TestControlCrowd(t *testing.T) {
	r := newRig(t, "a")
	p := r.start()
	for range 100 {
		raw(t, r)
	}
	began := time.Now()
	r.exit("a", 0)
	wait(t, p)
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("the pod took %v to end", d)
	}
}

// stranger connects, as whoever it is, to the socket of the pod under ROOT and
// says what came of it.
func stranger() {
	conn, err := net.Dial("unix", filepath.Join(os.Getenv("ROOT"), "pods", "pod", "control.sock"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	conn.Write([]byte(`{"verb":"ping"}` + "\n"))
	b, _ := io.ReadAll(conn)
	fmt.Printf("%q\n", b)
}

// TestControlStranger: another user is not answered even if the modes of the
// files let him connect.
func TestControlStranger(t *testing.T) {
	requireRoot(t)
	r := newRig(t, "a")
	p := r.start()
	for _, path := range []string{r.root, r.root + "/pods", r.root + "/pods/pod", filepath.Dir(r.root), filepath.Dir(filepath.Dir(r.root))} {
		os.Chmod(path, 0o755)
	}
	os.Chmod(filepath.Join(r.root, "pods/pod/control.sock"), 0o666)
	for _, tt := range []struct {
		uid  uint32
		want string
	}{{0, `"{\"ok\":true}\n"`}, {65534, `""`}} {
		cmd := role("stranger", "ROOT="+r.root)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
		exe, err := os.ReadFile("/proc/self/exe") // which user 65534 may not be able to reach
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = filepath.Join(t.TempDir(), "stranger")
		os.Chmod(filepath.Dir(cmd.Path), 0o755)
		if err := os.WriteFile(cmd.Path, exe, 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := cmd.Output()
		if got := string(bytes.TrimSpace(out)); got != tt.want {
			t.Errorf("user %d got %s, %v; want %s", tt.uid, got, err, tt.want)
		}
	}
	r.exit("a", 0)
	wait(t, p)
}

func TestDialNothing(t *testing.T) {
	var down *store.DownError
	if _, err := lifecycle.Dial(t.TempDir(), "pod"); !errors.As(err, &down) {
		t.Errorf("Dial() in an empty directory = %v; want a DownError", err)
	}
	if _, err := lifecycle.Dial(filepath.Join(t.TempDir(), "x"), "pod"); !errors.As(err, &down) {
		t.Errorf("Dial() without a directory = %v; want a DownError", err)
	}
}
