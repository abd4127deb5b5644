package kvm_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"sekimori/vmm/kvm"
)

// TestProbe: the probe has a clear answer on any /dev/kvm that runs programs, and
// names the instruction if it is no.
func TestProbe(t *testing.T) {
	start(t, kvm.Config{Image: program(code{}.off())}).Wait()
	err := kvm.Probe(t.Context())
	if os.Getenv("SEKI_TEST_KVM_LINUX") != "" && err != nil {
		t.Fatalf("Probe = %v, where Linux runs", err)
	}
	var pe *kvm.ProbeError
	var ended *kvm.ExitError
	switch {
	case err == nil:
		t.Log("Linux runs here")
	case !errors.As(err, &pe) || !errors.As(err, &ended):
		t.Errorf("Probe = %v; want nil or a ProbeError", err)
	case !strings.Contains(err.Error(), "/dev/kvm cannot run Linux: it fails at "+pe.Instruction) || pe.Instruction == "":
		t.Errorf("Probe = %v", err)
	default:
		t.Log(err, ended)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := kvm.Probe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Probe = %v; want the context's error", err)
	}
}
