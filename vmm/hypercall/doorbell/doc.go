// Package doorbell is the guest's side of hypercalls over two I/O ports of
// machine kvm: a request is written to the host word by word, and its answer read
// the same way, while the vCPU stands in the exits.
//
//	OUT Port, length    begins a request
//	OUT Data, 4 bytes   of it, the last word padded: when it is whole, it is done
//	IN  Port            the answer's length; all ones: there is none
//	IN  Data            its next 4 bytes
//
// The words travel in the exits themselves. An address would be quicker to hand
// over, and wrong as soon as the guest's kernel moves the page between the look into
// its page tables and the call; mlock does not hinder it. Nor are string
// instructions used: KVM reads ahead for INS, and what it has read is lost when the
// page to write it to is not there yet. 20,000 bytes arrived whole in one of six tries.
//
// # Security considerations
//
// A process needs the right to those ports: CAP_SYS_RAWIO, which no container has
// unless its file says so. The host does not stop at that: it looks who runs
// (package introspect), and answers nobody but process 1.
package doorbell
