package e2e_test

import (
	"strings"
	"testing"
)

// TestMachineDistribution: a distribution's kernel, as its package installs it, with
// modules, hostfs built in and none of our patches, runs a pod for an ordinary user;
// or, on a CPU whose registers it cannot restore, says so.
func TestMachineDistribution(t *testing.T) {
	require(t, "root", "linux.uml", "setpriv", "ping")
	r := newRig(t, nobodyPrefix...)
	file := r.write("pod.star", `
P = policy(allow_arp = True, allow_ipv4 = True, allow_icmp = lambda src_ip: src_ip != ip("10.9.0.4"))
[container(
    name = name, rootfs = host_root(), args = ["sleep", "1000"], stop_timeout = "1s",
    capabilities = ["NET_RAW"], nic = nic(addr, policy = P),
) for name, addr in (("server", "10.9.0.2/24"), ("client", "10.9.0.3/24"), ("mute", "10.9.0.4/24"))]
`)
	if _, errs, code := r.seki("run", "-d", "-q", "--machine", "uml", "--kernel", "/usr/bin/linux.uml", file); code != 0 {
		if !strings.Contains(errs, "xstate trap") {
			t.Errorf("exit code %d: %s", code, errs)
		}
		return
	}
	if out := r.must("exec", "pod/client", "--", "cat", "/proc/version"); !strings.Contains(out, "buildd@") || strings.Contains(out, "sandbox") {
		t.Errorf("the kernel is %s", out)
	}
	for client, answers := range map[string]bool{"pod/client": true, "pod/mute": false} {
		out, errs, code := r.seki("exec", client, "--", "ping", "-c", "3", "-i", "0.2", "-W", "2", "10.9.0.2")
		if (code == 0) != answers {
			t.Errorf("%s: exit code %d; want an answer: %v\n%s%s", client, code, answers, out, errs)
		}
	}
	if got := r.stats("pod")["mute"].reasons(); got["predicate allow_icmp"] != 3 {
		t.Errorf("mute: dropped for %v; want 3 by its predicate", got)
	}
}
