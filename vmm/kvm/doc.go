// Package kvm is the machine whose kernel is a guest of KVM: memory, processors,
// a serial console, virtio devices and the few registers that a PC without a BIOS
// needs, on gokvm's ioctls.
//
//	vCPU thread ── KVM_RUN ──▶ guest
//	            ◀── exit ──── port: serial console, power, reset
//	                          memory: virtio registers (package mmio)
//	                            └─ QueueNotify ─▶ Device.Kicked(registers of the vCPU) ─▶ virtio.Device.Kick
//	any goroutine ── eventfd ─▶ KVM's interrupt controller
//
// # A kick is done with before the guest runs on
//
// A notification of a queue is served on the thread of the vCPU that made it,
// inside the exit: what it sent is judged while its kernel stands still there.
// [Device.Kicked] is called right before, with the vCPU's registers ([Regs]) as
// KVM leaves them beside the exit (KVM_CAP_SYNC_REGS), and no other kick of the
// device runs meanwhile. The machine's memory is [Machine.Memory].
//
//	m, err := kvm.Start(ctx, &kvm.Config{
//		Image: kvm.Kernel{Path: "/boot/vmlinuz", InitRD: archives}, Memory: 256 << 20,
//		Devices: []kvm.Device{{Virtio: card, Kicked: func(r *kvm.Regs, queue int) { … }}},
//	})
//	…
//	err = m.Wait() // nil: it powered off
//
// [Program] is a guest of a few instructions instead, for tests and probes, and
// [Probe] one that finds out whether this host's /dev/kvm can run Linux at all.
//
// # A doorbell
//
// [Config.Doorbell] answers what a program of the guest asks through two ports
// (package vmm/hypercall/doorbell), again inside the exit, with the registers at hand
// that say who asks.
//
// # Security considerations
//
// The guest is an attacker's: any port, any address, any value, from several
// vCPUs at once. What nothing answers reads as all ones, and a write to it goes
// nowhere. Nothing here keeps a pointer into its memory (package guestmem), and
// the mapping that KVM has of it is touched by nobody else. A vCPU that cannot go
// on ends the machine, with the reason.
package kvm
