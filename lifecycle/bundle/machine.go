package bundle

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
	// Memory of the guest, in bytes; 0 is the kind's default.
	Memory int64 `json:"memory_bytes,omitempty"`
	// CPUs is how much of the host's processors the whole machine may take; 0 is
	// no limit.
	CPUs float64 `json:"cpus,omitempty"`
	// SharedNIC has all containers send through one card of the machine: who
	// sent a frame is found in the guest's memory. Otherwise each has its own.
	SharedNIC bool `json:"shared_nic,omitempty"`
}
