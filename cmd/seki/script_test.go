package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sekimori/cmd/seki/early"
	inkernel "sekimori/nicshadow/kernel"
	"sekimori/vmm/uml/kernel"
)

// The test binary is seki itself when it is called so.
func TestMain(m *testing.M) {
	if isAgent(os.Args) { // process 1 of a machine that a script started
		runAgent()
	}
	early.AllProcessors()
	testscript.Main(m, map[string]func(){"seki": main})
}

// TestScript runs each testdata/script/*.txtar: commands on top, files below.
func TestScript(t *testing.T) {
	testscript.Run(t, scripts(t, filepath.Join("..", "..", "testdata", "script")))
}

// scripts is how those of a directory are run.
func scripts(t *testing.T, dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition:           condition,
		Setup: func(env *testscript.Env) error {
			root := filepath.Join(env.WorkDir, "state")
			env.Setenv("SEKI_ROOT", root)
			top, err := filepath.Abs(filepath.Join("..", ".."))
			env.Setenv("TOP", top)
			// A script that fails half-way leaves its pods to us.
			env.Defer(func() { killAll(t, root) })
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":   scriptCode,
			"until":  scriptUntil,
			"rootfs": scriptRootfs,
			"nobody": scriptNobody,
		},
	}
}

// TestScriptKernel runs the scripts that run pods on the host once more, with
// cards whose frames the kernel judges: nobody who runs a pod sees a difference.
func TestScriptKernel(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "script")
	files, err := filepath.Glob(filepath.Join(dir, "run_*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	to, n := t.TempDir(), 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "= nic(") || strings.Contains(string(b), "datapath") || strings.Contains(string(b), "/dev/net") {
			continue // one has no card, one is about this, one is about TAP devices
		}
		text := strings.ReplaceAll(string(b), "= nic(", `= nic(datapath = "kernel", `)
		text = "[!bpf] skip 'no programs of the kernel'\n" + text
		if err := os.WriteFile(filepath.Join(to, filepath.Base(f)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n < 5 {
		t.Fatalf("%d scripts have a card, want 5 at least", n)
	}
	testscript.Run(t, scripts(t, to))
}

// killAll ends what still runs in a state directory.
func killAll(t *testing.T, root string) {
	a := app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: t.Output(), env: os.Getenv, root: root}
	pods, err := a.pods()
	if err != nil {
		t.Error(err)
	}
	for _, p := range pods {
		if err := a.stop(context.Background(), p.Name, 0, true); err != nil {
			t.Error(err)
		}
	}
}

// features are what a script may need, and how to find out whether it is here.
var features = map[string]func() error{
	"root": func() error {
		if os.Geteuid() != 0 {
			return fmt.Errorf("running as uid %d", os.Geteuid())
		}
		return nil
	},
	"tun": func() error {
		f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err
	},
	"bpf": inkernel.Supported,
	"userns": func() error {
		b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
		if err == nil && strings.TrimSpace(string(b)) == "0" {
			err = errors.New("user.max_user_namespaces is 0")
		}
		return err
	},
	"uml": func() error {
		if _, err := kernel.Find(kernel.Dirs(os.Getenv)...); err != nil {
			return err
		}
		// The test binary is process 1 of the guest.
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			return err
		}
		defer self.Close()
		e, err := elf.NewFile(self)
		if err != nil {
			return err
		}
		return static(e)
	},
	"arpspoof": func() error {
		_, err := exec.LookPath("arpspoof")
		return err
	},
	"busybox": func() error { _, err := busybox(); return err },
}

// condition answers [root], [tun] and so on. A feature that SEKI_TEST_REQUIRE
// lists and that is missing is an error, not a reason to skip.
func condition(name string) (bool, error) {
	probe, ok := features[name]
	if !ok {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	err := probe()
	if err != nil && slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), name) {
		return false, fmt.Errorf("%s is required (SEKI_TEST_REQUIRE) and missing: %w", name, err)
	}
	return err == nil, nil
}

// scriptCode: code N PROGRAM ARG... runs a program that must exit with N.
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exited with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// scriptUntil: until SECONDS PROGRAM ARG... runs a program until it succeeds.
func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until SECONDS PROGRAM ARG...")
	}
	seconds, err := strconv.Atoi(args[0])
	ts.Check(err)
	for end := time.Now().Add(time.Duration(seconds) * time.Second); ; time.Sleep(20 * time.Millisecond) {
		// Not ts.Exec, which would write every try into the test's log.
		cmd := exec.Command("env", args[1:]...)
		cmd.Dir = ts.MkAbs(".")
		for _, name := range []string{"HOME", "PATH", "SEKI_ROOT", "WORK"} {
			cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
		}
		out, err := cmd.CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s: still %v: %s", strings.Join(args[1:], " "), err, out)
		}
	}
}

// scriptRootfs: rootfs DIR makes a root file system of busybox alone.
func scriptRootfs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: rootfs DIR")
	}
	box, err := busybox()
	ts.Check(err)
	b, err := os.ReadFile(box)
	ts.Check(err)
	root := ts.MkAbs(args[0])
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		ts.Check(os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	ts.Check(os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755))
	for _, name := range []string{"cat", "echo", "env", "false", "id", "ip", "ls", "ping", "sh", "sleep", "test", "touch", "true"} {
		ts.Check(os.Symlink("busybox", filepath.Join(root, "bin", name)))
	}
}

// busybox finds a busybox that needs no libraries.
func busybox() (string, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err == nil && !strings.Contains(string(out), "not a dynamic executable") && !strings.Contains(string(out), "statically linked") {
		return "", fmt.Errorf("%s is not static (Debian: busybox-static)", path)
	}
	return path, nil
}

// scriptNobody: nobody PROGRAM ARG... runs a program as a user without
// privileges, who may write to nothing but /tmp.
func scriptNobody(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: nobody PROGRAM ARG...")
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		path = args[0]
	}
	err = ts.Exec("setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", path}, args[1:]...)...)
	if (err != nil) != neg {
		ts.Fatalf("%v: %v", args, err)
	}
}
