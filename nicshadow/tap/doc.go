// Package tap makes the card of a container on machine host: a TAP device
// inside the container's network namespace, whose other end the supervisor
// holds. What the container's kernel sends comes out of [Device.Read], what is
// given to [Device.Write] the kernel receives, one Ethernet frame a call.
//
// # Security considerations
//
// The card belongs to the container's namespace, and a container with
// CAP_NET_ADMIN may do with it what it likes: set it down, change its address,
// rename it, delete it. None of that reaches further. Its frames still come out
// of this one descriptor, which is what attributes them; the device has a
// single queue, so that the container cannot attach a second descriptor to it
// (TUNSETIFF is EBUSY); no offload is offered (no IFF_VNET_HDR, no
// TUNSETOFFLOAD), so that every frame is whole and has its checksum; a frame
// longer than the reader's buffer is cut to it, so the reader's buffer must be
// longer than the longest frame it accepts. When the card is deleted, Read and
// Write return EBADFD.
package tap
