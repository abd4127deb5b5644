package e2e_test

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestMachineClock: the clock that a program reads without asking the guest's kernel
// never disagrees with it, and it is read without asking: that takes a few hundredths
// of the time.
func TestMachineClock(t *testing.T) {
	requireMachine(t)
	if source, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource"); err != nil || string(source) != "tsc\n" {
		t.Skipf("needs tsc for the host's clock, which is %q (%v)", source, err)
	}
	r := newRig(t)
	file := r.write("clock.star", `
container(
    name = "a", rootfs = host_root(), args = ["/t/inside", "clock"],
    mounts = [bind("tools", "/t")],
)
`)
	out, errs, code := r.seki("run", "-q", "--machine", "uml", file)
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	m := regexp.MustCompile(`(?m)^(\d+) times as long`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("it says %q", out)
	}
	if times, err := strconv.Atoi(m[1]); err != nil || times < 10 {
		t.Errorf("the kernel is asked: %s", out)
	}
	t.Log(out)
}
