package p9

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Message types, include/net/9p/9p.h. A reply is its request's type plus one.
const (
	tLError      = 6 // only as Rlerror, 7
	tStatfs      = 8
	tLOpen       = 12
	tLCreate     = 14
	tSymlink     = 16
	tMknod       = 18
	tRename      = 20
	tReadlink    = 22
	tGetattr     = 24
	tSetattr     = 26
	tXattrWalk   = 30
	tXattrCreate = 32
	tReaddir     = 40
	tFsync       = 50
	tLock        = 52
	tGetlock     = 54
	tLink        = 70
	tMkdir       = 72
	tRenameAt    = 74
	tUnlinkAt    = 76
	tVersion     = 100
	tAuth        = 102
	tAttach      = 104
	tFlush       = 108
	tWalk        = 110
	tRead        = 116
	tWrite       = 118
	tClunk       = 120
	tRemove      = 122
)

const (
	headerLen = 7          // size[4] type[1] tag[2]
	noTag     = 0xffff     // of Tversion
	noFid     = 0xffffffff // "no fid" in Tattach
	maxWalk   = 16         // elements of one Twalk, P9_MAXWELEM
	maxName   = 255        // NAME_MAX
	minMsize  = 4096       // the least the Linux client takes
)

// A qid is the server's name for a file: kind[1] version[4] path[8].
type qid struct {
	kind    uint8
	version uint32
	path    uint64
}

const qidLen = 13

const (
	qidDir     = 0x80
	qidSymlink = 0x02
)

// A decoder takes a message apart. What is asked of it beyond the end is zero
// and makes end return an error, so that a handler checks once.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.b, d.bad = nil, true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// str reads len[2] and that many bytes; they are bytes, not UTF-8.
func (d *decoder) str() string { return string(d.take(int(d.u16()))) }

// end says whether the message was exactly as long as its fields.
func (d *decoder) end() error {
	if d.bad || len(d.b) != 0 {
		return unix.EINVAL
	}
	return nil
}

// An encoder builds a reply; what it appends to has room for the largest
// reply of the message, and grows rather than being cut.
type encoder struct{ b []byte }

func (e *encoder) u8(v uint8)   { e.b = append(e.b, v) }
func (e *encoder) u16(v uint16) { e.b = binary.LittleEndian.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32) { e.b = binary.LittleEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, v) }

func (e *encoder) str(s string) {
	e.u16(uint16(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) qid(q qid) {
	e.u8(q.kind)
	e.u32(q.version)
	e.u64(q.path)
}

// header writes the header over the room that was left for it.
func (e *encoder) header(kind uint8, tag uint16) {
	binary.LittleEndian.PutUint32(e.b, uint32(len(e.b)))
	e.b[4] = kind
	binary.LittleEndian.PutUint16(e.b[5:], tag)
}
