package nested

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Feature is what SEKI_TEST_REQUIRE calls a machine that can boot L1.
const Feature = "nested"

// Require returns Debian's kernel of a series. It skips the test where the
// machine lacks what a boot needs, unless SEKI_TEST_REQUIRE lists it: then that
// is a failure.
func Require(t testing.TB, series string) Kernel {
	t.Helper()
	k, err := Find(series)
	for _, program := range []string{"qemu-system-x86_64", "busybox"} {
		_, look := exec.LookPath(program)
		err = errors.Join(err, look)
	}
	needs(t, err)
	return k
}

// RequireFull returns the image of Debian's kernel of a series for every machine,
// beside which are those of its modules that seki hands to a guest.
func RequireFull(t testing.TB, series string) string {
	t.Helper()
	images, err := filepath.Glob(filepath.Join(Dir(), "full", series+".*", "vmlinuz"))
	if err == nil && len(images) == 0 {
		err = fmt.Errorf("%w: %s for every machine in %s", ErrNoKernel, series, Dir())
	}
	needs(t, err)
	return images[len(images)-1]
}

// needs skips the test, or fails it, if err says that something is missing.
func needs(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), Feature) {
		t.Fatalf("SEKI_TEST_REQUIRE wants %s: %v", Feature, err)
	}
	t.Skipf("needs %s: %v", Feature, err)
}

// Build builds a program of the module, static, and returns its path.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	return build(t, filepath.Base(pkg), "build", pkg)
}

// BuildTest builds the test binary of a package.
func BuildTest(t testing.TB, pkg string) string {
	t.Helper()
	return build(t, filepath.Base(pkg)+".test", "test", "-c", pkg)
}

// BuildInit builds process 1 of L1.
func BuildInit(t testing.TB) string {
	t.Helper()
	return Build(t, "sekimori/e2e/nested/init")
}

func build(t testing.TB, name, verb string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", append([]string{verb, "-trimpath", "-ldflags=-s -w", "-o", out}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("go %s %v: %w\n%s", verb, args, err, text))
	}
	return out
}
