package e2e_test

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// Environment of the tests in a machine whose /dev/kvm runs Linux, which e2e/nested
// makes: there what they say of machine uml must hold of machine kvm.
const (
	kvmKernel   = "SEKI_TEST_KVM_KERNEL" // of its guests
	kernelArg   = "SEKI_TEST_KERNEL_ARG" // a parameter for them, if any
	programsDir = "SEKI_TEST_PROGRAMS"   // has seki and tools/inside: there is no Go
)

// onKVM reports whether it is machine kvm that is tested.
func onKVM() bool { return os.Getenv(kvmKernel) != "" }

// requireMachine is [require] for a test of a machine with a kernel of its own.
func requireMachine(t *testing.T, features ...string) {
	t.Helper()
	if !onKVM() {
		features = append(features, "uml")
	}
	require(t, features...)
}

// ownKernel are the arguments of machine() in Starlark.
func ownKernel() string {
	if onKVM() {
		return fmt.Sprintf(`"kvm", kernel = %q, kernel_args = %q.split(), cpu = 1`, os.Getenv(kvmKernel), os.Getenv(kernelArg))
	}
	return `"uml"`
}

// ownKernelFlags are those of seki run.
func ownKernelFlags() []string {
	if onKVM() {
		flags := []string{"--machine", "kvm", "--kernel", os.Getenv(kvmKernel)}
		if arg := os.Getenv(kernelArg); arg != "" {
			flags = append(flags, "--kernel-arg", arg)
		}
		return flags
	}
	return []string{"--machine", "uml"}
}

// ordinaryUser is what stands before seki's name for it to run as one. Where kvm is
// tested there is only busybox, whose setpriv cannot do that.
func ordinaryUser() []string {
	if onKVM() {
		return []string{"su", "-s", "/bin/sh", "nobody", "-c", `HOME=/tmp exec "$@"`, "--", "sh"}
	}
	return nobodyPrefix
}

// patience is how long to wait for what takes that long on machine uml: an emulated
// processor is some twenty times slower.
func patience(d time.Duration) time.Duration {
	if onKVM() {
		return 20 * d
	}
	return d
}
