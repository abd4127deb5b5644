package uml_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// asUser is set for the tests of TestAsUser, to where their programs are.
const asUser = "SEKI_TEST_AS_USER"

// TestAsUser runs the other tests again as a user who has nothing: no
// capability, no group, no directory.
func TestAsUser(t *testing.T) {
	requireKernel(t)
	require(t, "root", os.Geteuid() == 0)
	dir := filepath.Dir(compile(t, "init.c"))
	for _, from := range []string{os.Args[0], compile(t, "jailed.c")} {
		name := filepath.Base(from)
		if from == os.Args[0] {
			name = "tests" // lies where only root finds it
		}
		copyFile(t, from, filepath.Join(dir, name))
	}
	buildGuest(t, filepath.Join(dir, "guest"))
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(tmp, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "tests"), "-test.v", "-test.short", "-test.run",
		"^(TestBoot|TestAffinity|TestDevices|TestServed|TestBooted|TestEscapes|TestNothingThere|TestGuestRoot|TestProcess|TestKilled|TestSupervisorKilled|TestNothingLeft)$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asUser+"="+dir, "TMPDIR="+tmp, "HOME="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("--- SKIP")) || !bytes.Contains(out, []byte("--- PASS: TestNothingLeft")) {
		t.Errorf("as user 65534: %v\n%s", err, out)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
