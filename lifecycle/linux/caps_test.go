package linux_test

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"sekimori/lifecycle/bundle"
)

const capLines = "Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:"

// The five sets, as the kernel sees them after execve.
func TestCapabilities(t *testing.T) {
	status := func() *bundle.Spec { return spec(t, "grep", "-E", capLines, "/proc/self/status") }
	t.Run("none", func(t *testing.T) {
		s := status()
		s.OCI.Process.Capabilities = nil
		want(t, s, "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n")
	})
	t.Run("a user that is not root", func(t *testing.T) {
		// The kernel's rule: execve leaves such a user the ambient set, which is empty.
		want(t, user(status(), "web"), "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000800405fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n")
	})
	t.Run("ambient", func(t *testing.T) {
		s := user(status(), "web")
		one := []string{"CAP_NET_BIND_SERVICE"}
		s.OCI.Process.Capabilities = &specs.LinuxCapabilities{Bounding: one, Permitted: one, Effective: one, Inheritable: one, Ambient: one}
		want(t, s, "CapInh:\t0000000000000400\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\nCapBnd:\t0000000000000400\nCapAmb:\t0000000000000400\nNoNewPrivs:\t1\nSeccomp:\t2\n")
	})
	t.Run("without no_new_privs", func(t *testing.T) {
		s := status()
		s.OCI.Process.NoNewPrivileges = false
		want(t, s, "CapInh:\t0000000000000000\nCapPrm:\t00000000800405fb\nCapEff:\t00000000800405fb\nCapBnd:\t00000000800405fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n")
	})
	t.Run("unconfined", func(t *testing.T) {
		s := spec(t, "grep", "Seccomp:", "/proc/self/status")
		s.OCI.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
		want(t, s, "Seccomp:\t0\n")
	})
	t.Run("a profile of its own", func(t *testing.T) {
		s := sh(t, "mkdir /tmp/x 2>/dev/null || echo refused")
		n := uint(1)
		s.OCI.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &n}}}
		want(t, s, "refused\n")
	})
}
