package e2e_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	inkernel "sekimori/nicshadow/kernel"
	"sekimori/vmm/landlock"
	"sekimori/vmm/uml/kernel"
)

// require skips the test unless the machine has each feature, and says which
// it misses. Where SEKI_TEST_REQUIRE lists the feature, that fails instead.
func require(t *testing.T, features ...string) {
	t.Helper()
	for _, f := range features {
		if why := missing(f); why != "" {
			if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), f) {
				t.Fatalf("SEKI_TEST_REQUIRE wants %s: %s", f, why)
			}
			t.Skipf("needs %s: %s", f, why)
		}
	}
}

// missing says why a feature is not there, or nothing. A name with a slash or
// of no known feature is a command.
func missing(feature string) string {
	switch feature {
	case "root":
		if os.Geteuid() != 0 {
			return "not root"
		}
	case "netns":
		if err := onThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }); err != nil {
			return "unshare: " + err.Error()
		}
	case "tun":
		f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			return err.Error()
		}
		f.Close()
	case "bpf":
		if err := inkernel.Supported(); err != nil {
			return err.Error()
		}
	case "uml":
		if _, err := kernel.Find(kernel.Dirs(os.Getenv)...); err != nil {
			return err.Error()
		}
	case "landlock":
		if _, err := landlock.Version(); err != nil {
			return err.Error()
		}
	default:
		if _, err := exec.LookPath(feature); err != nil {
			return err.Error()
		}
	}
	return ""
}
