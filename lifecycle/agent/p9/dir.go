package p9

import (
	"strings"

	"golang.org/x/sys/unix"
)

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
	if strings.IndexByte(target, 0) >= 0 {
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
