package linux_test

import (
	"bytes"
	"io"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/linux"
)

func TestQuickReaper(t *testing.T) {
	s := spec(t, "sh", "-c", "ps; (sleep 0.01 & ) ; sleep 0.05; ps; cat /proc/1/status | grep -E 'Vm|Rss'; exit 9")
	s.Reaper = true
	out, st := run(t, s)
	t.Log(out, st)
}
func TestQuickHost(t *testing.T) {
	s := spec(t, "sh", "-c", "id; ls -la / /etc/shadow /etc/passwd /usr/bin/ping; cat /etc/shadow; echo x > /etc/new; ls -l /etc/new; echo y >/usr/bin/zz; df -h /; ls -la /root /home; python3 -c 'print(1+1)'; ip a; ping -c1 -W1 127.0.0.1; ls -R /sys/fs/cgroup | head -20; dpkg -l | wc -l")
	s.Root = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}
	out, st := run(t, s)
	t.Log(out, st)
}
func TestQuickNoUser(t *testing.T) {
	s := spec(t, "sh", "-c", "id; ls -l /dev; cat /proc/self/uid_map; mount; exit 3")
	s.OCI.Linux.Namespaces = s.OCI.Linux.Namespaces[1:]
	out, st := run(t, s)
	t.Log(out, st)
}
func TestQuickExec(t *testing.T) {
	s := spec(t, "sleep", "100")
	_ = specs.Version
	c, err := linux.Create(t.Context(), linux.Config{ID: "test/exec", Spec: s, IDBase: idBase})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	if err := c.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, w, _ := os.Pipe()
	p, err := c.Exec(t.Context(), linux.ExecConfig{Args: []string{"sh", "-c", "id; ps; cat /proc/self/status /proc/self/cgroup; ls -l /proc/self/fd /proc/self/ns; exit 5"}, Stdio: [3]*os.File{nil, w, w}})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	var out bytes.Buffer
	io.Copy(&out, r)
	st, err := p.Wait()
	t.Log(out.String(), st, err)
	_, err = c.Exec(t.Context(), linux.ExecConfig{Args: []string{"nonesuch"}})
	t.Log(err)
	t.Log(c.Stats())
}
