// Package virtio has the device models that a machine gives its guest, over
// rings of package virtq and without a word of how they are attached: the same
// [Device] is served to User-Mode Linux over a socket (package vhostuser) and
// to a KVM guest by trapped registers.
//
//	transport ── Start(queue) ──▶ Device ── Pop, CopyOut, Push ──▶ virtq
//	          ── Kick(queue) ───▶        ── Interrupt(queue) ──▶ transport
//
// # Whose thread
//
// [Device.Kick] works on the thread that the kick came in on, and returns when
// everything that was available is done with: on KVM the vCPU that kicked, under
// User-Mode Linux the whole guest, stand still until then. A frame is judged
// while its sender is still the current task. What comes from outside
// ([Net.Deliver]) comes from any goroutine, never waits for the guest, and never
// holds what Kick needs. What programs of the host write to a [Vsock] waits for
// the guest's buffers on the writers' goroutines and one of the device's own.
//
// # What a broken guest gets
//
// A ring that breaks a rule of the specification breaks its queue: the device
// tells the transport, which asks the driver for a reset where it can, and
// ignores the queue until then. A buffer that is no good costs its own chain,
// which is given back with nothing in it, so that the queue cannot starve.
package virtio
