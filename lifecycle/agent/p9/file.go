package p9

import (
	"math"

	"golang.org/x/sys/unix"
)

// Flags of Tlopen and Tlcreate, include/net/9p/9p.h: those that mean
// something here. O_DIRECT does not, as our buffers are not aligned for it.
const (
	dotlAccess = 0o3
	dotlWrite  = 0o1
	dotlRDWR   = 0o2
	dotlExcl   = 0o200
	dotlTrunc  = 0o1000
	dotlAppend = 0o2000
	dotlDSync  = 0o10000
	dotlSync   = 0o4000000
)

// hostFlags returns the flags to open a file with. O_NONBLOCK: where the host
// holds a lease, open would wait for its end.
func hostFlags(flags uint32) (int, error) {
	host := unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	switch flags & dotlAccess {
	case 0:
	case dotlWrite:
		host |= unix.O_WRONLY
	case dotlRDWR:
		host |= unix.O_RDWR
	default:
		return 0, unix.EINVAL
	}
	for _, f := range []struct {
		dotl uint32
		host int
	}{{dotlTrunc, unix.O_TRUNC}, {dotlAppend, unix.O_APPEND}, {dotlDSync, unix.O_DSYNC}, {dotlSync, unix.O_SYNC}} {
		if flags&f.dotl != 0 {
			host |= f.host
		}
	}
	return host, nil
}

// open opens the file itself, whatever its name leads to by now.
func (p place) open(flags uint32) (*opened, error) {
	host, err := hostFlags(flags)
	if err != nil {
		return nil, err
	}
	o := &opened{canRead: flags&dotlAccess != dotlWrite, canWrite: flags&dotlAccess != 0}
	switch p.node.kind {
	case unix.S_IFDIR:
		if o.canWrite || flags&dotlTrunc != 0 {
			return nil, unix.EISDIR
		}
		o.dir = true
		if p.gate.empty() {
			o.fd = -1
			return o, nil
		}
	case unix.S_IFREG:
		if o.canWrite || flags&dotlTrunc != 0 {
			if err := p.writable(); err != nil {
				return nil, err
			}
		}
	default:
		// Opening a FIFO waits, opening a device does what the device does.
		return nil, unix.EPERM
	}
	if o.fd, err = reopen(p.node.fd, host); err != nil {
		return nil, err
	}
	if err := p.export.public(o.fd, unix.S_IROTH); err != nil {
		unix.Close(o.fd)
		return nil, err
	}
	if o.canWrite {
		p.dropSetuid(o.fd)
	}
	return o, nil
}

// reopen opens the file that fd is of. The kernel goes there by the
// descriptor, not by a path, so that there is nothing to race with.
func reopen(fd, flags int) (int, error) {
	for {
		got, err := unix.Open(procPath(fd), flags, 0)
		if err != unix.EINTR {
			return got, err
		}
	}
}

// dropSetuid takes the bits off a file that is about to be written, as the
// kernel does when somebody without CAP_FSETID writes.
func (p place) dropSetuid(fd int) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || p.export.modeFor(st.Mode, false) == st.Mode&0o7777 {
		return
	}
	_ = unix.Fchmod(fd, p.export.modeFor(st.Mode, false)) // not ours: then it was not ours to write with the bit kept
}

// Tlopen: fid[4] flags[4]; Rlopen: qid[13] iounit[4].
func (r *request) lopen() error {
	id, flags := r.d.u32(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.opened != nil || f.attr != nil {
		return unix.EINVAL
	}
	o, err := f.place.open(flags)
	if err != nil {
		return err
	}
	if err := r.fids.replace(id, f, f.reopened(o, nil)); err != nil {
		return err
	}
	r.e.qid(f.qid())
	r.e.u32(0) // as much as a message holds
	return nil
}

// Tlcreate: fid[4] name[s] flags[4] mode[4] gid[4]; Rlcreate: qid[13]
// iounit[4]. The fid of the directory becomes that of the file.
func (r *request) lcreate() error {
	id, name, flags := r.d.u32(), r.d.str(), r.d.u32()
	mode, gid := r.d.u32(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.opened != nil || f.attr != nil {
		return unix.EINVAL
	}
	p, o, err := f.place.create(name, flags, mode, gid)
	if err != nil {
		return err
	}
	q, next := p.qid(), newFid(p)
	next.opened = o
	if err := r.fids.replace(id, f, next); err != nil {
		return err
	}
	r.e.qid(q)
	r.e.u32(0)
	return nil
}

// create makes the file name and opens it, or opens the one that is there.
func (p place) create(name string, flags, mode, gid uint32) (place, *opened, error) {
	fail := func(err error) (place, *opened, error) { return place{}, nil, err }
	if err := p.mayChange(name); err != nil {
		return fail(err)
	}
	host, err := hostFlags(flags)
	if err != nil {
		return fail(err)
	}
	// Always O_EXCL: what is there already might be a FIFO or a device, and
	// must be looked at before it is opened. One that comes and goes in
	// between is somebody's race; three tries are enough for honest ones.
	for range 3 {
		var fd int
		fd, err = unix.Openat(p.node.fd, name, host|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, p.export.modeFor(mode, false))
		if err == nil {
			return p.created(fd, flags, mode, gid)
		}
		if err != unix.EEXIST || flags&dotlExcl != 0 {
			return fail(err)
		}
		var at place
		if at, err = p.step(name); err == nil {
			o, err := at.open(flags)
			if err != nil {
				at.node.release()
				return fail(err)
			}
			return at, o, nil
		}
		if err != unix.ENOENT {
			return fail(err)
		}
	}
	return fail(err)
}

// created makes a place of the new file that fd has open, and takes fd over.
func (p place) created(fd int, flags, mode, gid uint32) (place, *opened, error) {
	path, err := reopen(fd, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		unix.Close(fd)
		return place{}, nil, err
	}
	n, err := newNode(path)
	if err != nil {
		unix.Close(fd)
		return place{}, nil, err
	}
	at := place{p.export, n, nil, p.uid}
	if err := at.dress(mode, gid); err != nil {
		unix.Close(fd)
		n.release()
		return place{}, nil, err
	}
	return at, &opened{fd: fd, canRead: flags&dotlAccess != dotlWrite, canWrite: flags&dotlAccess != 0}, nil
}

// Tread: fid[4] offset[8] count[4]; Rread: count[4] data[count].
func (r *request) read() error {
	id, offset, count := r.d.u32(), r.d.u64(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	count = min(count, uint32(r.msize-headerLen-4))
	if f.attr != nil {
		return r.readAttr(f.attr, offset, int(count))
	}
	switch {
	case f.opened == nil || !f.opened.canRead:
		return unix.EBADF
	case f.opened.dir:
		return unix.EISDIR
	case offset > math.MaxInt64:
		return unix.EINVAL
	}
	if err := r.room(4 + int(count)); err != nil {
		return err
	}
	buf := r.e.b[headerLen+4 : headerLen+4+int(count)]
	n, err := ignoringEINTR(func() (int, error) { return unix.Pread(f.opened.fd, buf, int64(offset)) })
	if err != nil {
		return err
	}
	r.e.u32(uint32(n))
	r.e.b = r.e.b[:headerLen+4+n] // it is there already
	return nil
}

// Twrite: fid[4] offset[8] count[4] data[count]; Rwrite: count[4].
func (r *request) write() error {
	id, offset, count := r.d.u32(), r.d.u64(), r.d.u32()
	if uint64(count) != uint64(len(r.d.b)) {
		return unix.EINVAL
	}
	data := r.d.take(int(count))
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.attr != nil {
		return r.writeAttr(f.attr, offset, data)
	}
	switch {
	case f.opened == nil || !f.opened.canWrite:
		return unix.EBADF
	case offset > math.MaxInt64:
		return unix.EFBIG
	}
	n, err := ignoringEINTR(func() (int, error) { return unix.Pwrite(f.opened.fd, data, int64(offset)) })
	if err != nil {
		return err
	}
	r.e.u32(uint32(n))
	return nil
}

// Tfsync: fid[4] datasync[4]; Rfsync.
func (r *request) fsync() error {
	id, dataOnly := r.d.u32(), r.d.u32()
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
	case f.opened.fd < 0 || !f.export.opts.Writable:
		return nil // there is nothing of the guest's to be written
	case dataOnly != 0:
		return unix.Fdatasync(f.opened.fd)
	}
	return unix.Fsync(f.opened.fd)
}

// ignoringEINTR: the runtime's signals interrupt calls on some file systems.
func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
