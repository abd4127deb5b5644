// Package agent is the conversation between seki on the host and the agent in
// a guest machine, which is the same binary as the guest's process 1. The host
// says which containers to make, and the agent makes them with package
// [sekimori/lifecycle/linux], as the host would on its own kernel.
//
// # Connections
//
// The agent opens every connection, all to one listener of the host; which
// transport carries them (vsock, TCP, a socket pair in tests) is the caller's.
// Each begins with a preamble, a JSON object on a line:
//
//	control     one; messages both ways, see [peer]
//	hypercall   one; requests and answers of package vmm/hypercall
//	file        one for each export: 9P2000.L, served by the host
//	stream      one for each standard stream or terminal of a process
//
// # A container's life
//
//	host                                   agent
//	  |  setup: files of the pod, exports    |   mounts the exports
//	  |  create ---------------------------> |   linux.Create; opens the streams
//	  |  attach: card, program ------------> |   hypercalls, moves the card into the namespace
//	  |  prepare, start -------------------> |   linux.Container.Prepare, Start
//	  |  hook ------------------------------> |   runs the callback; hypercalls
//	  |  wait <----------------------------- |   exit status
//	  |  destroy --------------------------> |   nothing is left
//
// # Security considerations
//
// The guest is not trusted. A container may own the guest's kernel, and then
// everything the agent says is a lie that costs its own pod only: every length
// is bounded, every message decoded strictly, names that the guest sends are
// looked up and never followed as paths, and what the guest never answers ends
// with the caller's context. A process of the guest that is not the agent may
// open connections to the same listener: it does not know the secret, and is cut
// off. The secret is told, once, to whoever opens the control connection: that is
// process 1, for the guest has no other until it is told to make one.
package agent
