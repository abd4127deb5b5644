package linux_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/linux"
)

// idBase is where the containers of these tests have their ids.
const idBase = 1 << 20

// rootfs makes a root directory with a busybox in it.
func rootfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	os.Chmod(dir, 0o755)
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "etc", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Join(dir, "tmp"), 0o1777)
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"sh", "echo", "cat", "ls", "id", "mount", "sleep", "ps", "touch", "stat", "hostname", "readlink", "dd", "grep", "mkdir", "head", "kill", "true", "wc", "mknod", "ln", "tr", "sed", "ip", "env", "pwd", "seq"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", n)); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n1000:x:0:0::/:/bin/sh\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "etc/group"), []byte("root:x:0:\nweb:x:33:\naudio:x:29:web\n"), 0o644)
	return dir
}

// spec is a default container that runs args in a busybox root under an overlay.
func spec(t testing.TB, args ...string) *bundle.Spec {
	s := bundle.Default("c")
	s.Root = bundle.RootFS{Kind: bundle.RootDir, Path: rootfs(t), Overlay: true}
	s.OCI.Process.Args = args
	return s
}

// run runs s to its end and returns its output and status.
func run(t testing.TB, s *bundle.Spec) (string, linux.ExitStatus) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := linux.Create(context.Background(), linux.Config{ID: "test/" + t.Name()[:min(20, len(t.Name()))], Spec: s, Stdio: [3]*os.File{nil, w, w}, IDBase: idBase})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var out bytes.Buffer
	io.Copy(&out, r)
	st, err := c.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), st
}

func TestHello(t *testing.T) {
	out, st := run(t, spec(t, "sh", "-c", "echo hello; id; hostname; mount; ls -l / /dev; cat /proc/self/status /proc/self/cgroup; ls -l /proc/self/fd; cat /proc/self/mountinfo; ps; exit 7"))
	t.Log(out)
	if st.Code != 7 {
		t.Errorf("status %+v, want 7", st)
	}
}
