// Package bundle describes a container: what the OCI runtime specification can
// say of it, and the little that it cannot (where the root file system comes
// from, the network card).
package bundle

import (
	"net/netip"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A Spec is one container, whole: all that is needed to create it. It is
// plain data and encodes as JSON; paths in it are absolute.
type Spec struct {
	// Name is unique in the pod: [a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}.
	Name string `json:"name"`
	// OCI says the rest in the words of the OCI runtime specification 1.3:
	// process, hostname, mounts, namespaces, resources, seccomp, masked paths.
	// Root.Path is empty until the root file system of Root is prepared.
	OCI specs.Spec `json:"oci"`
	// Root is where the root file system comes from.
	Root RootFS `json:"root"`
	// NIC is the container's only network card besides lo; nil for none.
	NIC *NIC `json:"nic,omitempty"`
	// Reaper puts a small process that reaps orphans at PID 1, with the
	// workload as its child; for workloads that do not wait for children.
	Reaper bool `json:"reaper,omitempty"`
}

// A RootKind is a source of root file systems. The zero kind is invalid.
type RootKind string

// The kinds of root file systems.
const (
	RootDir  RootKind = "dir"  // a directory of the host
	RootHost RootKind = "host" // the host's own root
)

// A RootFS is the source of a container's root file system.
type RootFS struct {
	Kind RootKind `json:"kind"`
	// Path is the directory (RootDir).
	Path string `json:"path,omitempty"`
	// Overlay puts a private, writable layer in memory over it, forgotten when
	// the container ends: the source is never written. Without it the source
	// itself is mounted, read-only if OCI.Root.Readonly says so.
	Overlay bool `json:"overlay,omitempty"`
}

// A NIC is a virtual Ethernet card inside the container.
type NIC struct {
	// Name is the interface name inside, usually eth0; at most 15 bytes.
	Name string `json:"name"`
	// MAC is the hardware address, six octets in colon notation.
	MAC string `json:"mac"`
	// Addrs are the addresses with their prefix lengths, IPv4 and IPv6. IPv6 is
	// switched off on the card unless one of them is IPv6, or DHCP6 is set.
	Addrs []netip.Prefix `json:"addrs"`
	// DHCP and DHCP6 say that the container asks for its address itself, IPv4 or
	// IPv6; it has no Addrs of that version then.
	DHCP  bool `json:"dhcp,omitempty"`
	DHCP6 bool `json:"dhcp6,omitempty"`
	// Audit says that what a policy drops goes on, and is recorded.
	Audit bool `json:"audit,omitempty"`
	// Gateways are the default routes, at most one for each IP version.
	Gateways []netip.Addr `json:"gateways,omitempty"`
	// MTU in bytes; 0 means 1500.
	MTU int `json:"mtu,omitempty"`
	// Datapath is where its frames are judged: in the supervisor, or by programs
	// of the kernel.
	Datapath Datapath `json:"datapath,omitempty"`
}

// A Datapath is where the frames of a card are judged. The zero Datapath is the
// supervisor.
type Datapath string

// DatapathKernel has programs of the host's kernel judge frames; machine host
// only.
const DatapathKernel Datapath = "kernel"

// An Uplink is the pod switch's port to the host: a TAP device there.
type Uplink struct {
	// MAC of the host's end, six octets in colon notation.
	MAC string `json:"mac"`
	// Addrs of the host's end: the containers' gateways.
	Addrs []netip.Prefix `json:"addrs"`
	// Masquerade rewrites the source of what leaves the host for elsewhere.
	Masquerade bool `json:"masquerade,omitempty"`
}
