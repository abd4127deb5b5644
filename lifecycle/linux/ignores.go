package linux

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// firstOfPIDNamespace reports whether the workload itself is process 1.
func (c *Config) firstOfPIDNamespace() bool { return !c.Spec.Reaper && c.newNS(specs.PIDNamespace) }

// Ignores reports whether the kernel would throw sig away: process 1 of a pid
// namespace gets only the signals that it handles (include/linux/sched/signal.h,
// SIGNAL_UNKILLABLE), or blocks to take later.
func (c *Container) Ignores(sig syscall.Signal) bool {
	if !c.first {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(c.Pid()) + "/status")
	if err != nil {
		return false
	}
	return !hasSignal(string(b), "SigCgt:", sig) && !hasSignal(string(b), "SigBlk:", sig)
}

// hasSignal looks sig up in a mask of /proc/PID/status, 64 bits in hexadecimal,
// signal 1 lowest.
func hasSignal(status, mask string, sig syscall.Signal) bool {
	_, rest, ok := strings.Cut(status, "\n"+mask)
	if !ok {
		return true // unknown: let it be tried
	}
	line, _, _ := strings.Cut(rest, "\n")
	m, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err != nil || m>>(sig-1)&1 == 1
}
