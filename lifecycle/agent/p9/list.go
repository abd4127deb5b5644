package p9

import (
	"bytes"
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"
)

// Treaddir: fid[4] offset[8] count[4]; Rreaddir: count[4] data[count], which is
// entries of qid[13] offset[8] type[1] name[s]. An offset is the host's own
// cookie of the entry behind.
func (r *request) readdir() error {
	id, offset, count := r.d.u32(), r.d.u64(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	switch {
	case f.opened == nil:
		return unix.EBADF
	case !f.opened.dir:
		return unix.ENOTDIR
	case offset > math.MaxInt64:
		return unix.EINVAL
	}
	count = min(count, uint32(r.msize-headerLen-4))
	if err := r.room(4 + int(count)); err != nil {
		return err
	}
	r.e.u32(0)
	if f.opened.fd < 0 {
		r.dots(f, offset, int(count))
	} else if err := r.entries(f, offset, int(count)); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(r.e.b[headerLen:], uint32(len(r.e.b)-headerLen-4))
	return nil
}

func (r *request) entry(q qid, next uint64, kind uint8, name []byte) {
	r.e.qid(q)
	r.e.u64(next)
	r.e.u8(kind)
	r.e.u16(uint16(len(name)))
	r.e.b = append(r.e.b, name...)
}

const (
	entryFixed = qidLen + 8 + 1 + 2 // an entry without its name
	direntName = 19                 // where the name begins in linux_dirent64
	// direntMax is the longest linux_dirent64: getdents64 refuses a buffer
	// that the next one does not fit in.
	direntMax = (direntName + maxName + 1 + 7) &^ 7
)

// dots are the entries of an empty directory.
func (r *request) dots(f *fid, offset uint64, count int) {
	for i, name := range []string{".", ".."} {
		if uint64(i) >= offset && count >= 2*(entryFixed+2) {
			r.entry(f.qid(), uint64(i+1), unix.DT_DIR, []byte(name))
		}
	}
}

// entries appends what the host's directory has from offset on.
func (r *request) entries(f *fid, offset uint64, count int) error {
	// An entry takes 24 + n bytes in the reply and at least 20 + n, rounded
	// up to 8, in the kernel's buffer: at worst 28 to 24. So nothing that was
	// read is left over.
	size := min(count*6/7, smallBuffer)
	if size < direntMax {
		return unix.EINVAL
	}
	buf, err := r.s.buffer(smallBuffer, r.stop)
	if err != nil {
		return err
	}
	defer r.s.giveBack(buf)

	f.opened.mu.Lock()
	defer f.opened.mu.Unlock()
	if offset != f.opened.pos {
		if _, err := unix.Seek(f.opened.fd, int64(offset), unix.SEEK_SET); err != nil {
			return err
		}
		f.opened.pos = offset
	}
	start := len(r.e.b)
	for len(r.e.b) == start { // a buffer full of hidden entries is not the end
		n, err := ignoringEINTR(func() (int, error) { return unix.Getdents(f.opened.fd, (*buf)[:size]) })
		if err != nil || n == 0 {
			return err
		}
		for b := (*buf)[:n]; len(b) > direntName; {
			length := int(binary.LittleEndian.Uint16(b[16:]))
			if length <= direntName || length > len(b) {
				return unix.EIO
			}
			r.dirent(f, b[:length])
			f.opened.pos = binary.LittleEndian.Uint64(b[8:])
			b = b[length:]
		}
	}
	return nil
}

// dirent appends one linux_dirent64, ino[8] off[8] reclen[2] type[1] name, if
// the guest may see it.
func (r *request) dirent(f *fid, b []byte) {
	ino, next, kind := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), b[18]
	name, _, _ := bytes.Cut(b[direntName:], []byte{0})
	q := qid{path: ino ^ f.devKey()}
	switch kind {
	case unix.DT_DIR:
		q.kind = qidDir
	case unix.DT_LNK:
		q.kind = qidSymlink
	}
	switch dot := string(name); {
	case dot == ".." && f.node.id == f.export.root.id:
		q = f.qid() // what is above is none of the guest's business
	case dot == "." || dot == "..":
	case f.gate != nil && !f.lists(dot):
		return
	}
	r.entry(q, next, kind, name)
}

// lists says whether the entry name appears in the directory f, where
// something is said of its entries.
func (f *fid) lists(name string) bool {
	g, ok := f.gate.enter(name)
	if !ok {
		return false
	}
	if g.isOpen() {
		return true
	}
	p, err := f.step(name)
	if err != nil {
		return false
	}
	p.node.release()
	return true
}
