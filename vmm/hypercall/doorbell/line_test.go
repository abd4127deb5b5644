package doorbell_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/vmm/hypercall/doorbell"
)

// TestWithoutTheRight: who may not touch ports gets an error, and no fault. (With
// it, the ports of this machine would answer whatever they do: the rest is tested
// in a guest.)
func TestWithoutTheRight(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs another user than root")
	}
	if _, err := doorbell.Open(); !errors.Is(err, unix.EPERM) {
		t.Errorf("Open = %v; want EPERM", err)
	}
}
