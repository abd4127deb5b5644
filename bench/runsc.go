package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runscVersion is the newest gvisor.dev/gvisor that the Go module proxy had when
// this was written, 2026-09-05. What it serves is the branch "go", which builds
// with the Go command alone.
const runscVersion = "v0.0.0-20260905035102-160fafc42237"

// A runsc is gVisor's runtime with a bundle to run: the nearest relative of machine
// uml, a kernel of its own for each sandbox, without root and without KVM.
type runsc struct {
	path, bundle, state string
	n                   int
}

// newRunsc builds runsc, once: it is kept in the user's cache. The bundle is a
// busybox that says hello, with cgroups as runsc has them by default; like ours in
// this measurement it has no network, and the platform is the default one, systrap.
func newRunsc(dir string) (*runsc, error) {
	path, err := buildRunsc()
	if err != nil {
		return nil, err
	}
	r := &runsc{path: path, bundle: dir, state: filepath.Join(dir, "runsc")}
	c := exec.Command(path, "spec", "--", "/bin/busybox", "echo", "hello")
	c.Dir = dir // where the root file system is, by the name that it writes
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("runsc spec: %w: %s", err, out)
	}
	return r, nil
}

// buildRunsc returns the path of the program.
func buildRunsc() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "seki-bench", runscVersion)
	path := filepath.Join(dir, "runsc")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	c := exec.Command("go", "install", "-trimpath", "-ldflags", "-s -w", "gvisor.dev/gvisor/runsc@"+runscVersion)
	c.Dir = os.TempDir() // of no module
	// Static: in the sandbox's root there is no loader for it.
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOBIN="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("build runsc: %w: %s", err, lines[len(lines)-1])
	}
	return path, nil
}

// command runs a container of the bundle.
func (r *runsc) command(more ...string) *exec.Cmd {
	r.n++
	args := append([]string{"--root", r.state, "--network=none", "run", "--bundle", r.bundle}, more...)
	return exec.Command(r.path, append(args, fmt.Sprintf("bench-%d-%d", os.Getpid(), r.n))...)
}

// close removes what runsc leaves: with --network=none it mounts an empty network
// namespace in its state directory, and never unmounts it.
func (r *runsc) close() error {
	err := unix.Unmount(filepath.Join(r.state, "null-netns"), unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // no container has run
	}
	return os.NewSyscallError("unmount", err)
}

// firstWord is the time from the start of a command to its first output, which
// is hello.
func firstWord(c *exec.Cmd) (time.Duration, error) {
	out, err := c.StdoutPipe()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := c.Start(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	took := time.Since(begin)
	if werr := c.Wait(); line != "hello\n" || werr != nil {
		return 0, fmt.Errorf("%s said %q, %v", filepath.Base(c.Path), line, errors.Join(err, werr))
	}
	return took, nil
}
