package p9

import (
	"math"

	"golang.org/x/sys/unix"
)

// getattrBasic is P9_GETATTR_BASIC and P9_GETATTR_BTIME.
const (
	getattrBasic = 0x7ff
	getattrBtime = 0x800
)

// Tgetattr: fid[4] request_mask[8]; Rgetattr: valid[8] qid[13] mode[4] uid[4]
// gid[4] nlink[8] rdev[8] size[8] blksize[8] blocks[8], four times sec[8]
// nsec[8] (access, modification, change, birth), gen[8] data_version[8].
func (r *request) getattr() error {
	id, _ := r.d.u32(), r.d.u64()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	var st unix.Statx_t
	if err := statx(f.node.fd, &st); err != nil {
		return err
	}
	valid := uint64(getattrBasic)
	if st.Mask&unix.STATX_BTIME != 0 {
		valid |= getattrBtime
	}
	owner := f.export.opts.Owners.shown(Owner{st.Uid, st.Gid})
	r.e.u64(valid)
	r.e.qid(f.qid())
	r.e.u32(uint32(st.Mode))
	r.e.u32(owner.UID)
	r.e.u32(owner.GID)
	r.e.u64(uint64(st.Nlink))
	r.e.u64(unix.Mkdev(st.Rdev_major, st.Rdev_minor))
	r.e.u64(st.Size)
	r.e.u64(uint64(st.Blksize))
	r.e.u64(st.Blocks)
	for _, t := range []unix.StatxTimestamp{st.Atime, st.Mtime, st.Ctime, st.Btime} {
		r.e.u64(uint64(t.Sec))
		r.e.u64(uint64(t.Nsec))
	}
	r.e.u64(0)
	r.e.u64(0)
	return nil
}

// What Tsetattr sets, P9_SETATTR_*. The change time follows from the rest.
const (
	setMode     = 0x1
	setUID      = 0x2
	setGID      = 0x4
	setSize     = 0x8
	setAtime    = 0x10
	setMtime    = 0x20
	setCtime    = 0x40
	setAtimeSet = 0x80
	setMtimeSet = 0x100
	setAll      = 0x1ff
)

// Tsetattr: fid[4] valid[4] mode[4] uid[4] gid[4] size[8] atime_sec[8]
// atime_nsec[8] mtime_sec[8] mtime_nsec[8]; Rsetattr.
func (r *request) setattr() error {
	id, valid, mode := r.d.u32(), r.d.u32(), r.d.u32()
	want := Owner{r.d.u32(), r.d.u32()}
	size := r.d.u64()
	var times [4]uint64
	for i := range times {
		times[i] = r.d.u64()
	}
	if err := r.d.end(); err != nil {
		return err
	}
	if valid&^setAll != 0 {
		return unix.EINVAL
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.attr != nil {
		return unix.EINVAL
	}
	if err := f.writable(); err != nil {
		return err
	}
	if f.node.kind == unix.S_IFCHR || f.node.kind == unix.S_IFBLK {
		// Its mode and owner say who on the host may use the host's device.
		return unix.EPERM
	}
	if err := f.setOwner(valid, want); err != nil {
		return err
	}
	// After the owner, whose change takes the setuid bits off.
	if valid&setMode != 0 {
		if f.node.kind == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		if err := unix.Chmod(f.node.path(), f.export.modeFor(mode, f.node.isDir())); err != nil {
			return err
		}
	}
	if valid&setSize != 0 {
		if err := f.truncate(size); err != nil {
			return err
		}
	}
	return f.setTimes(valid, times)
}

func (f *fid) setOwner(valid uint32, want Owner) error {
	if valid&setUID == 0 {
		want.UID = keep
	}
	if valid&setGID == 0 {
		want.GID = keep
	}
	if want == (Owner{keep, keep}) {
		return nil
	}
	var st unix.Statx_t
	if err := statx(f.node.fd, &st); err != nil {
		return err
	}
	set, err := f.export.opts.Owners.chown(Owner{st.Uid, st.Gid}, want)
	if err != nil || set == (Owner{keep, keep}) {
		return err
	}
	return unix.Fchownat(f.node.fd, "", int32id(set.UID), int32id(set.GID), unix.AT_EMPTY_PATH)
}

func (f *fid) truncate(size uint64) error {
	switch {
	case f.node.isDir():
		return unix.EISDIR
	case f.node.kind != unix.S_IFREG || size > math.MaxInt64:
		return unix.EINVAL
	case f.opened != nil && f.opened.canWrite:
		return unix.Ftruncate(f.opened.fd, int64(size))
	}
	o, err := f.place.open(dotlWrite)
	if err != nil {
		return err
	}
	defer unix.Close(o.fd)
	return unix.Ftruncate(o.fd, int64(size))
}

func (f *fid) setTimes(valid uint32, times [4]uint64) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	for i, bit := range []struct{ now, given uint32 }{{setAtime, setAtimeSet}, {setMtime, setMtimeSet}} {
		switch {
		case valid&bit.now == 0:
		case valid&bit.given == 0:
			ts[i].Nsec = unix.UTIME_NOW
		case times[2*i+1] >= 1e9: // UTIME_NOW and UTIME_OMIT are among those
			return unix.EINVAL
		default:
			ts[i] = unix.Timespec{Sec: int64(times[2*i]), Nsec: int64(times[2*i+1])}
		}
	}
	if valid&(setAtime|setMtime) == 0 {
		return nil
	}
	return unix.UtimesNanoAt(f.node.fd, "", ts, unix.AT_EMPTY_PATH)
}

// Tstatfs: fid[4]; Rstatfs: type[4] bsize[4] blocks[8] bfree[8] bavail[8]
// files[8] ffree[8] fsid[8] namelen[4].
func (r *request) statfs() error {
	id := r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.node.fd, &st); err != nil {
		return err
	}
	r.e.u32(v9fsMagic)
	r.e.u32(uint32(st.Bsize))
	for _, v := range []uint64{st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree} {
		r.e.u64(v)
	}
	r.e.u64(uint64(uint32(st.Fsid.Val[0])) | uint64(uint32(st.Fsid.Val[1]))<<32)
	r.e.u32(uint32(min(st.Namelen, maxName)))
	return nil
}

// v9fsMagic: what programs in the guest must not take for an ext4 is not one.
const v9fsMagic = unix.V9FS_MAGIC

// Treadlink: fid[4]; Rreadlink: target[s].
func (r *request) readlink() error {
	id := r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.node.kind != unix.S_IFLNK {
		return unix.EINVAL
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(f.node.fd, "", buf)
	if err != nil {
		return err
	}
	if n > r.msize-headerLen-2 {
		return unix.ENAMETOOLONG
	}
	r.e.str(string(buf[:n]))
	return nil
}
