package uml

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// An ExitError says how a machine ended other than by its own will.
type ExitError struct {
	Status syscall.WaitStatus // of the kernel's process
	Why    string             // in words
	Last   string             // the last line on the console
}

func (e *ExitError) Error() string {
	if e.Last == "" {
		return "machine: " + e.Why
	}
	return fmt.Sprintf("machine: %s; its last words: %q", e.Why, e.Last)
}

// traps are known causes, by what the kernel prints.
var traps = []struct{ said, why string }{
	{"ptrace set fp regs failed, errno = 14", "xstate trap: the host's CPU has more floating-point state (AMX) than this kernel can restore; kernels from seki machine kernel build and from 7.0 on do"},
	{"must be not mounted noexec", "its memory file cannot be mapped executable"},
	{"Requested init", "there is no init in the initial file system, or it cannot be executed"},
	{"No working init found", "there is no init in the initial file system, or it cannot be executed"},
	{"Out of memory", "the guest is out of memory"},
	{"Attempted to kill init!", "the guest's kernel panicked: its first process ended"},
	{"Kernel panic", "the guest's kernel panicked"},
}

// aborted is the exit status of a kernel that would have sent itself SIGABRT,
// which the jail's filter does not let it.
const aborted = 127

func exitError(ws syscall.WaitStatus, c *reader) error {
	// A signal that comes late makes a kernel abort after it has powered off:
	// in 1 of 900 boots without a jail, by SIGABRT, and 3 of 2000 in one.
	if ws.Exited() && (ws.ExitStatus() == 0 || ws.ExitStatus() == aborted && strings.HasSuffix(c.Last(), "reboot: Power down")) {
		return nil
	}
	e := &ExitError{Status: ws, Last: c.Last()}
	switch {
	case ws.Signaled() && ws.Signal() == unix.SIGSYS:
		e.Why = "killed by the system call filter of its jail"
	case ws.Signaled() && ws.Signal() == unix.SIGKILL:
		e.Why = "killed"
	case ws.Signaled():
		e.Why = "ended by " + ws.Signal().String()
	default:
		e.Why = fmt.Sprintf("exit status %d", ws.ExitStatus())
	}
	said := c.String()
	for _, t := range traps {
		if strings.Contains(said, t.said) {
			e.Why = t.why
			break
		}
	}
	return e
}
