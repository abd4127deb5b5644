// Package mmio attaches virtio devices to a guest by trapped memory: one page of
// registers each, as virtio 1.2, section 4.2 lays them out. A guest finds the
// pages in its ACPI tables, so there is no bus to scan, no BAR to move and no
// capability list to follow.
//
//	guest ── load, store ──▶ hypervisor ── Read, Write ──▶ Registers ── Start, Stop ──▶ Device
//	      ── store to QueueNotify ──▶ Write says which queue ── Kick ──────────────────▶
//	      ◀── interrupt ── hypervisor ◀── Config.Interrupt ◀───────────────────────────
//
// It knows no hypervisor: what traps the accesses calls [Registers.Read] and
// [Registers.Write], from any number of threads.
//
// # Security considerations
//
// The guest writes any register, at any time, from several processors at once.
//
//   - What the driver says of a queue counts until DRIVER_OK, and what is written
//     later is ignored: a guest that changed a queue's size while it ran had
//     Firecracker write out of bounds (CVE-2026-5747).
//   - A queue is made of what was said when it was started, with every address
//     checked by package virtq; the registers are not looked at again.
//   - An access that is not one of the specification's, of another width or
//     beside the registers, reads as zero and writes nothing.
//   - A driver that breaks a queue is told so by DEVICE_NEEDS_RESET, and is
//     logged a bounded number of times.
package mmio
