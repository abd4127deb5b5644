package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"

	"sekimori/lifecycle/agent"
	"sekimori/lifecycle/linux"
)

// TestContainer is a container's whole life, with input and both outputs.
func TestContainer(t *testing.T) {
	r := full(t)
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	errR, errW := pipe(t)
	k := r.run(t, spec("read x; echo out $x; echo err $x >&2; exit 7"), [3]*os.File{inR, outW, errW})
	outW.Close()
	errW.Close()
	if k.Pid() <= 0 {
		t.Errorf("Pid() = %d", k.Pid())
	}
	fmt.Fprintln(inW, "hello")
	st, err := k.Wait()
	if st != (linux.ExitStatus{Code: 7}) || err != nil {
		t.Errorf("Wait() = %+v, %v; want code 7", st, err)
	}
	if got := text(t, outR); got != "out hello\n" {
		t.Errorf("stdout %q; want %q", got, "out hello\n")
	}
	if got := text(t, errR); got != "err hello\n" {
		t.Errorf("stderr %q; want %q", got, "err hello\n")
	}
	for range 2 {
		if err := k.Destroy(); err != nil {
			t.Errorf("Destroy() = %v", err)
		}
	}
	if r.agent.Container("c") != nil {
		t.Error("a destroyed container is still there")
	}
}

// TestInputEnds ends the host's input: the container's ends too.
func TestInputEnds(t *testing.T) {
	r := full(t)
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	k := r.run(t, spec("cat; echo end"), [3]*os.File{inR, outW, nil})
	outW.Close()
	inW.Write([]byte("abc"))
	inW.Close()
	if st, err := k.Wait(); st.Status() != 0 || err != nil {
		t.Errorf("Wait() = %+v, %v", st, err)
	}
	if got := text(t, outR); got != "abcend\n" {
		t.Errorf("stdout %q; want %q", got, "abcend\n")
	}
}

// TestBulk carries more than any buffer holds.
func TestBulk(t *testing.T) {
	r := full(t)
	outR, outW := pipe(t)
	k := r.run(t, spec("head -c 10000000 /dev/zero"), [3]*os.File{nil, outW, nil})
	outW.Close()
	if got := len(text(t, outR)); got != 10_000_000 {
		t.Errorf("%d bytes came; want 10000000", got)
	}
	if st, err := k.Wait(); st.Status() != 0 || err != nil {
		t.Errorf("Wait() = %+v, %v", st, err)
	}
}

// TestReaderGone closes the host's end: the writer gets SIGPIPE, as it would on
// the host.
func TestReaderGone(t *testing.T) {
	r := full(t)
	outR, outW := pipe(t)
	k := r.run(t, spec("cat /dev/zero; exit $?"), [3]*os.File{nil, outW, nil})
	outW.Close()
	outR.Read(make([]byte, 1))
	outR.Close()
	if st, err := k.Wait(); st.Code != 128+int(syscall.SIGPIPE) || err != nil {
		t.Errorf("Wait() = %+v, %v; want SIGPIPE's", st, err)
	}
}

// TestExec runs further processes, signals them and reads figures.
func TestExec(t *testing.T) {
	r := full(t)
	k := r.run(t, spec("exec sleep 60"), [3]*os.File{})
	outR, outW := pipe(t)
	p, err := k.Exec(t.Context(), linux.ExecConfig{Args: []string{"sh", "-c", "echo $A; exit 3"}, Env: []string{"A=b"}, Stdio: [3]*os.File{1: outW}})
	if err != nil {
		t.Fatal(err)
	}
	outW.Close()
	if st, err := p.Wait(); st.Code != 3 || err != nil {
		t.Errorf("Wait() = %+v, %v; want code 3", st, err)
	}
	if got := text(t, outR); got != "b\n" {
		t.Errorf("stdout %q; want %q", got, "b\n")
	}
	p, err = k.Exec(t.Context(), linux.ExecConfig{Args: []string{"sleep", "60"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGUSR1); err != nil {
		t.Errorf("Signal() = %v", err)
	}
	if st, err := p.Wait(); st.Signal != syscall.SIGUSR1 || err != nil {
		t.Errorf("Wait() = %+v, %v; want SIGUSR1", st, err)
	}
	_, err = k.Exec(t.Context(), linux.ExecConfig{Args: []string{"/nothing/there"}})
	var said *agent.RemoteError
	if !errors.As(err, &said) || !strings.Contains(said.Msg, "no such file") {
		t.Errorf("Exec of nothing = %v; want what the agent found", err)
	}
	if s, err := k.Stats(); err != nil || s.Pids == 0 && s.CPUNanos == 0 {
		t.Errorf("Stats() = %+v, %v", s, err)
	}
	if err := k.Kill(); err != nil {
		t.Errorf("Kill() = %v", err)
	}
	if st, err := k.Wait(); st.Signal != syscall.SIGKILL || err != nil {
		t.Errorf("Wait() = %+v, %v; want SIGKILL", st, err)
	}
}

// TestTerminal gives a process a terminal of the guest that is joined to one of
// the host, and makes it larger.
func TestTerminal(t *testing.T) {
	r := full(t)
	k := r.run(t, spec("exec sleep 60"), [3]*os.File{})
	master, slave, err := linux.NewPTY(0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := master.Resize(console.WinSize{Height: 33, Width: 77}); err != nil {
		t.Fatal(err)
	}
	p, err := k.Exec(t.Context(), linux.ExecConfig{
		Args:  []string{"sh", "-c", "trap 'stty size; exit 5' WINCH; tty; stty size; while :; do sleep 0.05; done"},
		Stdio: [3]*os.File{slave, slave, slave}, Terminal: true,
	})
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string, 100)
	go func() { // ends when nobody holds the slave
		var all bytes.Buffer
		buf := make([]byte, 1000)
		for {
			n, err := master.Read(buf)
			all.Write(buf[:n])
			shown <- all.String()
			if err != nil {
				return
			}
		}
	}()
	await := func(want string) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		var last string
		for !strings.Contains(last, want) {
			select {
			case last = <-shown:
			case <-deadline:
				t.Fatalf("terminal shows %q; want %q", last, want)
			}
		}
	}
	await("/dev/pts/0\r\n33 77\r\n")
	if err := master.Resize(console.WinSize{Height: 44, Width: 88}); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGWINCH); err != nil {
		t.Errorf("Signal(SIGWINCH) = %v", err)
	}
	await("44 88\r\n")
	if st, err := p.Wait(); st.Code != 5 || err != nil {
		t.Errorf("Wait() = %+v, %v; want code 5", st, err)
	}
}

// TestMachineDies cuts the connection: all that waits ends, and says why.
func TestMachineDies(t *testing.T) {
	r := full(t)
	k := r.run(t, spec("exec sleep 60"), [3]*os.File{})
	waited := make(chan error, 1)
	go func() { _, err := k.Wait(); waited <- err }()
	r.host.Close()
	select {
	case err := <-waited:
		if !errors.Is(err, agent.ErrGone) {
			t.Errorf("Wait() = %v; want %v", err, agent.ErrGone)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Wait does not return")
	}
	if err := k.Signal(syscall.SIGTERM); !errors.Is(err, agent.ErrGone) {
		t.Errorf("Signal() = %v; want %v", err, agent.ErrGone)
	}
	if err := k.Destroy(); err != nil {
		t.Errorf("Destroy() = %v; nothing is left of it", err)
	}
}

// TestHook passes a callback on, with its context.
func TestHook(t *testing.T) {
	r := newRig(t, agent.HostConfig{})
	began := make(chan struct{})
	r.connect(t, agent.Config{Hook: func(ctx context.Context, h agent.HookCall) error {
		if h.Index == 1 {
			return fmt.Errorf("x.star:3:1: %s is not well", h.Container)
		}
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}})
	h := agent.HookCall{Container: "c", Index: 1, Event: json.RawMessage("{}")}
	if err := r.client.Hook(t.Context(), h); err == nil || err.Error() != "x.star:3:1: c is not well" {
		t.Errorf("Hook = %v; want the callback's error", err)
	}
	h.Index = 2
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if err := r.client.Hook(ctx, h); !errors.Is(err, context.Canceled) {
		t.Errorf("Hook = %v; want %v", err, context.Canceled)
	}
}

// TestEvents takes what the agent tells, in order.
func TestEvents(t *testing.T) {
	var mu sync.Mutex
	var got []string
	r := newRig(t, agent.HostConfig{Event: func(e agent.Event) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, e.Container+string(e.Event))
	}})
	r.connect(t, agent.Config{Hook: func(context.Context, agent.HookCall) error { return nil }})
	for i := range 3 {
		r.agent.Notify(agent.Event{Container: "c", Event: json.RawMessage(fmt.Sprint(i))})
	}
	if err := r.client.Hook(t.Context(), agent.HookCall{Event: json.RawMessage("{}")}); err != nil { // behind them
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := "[c0 c1 c2]"; fmt.Sprint(got) != want {
		t.Errorf("events %v; want %s", got, want)
	}
}

// TestIntruder is a process of the guest that is not the agent: whatever it
// sends, it is cut off and changes nothing.
func TestIntruder(t *testing.T) {
	hypercalls := 0
	r := newRig(t, agent.HostConfig{
		Hypercall: func(c net.Conn) { hypercalls++; c.Close() },
		File:      func(_ string, c net.Conn) bool { c.Close(); return true },
		Log:       slog.New(slog.DiscardHandler),
	})
	r.connect(t, agent.Config{Hook: func(context.Context, agent.HookCall) error { return nil }})
	known := "0102030000000000000000000000000000000000000000000000000000000004"
	wrong := strings.Repeat("0", 64)
	for _, line := range []string{
		"",
		"\n",
		"{}\n",
		`{"secret":"` + wrong + `","kind":"control"}` + "\n",
		`{"secret":"` + wrong + `","kind":"hypercall"}` + "\n",
		`{"secret":"` + known[:62] + `","kind":"hypercall"}` + "\n",
		`{"secret":"` + known + `","kind":"control"}` + "\n", // the second
		`{"kind":"control"}` + "\n",                          // it is told nothing
		`{"kind":"hypercall"}` + "\n",
		`{"secret":"` + known + `","kind":"stream","name":"x"}` + "\n",
		`{"secret":"` + known + `","kind":"other"}` + "\n",
		`{"secret":"` + known + `","kind":"hypercall","more":1}` + "\n",
		strings.Repeat("x", 5000),
	} {
		conn, err := r.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(line))
		conn.(*net.UnixConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.80q: read %d bytes, %v; want to be cut off", line, n, err)
		}
		conn.Close()
	}
	if hypercalls != 0 {
		t.Errorf("%d hypercall connections without the secret", hypercalls)
	}
	if r.host.Refused() != 13 {
		t.Errorf("Refused() = %d; want 13", r.host.Refused())
	}
	if err := r.client.Hook(t.Context(), agent.HookCall{Event: json.RawMessage("{}")}); err != nil {
		t.Errorf("the agent's own connection: %v", err)
	}
}

// TestExecHere runs a program in the guest itself, outside all containers.
func TestExecHere(t *testing.T) {
	r := newRig(t, agent.HostConfig{})
	r.connect(t, agent.Config{})
	outR, outW := pipe(t)
	p, err := r.client.Exec(t.Context(), linux.ExecConfig{Args: []string{"sh", "-c", "echo $A; exit 3"}, Env: []string{"A=here"}, Stdio: [3]*os.File{1: outW}})
	if err != nil {
		t.Fatal(err)
	}
	outW.Close()
	if st, err := p.Wait(); st.Code != 3 || err != nil {
		t.Errorf("Wait() = %+v, %v; want code 3", st, err)
	}
	if got := text(t, outR); got != "here\n" {
		t.Errorf("stdout %q; want %q", got, "here\n")
	}
	p, err = r.client.Exec(t.Context(), linux.ExecConfig{Args: []string{"sleep", "60"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("Signal() = %v", err)
	}
	if st, err := p.Wait(); st.Signal != syscall.SIGTERM || err != nil {
		t.Errorf("Wait() = %+v, %v; want SIGTERM", st, err)
	}
	if _, err := r.client.Exec(t.Context(), linux.ExecConfig{Args: []string{"no-such-program"}}); err == nil {
		t.Error("a program that is not there was run")
	}
}
