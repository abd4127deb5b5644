package lifecycle_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/console"

	"sekimori/lifecycle"
)

// callerTerminal makes a terminal of 33 lines of 77 characters, and returns the
// end at which people sit and the end that is a program's.
func callerTerminal(t *testing.T) (person console.Console, program *os.File) {
	t.Helper()
	person, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	if err := person.Resize(console.WinSize{Height: 33, Width: 77}); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// shows reads from the terminal until all that is wanted was seen.
func shows(t *testing.T, person console.Console, want ...string) {
	t.Helper()
	var got strings.Builder
	seen := func() bool {
		for _, w := range want {
			if !strings.Contains(got.String(), w) {
				return false
			}
		}
		return true
	}
	read := make(chan string)
	go func() { // ends with the test's terminal
		buf := make([]byte, 4096)
		for {
			n, err := person.Read(buf)
			if err != nil {
				return
			}
			read <- string(buf[:n])
		}
	}()
	for !seen() {
		select {
		case s := <-read:
			got.WriteString(s)
		case <-time.After(10 * time.Second):
			t.Fatalf("the terminal shows %q; want %q", got.String(), want)
		}
	}
}

// TestHostTerminal runs a container with a terminal of its own, joined to ours,
// and types.
func TestHostTerminal(t *testing.T) {
	s := busybox(t, "a", "sh", "-c", "stty size; read line; echo got $line")
	s.OCI.Process.Terminal = true
	cfg := hostPod(t, s)
	person, program := callerTerminal(t)
	cfg.Detached, cfg.Stdio = false, lifecycle.Stdio{In: program, Out: program, Err: program}
	p, err := lifecycle.Start(t.Context(), *cfg)
	if err != nil {
		t.Fatal(err)
	}
	person.Write([]byte("hello\r"))
	if code, err := wait(t, p); code != 0 || err != nil {
		t.Errorf("Wait() = %d, %v; want 0, nil", code, err)
	}
	shows(t, person, "33 77", "got hello")
}

// TestExecTerminal runs one more process with a terminal, through the control
// socket, and changes the size.
func TestExecTerminal(t *testing.T) {
	cfg := hostPod(t, busybox(t, "a", "sleep", "1000"))
	p, err := lifecycle.Start(t.Context(), *cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer wait(t, p)
	defer p.Kill()
	person, program := callerTerminal(t)
	c, err := lifecycle.Dial(cfg.Root, cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	term, err := c.OpenTerminal(t.Context(), "", program, program)
	if err != nil {
		t.Fatal(err)
	}
	defer term.Close()
	// Only a process that controls its terminal is told of a new size.
	proc, err := c.Exec(t.Context(), "", lifecycle.ExecConfig{
		Args:  []string{"sh", "-c", "trap 'stty size; exit 5' WINCH; tty; echo x > /dev/pts/0 && stty size; while :; do sleep 0.05; done"},
		Stdio: term.Stdio(), Terminal: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	term.Started()
	shows(t, person, "/dev/pts/0", "33 77")
	if err := person.Resize(console.WinSize{Height: 44, Width: 88}); err != nil {
		t.Fatal(err)
	}
	term.Resize(proc)
	if st, err := proc.Wait(); st.Code != 5 || err != nil {
		t.Errorf("Wait() = %+v, %v; want 5, nil", st, err)
	}
}

// TestTerminalOfOther: a terminal is one container's, and what is no terminal
// cannot be joined to it.
func TestTerminalOfOther(t *testing.T) {
	cfg := hostPod(t, busybox(t, "a", "sleep", "1000"), busybox(t, "b", "sleep", "1000"))
	p, err := lifecycle.Start(t.Context(), *cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer wait(t, p)
	defer p.Kill()
	c, err := lifecycle.Dial(cfg.Root, cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range []string{"", "a", "nosuch"} {
		if _, err := c.OpenTerminal(t.Context(), name, f, f); err == nil {
			t.Errorf("OpenTerminal(%q, /dev/null) is fine", name)
		}
	}
}

// TestTerminalFed: a container with a terminal is told of the end of an input
// that is none, also where the last line has no end.
func TestTerminalFed(t *testing.T) {
	for name, input := range map[string]string{"line": "exit 7\n", "part of a line": "exit 7", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			s := busybox(t, "a", "sh", "-c", "sh; exit $?")
			s.OCI.Process.Terminal = true
			cfg := hostPod(t, s)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			w.WriteString(input)
			w.Close()
			cfg.Detached, cfg.Stdio = false, lifecycle.Stdio{In: r}
			p, err := lifecycle.Start(t.Context(), *cfg)
			if err != nil {
				t.Fatal(err)
			}
			want := 7
			if input == "" {
				want = 0
			}
			if code, err := wait(t, p); code != want || err != nil {
				t.Errorf("Wait() = %d, %v; want %d, nil", code, err, want)
			}
		})
	}
}
