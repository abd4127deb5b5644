package kvm

import (
	"errors"
	"fmt"
	"strings"
)

// An ExitError says how a machine ended other than by its own will.
type ExitError struct {
	Why  string // in words
	CPU  int    // the vCPU that ended it; -1 if it was none
	RIP  uint64 // its instruction pointer, if that is known
	Code []byte // the instruction that KVM could not carry out, if it says so
	Last string // the last line on the console
}

func (e *ExitError) Error() string {
	var b strings.Builder
	b.WriteString("machine: " + e.Why)
	if e.CPU >= 0 {
		fmt.Fprintf(&b, " (vCPU %d at %#x", e.CPU, e.RIP)
		if len(e.Code) > 0 {
			fmt.Fprintf(&b, ": % x", e.Code)
		}
		b.WriteString(")")
	}
	if e.Last != "" {
		fmt.Fprintf(&b, "; its last words: %q", e.Last)
	}
	return b.String()
}

// errPowerOff is the end that a guest wants.
var errPowerOff = errors.New("powered off")

// traps are known causes, by what the kernel prints.
var traps = []struct{ said, why string }{
	{"Requested init", "there is no init in the initial file system, or it cannot be executed"},
	{"No working init found", "there is no init in the initial file system, or it cannot be executed"},
	{"Out of memory", "the guest is out of memory"},
	{"Attempted to kill init!", "the guest's kernel panicked: its first process ended"},
	{"Kernel panic", "the guest's kernel panicked"},
}

// ended is what Wait returns for the reason that the machine ended with.
func ended(err error, said, last string) error {
	if errors.Is(err, errPowerOff) {
		return nil
	}
	var e *ExitError
	if !errors.As(err, &e) {
		return fmt.Errorf("machine: %w", err)
	}
	e.Last = last
	if e.CPU >= 0 {
		return e
	}
	for _, t := range traps {
		if e.Why == restarted && strings.Contains(said, t.said) {
			e.Why = t.why
			break
		}
	}
	return e
}

// restarted is also how a kernel that panicked ends.
const restarted = "the guest restarted"
