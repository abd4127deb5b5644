package linux_test

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// require skips the test where this machine lacks feature, unless
// SEKI_TEST_REQUIRE lists it: then that is a failure.
func require(t testing.TB, feature string, have bool) {
	t.Helper()
	if have {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), feature) {
		t.Fatalf("this machine lacks %s, which SEKI_TEST_REQUIRE asks for", feature)
	}
	t.Skipf("needs %s", feature)
}

func requireRoot(t testing.TB) {
	t.Helper()
	require(t, "root", os.Geteuid() == 0)
	_, err := os.Stat("/bin/busybox")
	require(t, "busybox", err == nil)
	_, err = os.Stat("/proc/self/ns/user")
	require(t, "userns", err == nil)
}
