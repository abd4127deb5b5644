package hostlink

import "encoding/binary"

// vnetHeader is the length of struct virtio_net_hdr, which PACKET_VNET_HDR puts
// before each frame (include/uapi/linux/virtio_net.h).
const vnetHeader = 10

// maxFrame is an Ethernet header and the largest IPv4 packet.
const maxFrame = 14 + 65535

// Of struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start,
// csum_offset; in the machine's byte order.
const (
	vnetFlags      = 0
	vnetGSO        = 1
	vnetCsumStart  = 6
	vnetCsumOffset = 8

	vnetNeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
)

// finish does what the host's kernel would have left to a card: it completes
// the checksum that begins as the sum of the pseudo header, and returns the frame
// behind the header. What is to be cut into segments is not sent on: the cable's
// end says that it takes one at a time.
func finish(b []byte) (frame []byte, ok bool) {
	if len(b) < vnetHeader || b[vnetGSO] != 0 {
		return nil, false
	}
	header, frame := b[:vnetHeader], b[vnetHeader:]
	if header[vnetFlags]&vnetNeedsCsum == 0 {
		return frame, true
	}
	start := int(binary.NativeEndian.Uint16(header[vnetCsumStart:]))
	at := start + int(binary.NativeEndian.Uint16(header[vnetCsumOffset:]))
	if start > len(frame) || at+2 > len(frame) {
		return nil, false
	}
	binary.BigEndian.PutUint16(frame[at:], checksum(frame[start:]))
	return frame, true
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
