// Package guestmem is the only way to a guest's memory: by guest-physical
// address, with every range checked, and never by a pointer.
//
// A [Memory] is made of the file descriptors that a guest shares ([Map]), of
// memory of our own ([New]), or of byte slices ([FromSlices]). It is copied
// out of and into private buffers with [Memory.Read] and [Memory.Write]; what
// the guest and the device both change at the same time, the words of a ring,
// is loaded and stored whole with [Memory.Load32] and its kin.
//
// # Security considerations
//
// The other end may be a guest kernel that an attacker owns, and under
// User-Mode Linux it is a process that shares a file with us.
//
//   - An address is a number to be checked, never trusted: a range that is not
//     wholly in the guest's RAM is a [*RangeError], and nothing is copied.
//
//   - The guest can shrink the file behind its memory at any time, and a file
//     system that is full cannot back a page: either raises SIGBUS in whoever
//     touches it. That is caught and is a [*FaultError]; without it any guest
//     could kill the supervisor of every pod with one ftruncate.
//
//   - The bytes change under our hands. Read once into a private buffer, then
//     check the buffer and use the buffer (XSA-155 is what happens otherwise).
//
//   - A closed memory stays reserved, without pages, for as long as anybody
//     holds the [Memory]: a late access gets an error, and never what was
//     mapped there next.
//
// Guests are little-endian, and so are the hosts that this runs on: words are
// in the host's order.
package guestmem
