// Package taptest makes network namespaces for tests: real ones, that nothing
// reaches from outside and that end with the test.
package taptest

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// NetNS returns a new, empty network namespace, lo down. It ends with the
// test, unless something else holds on to it. Without the right to make one
// the test is skipped, naming the feature "netns".
func NetNS(t testing.TB) *os.File {
	t.Helper()
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			c <- result{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		c <- result{f, err}
	}()
	r := <-c
	if errors.Is(r.err, unix.EPERM) {
		Missing(t, "netns", r.err)
	}
	if r.err != nil {
		t.Fatalf("make network namespace: %v", r.err)
	}
	t.Cleanup(func() { r.f.Close() })
	return r.f
}

// TUN skips the test where the host has no TUN device.
func TUN(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		Missing(t, "tun", err)
	}
}

// Missing skips the test for want of a feature, or fails it if
// SEKI_TEST_REQUIRE, a list with commas, names the feature.
func Missing(t testing.TB, feature string, err error) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), feature) {
		t.Fatalf("required feature %s is missing: %v", feature, err)
	}
	t.Skipf("missing feature: %s: %v", feature, err)
}
