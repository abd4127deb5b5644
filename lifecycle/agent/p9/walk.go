package p9

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Tauth: there is nothing to prove; who may connect has been decided by who
// holds the other end.
func (r *request) auth() error { return unix.EOPNOTSUPP }

// Tattach: fid[4] afid[4] uname[s] aname[s] n_uname[4]; Rattach: qid[13].
func (r *request) attach() error {
	id, afid := r.d.u32(), r.d.u32()
	_, name, uid := r.d.str(), r.d.str(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	e := r.s.cfg.Exports[name]
	if e == nil {
		return unix.ENOENT
	}
	if afid != noFid {
		return unix.EINVAL
	}
	p := place{e, e.root.hold(), e.gate, uid}
	q := p.qid()
	if err := r.fids.add(id, newFid(p)); err != nil {
		return err
	}
	r.e.qid(q)
	return nil
}

// Twalk: fid[4] newfid[4] nwname[2] nwname*(wname[s]);
// Rwalk: nwqid[2] nwqid*(qid[13]). It answers as far as it came, and newfid
// stands for something only where it came to the end.
func (r *request) walk() error {
	id, newID, n := r.d.u32(), r.d.u32(), r.d.u16()
	if n > maxWalk {
		return unix.EINVAL
	}
	names := make([]string, n)
	for i := range names {
		names[i] = r.d.str()
	}
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

	p := f.place
	p.node.hold()
	r.e.u16(n)
	for i, name := range names {
		next, err := p.step(name)
		p.node.release()
		if err != nil {
			if i == 0 {
				return err
			}
			r.e.b[headerLen], r.e.b[headerLen+1] = byte(i), 0
			return nil
		}
		p = next
		r.e.qid(p.qid())
	}
	if id == newID {
		if f.opened != nil {
			p.node.release()
			return unix.EINVAL
		}
		return r.fids.replace(id, f, newFid(p))
	}
	return r.fids.add(newID, newFid(p))
}

// Tclunk: fid[4]; Rclunk.
func (r *request) clunk() error {
	id := r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.remove(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.attr != nil {
		return f.attr.finish(f)
	}
	return nil
}

// Tremove: fid[4]; Rremove. The fid is gone either way. Linux sends Tunlinkat,
// and this only to a server without it.
func (r *request) remove() error {
	id := r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.remove(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.attr != nil {
		return unix.EINVAL
	}
	dir, name, err := f.parent()
	if err != nil {
		return err
	}
	defer dir.node.release()
	if err := dir.mayChange(name); err != nil {
		return err
	}
	flags := 0
	if f.node.isDir() {
		flags = unix.AT_REMOVEDIR
	}
	return unix.Unlinkat(dir.node.fd, name, flags)
}

// parent finds the directory that has f now, and the name there. Where it is,
// the kernel says; that it is there, a walk from the root shows. Somebody who
// changes names meanwhile is answered for another file of the export.
func (f *fid) parent() (place, string, error) {
	fail := func(err error) (place, string, error) { return place{}, "", err }
	e := f.export
	full, err := os.Readlink(f.node.path())
	if err != nil {
		return fail(err)
	}
	below, ok := strings.CutPrefix(full, strings.TrimSuffix(e.path, "/")+"/")
	if !ok || f.node.id == e.root.id {
		return fail(unix.EBUSY)
	}
	p := place{e, e.root.hold(), e.gate, f.uid}
	names := strings.Split(below, "/")
	last := names[len(names)-1]
	for i, name := range names {
		next, err := p.step(name)
		if err != nil {
			p.node.release()
			return fail(err)
		}
		if i == len(names)-1 {
			same := next.node.id == f.node.id
			next.node.release()
			if same {
				return p, last, nil
			}
			break
		}
		p.node.release()
		p = next
	}
	p.node.release()
	return fail(unix.ENOENT)
}
