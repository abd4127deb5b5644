package linux_test

import (
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sekimori/lifecycle/linux"
)

// output execs in b and returns what the process writes.
func output(t testing.TB, b *box, cfg linux.ExecConfig) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cfg.Stdio[1], cfg.Stdio[2] = w, w
	p, err := b.Exec(t.Context(), cfg)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("after %q: %v", out, err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestExec(t *testing.T) {
	b := start(t, spec(t, "sleep", "100"))
	t.Run("same namespaces and cgroup", func(t *testing.T) {
		out := output(t, b, linux.ExecConfig{Args: []string{"sh", "-c", "for n in /proc/1/ns/*; do m=/proc/self/ns/${n##*/}; [ \"$(readlink $n)\" = \"$(readlink $m)\" ] || echo $n; done; [ \"$(cat /proc/1/cgroup)\" = \"$(cat /proc/self/cgroup)\" ] || echo cgroup; hostname"}})
		if out != "c\n" {
			t.Errorf("got %q", out)
		}
	})
	t.Run("environment, directory, user", func(t *testing.T) {
		out := output(t, b, linux.ExecConfig{Args: []string{"sh", "-c", "echo $A $HOME; pwd; id -u; id -G"}, Env: []string{"A=b", "A=c"}, Cwd: "/etc", User: "web"})
		if out != "c /srv\n/etc\n33\n34 10 29\n" {
			t.Errorf("got %q", out)
		}
	})
	t.Run("exit code and signal", func(t *testing.T) {
		p, err := b.Exec(t.Context(), linux.ExecConfig{Args: []string{"sh", "-c", "exit 3"}})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := p.Wait(); err != nil || st.Code != 3 {
			t.Errorf("got %+v, %v", st, err)
		}
		p, err = b.Exec(t.Context(), linux.ExecConfig{Args: []string{"sleep", "100"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if st, err := p.Wait(); err != nil || st.Signal != syscall.SIGINT {
			t.Errorf("got %+v, %v", st, err)
		}
	})
	t.Run("bad requests", func(t *testing.T) {
		for _, c := range []linux.ExecConfig{
			{}, {Args: []string{"nonesuch"}}, {Args: []string{"true"}, Cwd: "relative"}, {Args: []string{"true"}, Cwd: "/nonesuch"},
			{Args: []string{"true"}, User: "nobody-there"}, {Args: []string{"true"}, Env: []string{"=x"}}, {Args: []string{"true"}, Terminal: true},
			{Args: []string{"a\x00b"}},
		} {
			if p, err := b.Exec(t.Context(), c); err == nil {
				p.Wait()
				t.Errorf("%+v: no error", c)
			}
		}
	})
	t.Run("after the end", func(t *testing.T) {
		b.Kill()
		b.Wait()
		if _, err := b.Exec(t.Context(), linux.ExecConfig{Args: []string{"true"}}); err == nil || !strings.Contains(err.Error(), "it is stopped") {
			t.Errorf("got %v", err)
		}
	})
}

// The processes of exec die with the container.
func TestExecEndsWithContainer(t *testing.T) {
	b := start(t, sh(t, "echo ready; read x < /dev/zero; sleep 100"))
	p, err := b.Exec(t.Context(), linux.ExecConfig{Args: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Destroy(); err != nil {
		t.Error(err)
	}
	if st, err := p.Wait(); err != nil || st.Signal != syscall.SIGKILL {
		t.Errorf("got %+v, %v", st, err)
	}
}

// A container is killed while processes are being put into it. None of them is
// lost: each would keep the container from ending.
func TestExecWhileKilled(t *testing.T) {
	for range 15 {
		b := start(t, spec(t, "sleep", "100"))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for {
					p, err := b.Exec(t.Context(), linux.ExecConfig{Args: []string{"true"}})
					if err != nil {
						return
					}
					p.Wait()
				}
			})
		}
		time.Sleep(15 * time.Millisecond)
		ended := make(chan struct{})
		go func() {
			b.Kill()
			b.Wait()
			wg.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the container does not end")
		}
	}
}
