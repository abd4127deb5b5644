package virtio

import "encoding/binary"

// vsockHeaderLen is the length of struct virtio_vsock_hdr (virtio 1.2, 5.10.6):
//
//	src_cid dst_cid src_port dst_port len  type op   flags buf_alloc fwd_cnt
//	 le64    le64     le32     le32   le32 le16 le16 le32    le32     le32
const vsockHeaderLen = 44

// HostCID is the host's address, always (virtio 1.2, 5.10.4).
const HostCID = 2

// vsockStream is VIRTIO_VSOCK_TYPE_STREAM, the only type there is here.
const vsockStream = 1

// Operations (virtio 1.2, 5.10.6). Zero is invalid.
const (
	vsockRequest       = 1
	vsockResponse      = 2
	vsockReset         = 3
	vsockShutdown      = 4
	vsockRW            = 5
	vsockCreditUpdate  = 6
	vsockCreditRequest = 7
)

// Flags of a shutdown: what the sender of it will not do any more.
const (
	vsockNoReceive = 1
	vsockNoSend    = 2
	vsockNothing   = vsockNoReceive | vsockNoSend
)

// A vsockHeader stands before every packet.
type vsockHeader struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	n                uint32 // of the payload
	kind, op         uint16
	flags            uint32
	bufAlloc, fwdCnt uint32 // the sender's receive buffer, and what it has read of it
}

func (h *vsockHeader) decode(b *[vsockHeaderLen]byte) {
	le := binary.LittleEndian
	*h = vsockHeader{
		srcCID: le.Uint64(b[0:]), dstCID: le.Uint64(b[8:]),
		srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]), n: le.Uint32(b[24:]),
		kind: le.Uint16(b[28:]), op: le.Uint16(b[30:]), flags: le.Uint32(b[32:]),
		bufAlloc: le.Uint32(b[36:]), fwdCnt: le.Uint32(b[40:]),
	}
}

func (h *vsockHeader) encode(b *[vsockHeaderLen]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.n)
	le.PutUint16(b[28:], h.kind)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}

// A vsockRing is a buffer of bytes that grows up to its limit and goes round.
type vsockRing struct {
	b     []byte
	r, n  int // the first byte, and how many there are
	limit int
}

const vsockRingMin = 4 << 10

// room returns where the next k bytes go, in two pieces; k is at most what is
// free. They count once added.
func (b *vsockRing) room(k int) (one, two []byte) {
	if b.n+k > len(b.b) {
		size := max(vsockRingMin, len(b.b))
		for size < b.n+k {
			size *= 2
		}
		grown := make([]byte, min(size, b.limit))
		first, second := b.data(b.n)
		copy(grown[copy(grown, first):], second)
		b.b, b.r = grown, 0
	}
	w := b.r + b.n
	if w >= len(b.b) {
		w -= len(b.b)
	}
	one = b.b[w:min(w+k, len(b.b))]
	return one, b.b[:k-len(one)]
}

func (b *vsockRing) add(k int) { b.n += k }

func (b *vsockRing) free() int { return b.limit - b.n }

// data returns the first k bytes, in two pieces; k is at most what there is.
func (b *vsockRing) data(k int) (one, two []byte) {
	one = b.b[b.r:min(b.r+k, len(b.b))]
	return one, b.b[:k-len(one)]
}

// take drops the first k bytes. An empty ring begins at its beginning again, so
// that short messages stay in the same cache lines.
func (b *vsockRing) take(k int) {
	b.n -= k
	b.r += k
	if b.r >= len(b.b) {
		b.r -= len(b.b)
	}
	if b.n == 0 {
		b.r = 0
	}
}
