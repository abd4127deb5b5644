package bundle

import (
	"fmt"
	"slices"
	"strings"
)

// A MachineKind is a kind of kernel that containers run on. The zero kind is
// invalid.
type MachineKind string

// The kinds of machines.
const (
	MachineAuto MachineKind = "auto" // the best that runs here
	MachineHost MachineKind = "host" // the host's own kernel
	MachineUML  MachineKind = "uml"  // User-Mode Linux: a kernel as a process of the host
	MachineKVM  MachineKind = "kvm"  // a guest of KVM
)

// A Machine is the kernel that the containers of a pod run on.
type Machine struct {
	Kind MachineKind `json:"kind"`
	// Kernel is the kernel's image on the host, absolute; empty is seki's own.
	Kernel string `json:"kernel,omitempty"`
	// KernelArgs are words for the kernel's command line, of machine kvm alone; see
	// [CheckKernelArg].
	KernelArgs []string `json:"kernel_args,omitempty"`
	// Memory of the guest, in bytes; 0 is the kind's default.
	Memory int64 `json:"memory_bytes,omitempty"`
	// CPUs is how much of the host's processors the whole machine may take; 0 is
	// no limit.
	CPUs float64 `json:"cpus,omitempty"`
	// SharedNIC has all containers send through one card of the machine: who
	// sent a frame is found in the guest's memory. Otherwise each has its own.
	SharedNIC bool `json:"shared_nic,omitempty"`
}

// ownKernelArgs are the parameters that seki sets itself: without its process 1, its
// console and a panic that ends the machine there is nobody to run a container, and
// nobody to say why.
var ownKernelArgs = []string{"console", "init", "panic", "pci", "rdinit", "reboot", "root", "rootfstype"}

// CheckKernelArg says why a word cannot stand on a guest kernel's command line
// (Documentation/admin-guide/kernel-parameters.rst): one parameter, or NAME=VALUE.
func CheckKernelArg(word string) error {
	name, _, _ := strings.Cut(word, "=")
	switch {
	case name == "" || strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r == '"' || r > '~' }):
		return fmt.Errorf("%q: want one parameter, NAME or NAME=VALUE, of printable ASCII without spaces and quotes", word)
	case name == "--":
		return fmt.Errorf("%q ends the kernel's parameters: what follows is for seki's own agent", word)
	case slices.Contains(ownKernelArgs, name):
		return fmt.Errorf("%q: seki sets %s itself", word, name)
	}
	return nil
}
