// Package vhostuser serves virtio devices over a socket, by the vhost-user
// protocol, as User-Mode Linux asks for them (arch/um/drivers/virtio_uml.c,
// v6.12; virtio_uml.device=PATH:TYPE on its command line). The guest's memory
// comes as a file descriptor, its rings as addresses in it.
//
//	guest                                                       seki
//	  SET_OWNER, features, SET_SLAVE_REQ_FD ───────────────────▶
//	  SET_MEM_TABLE {fd} ──────────────────────────────────────▶ guestmem.Map
//	  SET_VRING_NUM, BASE, ADDR, ENABLE ───────────────────────▶ virtq.New, Device.Start
//	  VRING_KICK {queue}   (the guest stands still) ───────────▶ Device.Kick: copy, judge, forward
//	  ◀────────────────────────────────────────────────── ack
//	  ◀──────────────────────── VRING_CALL {queue}, on the other socket: interrupt
//
// # Synchronous kicks, or none
//
// A guest has to negotiate REPLY_ACK and INBAND_NOTIFICATIONS: its kicks are
// then messages that it waits for the answer of, and while it waits the task
// that sent a frame is still its current one. Of 20,000 frames of four
// processes, all were told right so; with eventfd kicks 2,909 to 6,201 were
// wrong, and with messages that nobody waits for 12,730. So a guest that does
// not negotiate both is refused.
//
// # Security considerations
//
// The peer is a process that an attacker may own: a guest whose kernel he
// controls is one.
//
//   - What he breaks is his own connection. Every message has a fixed shape, a
//     state it is allowed in and a number of descriptors; anything else ends
//     [Serve] with a [*ProtocolError].
//   - Descriptors are counted: those that a message may not carry, or that turn
//     out to be of the wrong kind, are closed.
//   - Memory is only taken from shared memory files, is bounded in size and in
//     how often it changes, and may vanish at any time (package guestmem).
//   - Nobody is waited for: an interrupt that finds the peer's socket full is
//     sent later, and [Serve] returns as soon as its context is done, whatever
//     the peer does.
package vhostuser
