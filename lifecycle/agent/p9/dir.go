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

// dress gives a new file its mode, past the umask of our process, and its
// owner.
func (p place) dress(mode, gid uint32) error {
	set := p.export.opts.Owners.created(Owner{p.uid, gid})
	if set != (Owner{keep, keep}) {
		err := unix.Fchownat(p.node.fd, "", int32id(set.UID), int32id(set.GID), unix.AT_EMPTY_PATH)
		// An ordinary user's files are their own.
		if err != nil && err != unix.EPERM {
			return err
		}
	}
	if p.node.kind == unix.S_IFLNK {
		return nil
	}
	return unix.Chmod(p.node.path(), p.export.modeFor(mode, p.node.isDir()))
}

// int32id is an id as the system call takes it.
func int32id(id uint32) int {
	if id == keep {
		return -1
	}
	return int(id)
}

// made answers for the new entry name of the directory f: qid[13].
func (r *request) made(f *fid, name string, mode, gid uint32, kind uint32) error {
	p, err := f.step(name)
	if err != nil {
		return err
	}
	defer p.node.release()
	if p.node.kind != kind {
		return unix.ESTALE // somebody has put another thing there
	}
	if err := p.dress(mode, gid); err != nil {
		return err
	}
	r.e.qid(p.qid())
	return nil
}

// directory returns the fid id, where the entry name may be changed.
func (r *request) directory(id uint32, name string) (*fid, error) {
	f, err := r.fids.use(id)
	if err != nil {
		return nil, err
	}
	if err := f.mayChange(name); err != nil {
		f.release()
		return nil, err
	}
	return f, nil
}

// Tmkdir: dfid[4] name[s] mode[4] gid[4]; Rmkdir: qid[13].
func (r *request) mkdir() error {
	id, name, mode, gid := r.d.u32(), r.d.str(), r.d.u32(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.directory(id, name)
	if err != nil {
		return err
	}
	defer f.release()
	if err := unix.Mkdirat(f.node.fd, name, f.export.modeFor(mode, true)); err != nil {
		return err
	}
	return r.made(f, name, mode, gid, unix.S_IFDIR)
}

// Tmknod: dfid[4] name[s] mode[4] major[4] minor[4] gid[4]; Rmknod: qid[13].
//
// Regular files, FIFOs and sockets: all three are names on the host that any
// user may make, the latter two without anybody behind them, since the guest's
// kernel has the pipe. A device node would open the host's device to whoever
// on the host may open the node, so there is none, not even by root.
func (r *request) mknod() error {
	id, name, mode := r.d.u32(), r.d.str(), r.d.u32()
	_, _, gid := r.d.u32(), r.d.u32(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.directory(id, name)
	if err != nil {
		return err
	}
	defer f.release()
	kind := mode & unix.S_IFMT
	switch kind {
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return unix.EPERM
	}
	if err := unix.Mknodat(f.node.fd, name, kind|f.export.modeFor(mode, false), 0); err != nil {
		return err
	}
	return r.made(f, name, mode, gid, kind)
}

// Tsymlink: dfid[4] name[s] target[s] gid[4]; Rsymlink: qid[13]. Where it
// leads is for the guest's kernel to find out; here nothing follows it.
func (r *request) symlink() error {
	id, name, target, gid := r.d.u32(), r.d.str(), r.d.str(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.directory(id, name)
	if err != nil {
		return err
	}
	defer f.release()
	if bytes.IndexByte([]byte(target), 0) >= 0 {
		return unix.EINVAL
	}
	if err := unix.Symlinkat(target, f.node.fd, name); err != nil {
		return err
	}
	return r.made(f, name, 0, gid, unix.S_IFLNK)
}

// Tlink: dfid[4] fid[4] name[s]; Rlink.
func (r *request) link() error {
	dirID, id, name := r.d.u32(), r.d.u32(), r.d.str()
	if err := r.d.end(); err != nil {
		return err
	}
	dir, err := r.directory(dirID, name)
	if err != nil {
		return err
	}
	defer dir.release()
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	switch {
	case f.export != dir.export:
		// One may be read-only, and the link would be writable.
		return unix.EXDEV
	case f.attr != nil:
		return unix.EINVAL
	case f.node.isDir():
		return unix.EPERM
	case !f.gate.isOpen():
		return unix.EROFS
	}
	return unix.Linkat(unix.AT_FDCWD, f.node.path(), dir.node.fd, name, unix.AT_SYMLINK_FOLLOW)
}

// Tunlinkat: dirfd[4] name[s] flags[4]; Runlinkat.
func (r *request) unlinkAt() error {
	id, name, flags := r.d.u32(), r.d.str(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.directory(id, name)
	if err != nil {
		return err
	}
	defer f.release()
	switch flags {
	case 0:
		return unix.Unlinkat(f.node.fd, name, 0)
	case 0x200: // P9_DOTL_AT_REMOVEDIR
		return unix.Unlinkat(f.node.fd, name, unix.AT_REMOVEDIR)
	}
	return unix.EINVAL
}

// Trenameat: olddirfid[4] oldname[s] newdirfid[4] newname[s]; Rrenameat.
func (r *request) renameAt() error {
	fromID, from, toID, to := r.d.u32(), r.d.str(), r.d.u32(), r.d.str()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.directory(fromID, from)
	if err != nil {
		return err
	}
	defer f.release()
	return r.move(f.place, from, toID, to)
}

// Trename: fid[4] dfid[4] name[s]; Rrename. Linux sends Trenameat, and this
// only to a server without it.
func (r *request) rename() error {
	id, toID, to := r.d.u32(), r.d.u32(), r.d.str()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.attr != nil {
		return unix.EINVAL
	}
	dir, from, err := f.parent()
	if err != nil {
		return err
	}
	defer dir.node.release()
	if err := dir.mayChange(from); err != nil {
		return err
	}
	return r.move(dir, from, toID, to)
}

func (r *request) move(dir place, from string, toID uint32, to string) error {
	t, err := r.directory(toID, to)
	if err != nil {
		return err
	}
	defer t.release()
	if t.export != dir.export {
		return unix.EXDEV
	}
	return unix.Renameat(dir.node.fd, from, t.node.fd, to)
}
