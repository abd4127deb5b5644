package p9

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Locks. The guest's kernel has settled who of its own processes holds what
// before it asks us, so what is left is to hold it against everybody else:
// other guests and programs on the host. Each file that the guest has locks on
// is open once more, and that description carries the union of them as open
// file description locks (fcntl(2), F_OFD_SETLK). Whose lock it was is kept,
// so that when one of two readers lets go the other one's lock stays.

// Types and answers, include/net/9p/9p.h.
const (
	lockRead   = 0
	lockWrite  = 1
	lockUnlock = 2

	lockSuccess = 0
	lockBlocked = 1
	lockError   = 2

	// maxLocks is how many one connection holds; the guest gets ENOLCK then.
	maxLocks = 1024
)

// A lockOwner is a process of the guest, as it says.
type lockOwner struct {
	pid    uint32
	client string
}

// A lockRange is one lock, from start to and including end.
type lockRange struct {
	owner      lockOwner
	start, end int64
	write      bool
}

// A lockedFile is a file with locks.
type lockedFile struct {
	fd     int
	write  bool // fd may carry write locks
	ranges []lockRange
}

// A lockTable has the locks of one connection. Nothing in it waits: the client
// itself asks again where it is willing to.
type lockTable struct {
	budget *atomic.Int64 // that of the fids: a locked file takes a descriptor, too

	mu    sync.Mutex // guards the rest
	files map[fileID]*lockedFile
	count int
}

// clear lets go of all locks.
func (t *lockTable) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, lf := range t.files {
		unix.Close(lf.fd) // and the locks with it
		t.budget.Add(1)
	}
	t.files, t.count = nil, 0
}

// lockArgs reads what Tlock and Tgetlock have in common.
func (r *request) lockArgs(start, length uint64) (lockRange, error) {
	l := lockRange{owner: lockOwner{r.d.u32(), r.d.str()}, start: int64(start), end: math.MaxInt64}
	if err := r.d.end(); err != nil {
		return l, err
	}
	if start > math.MaxInt64 || length > math.MaxInt64-start+1 {
		return l, unix.EINVAL
	}
	if length > 0 {
		l.end = int64(start + length - 1)
	}
	if len(l.owner.client) > maxName {
		return l, unix.EINVAL
	}
	return l, nil
}

// Tlock: fid[4] type[1] flags[4] start[8] length[8] proc_id[4] client_id[s];
// Rlock: status[1].
func (r *request) lock() error {
	id, kind, _ := r.d.u32(), r.d.u8(), r.d.u32()
	start, length := r.d.u64(), r.d.u64()
	l, err := r.lockArgs(start, length)
	if err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	status := uint8(lockSuccess)
	switch {
	case f.opened == nil || f.node.kind != unix.S_IFREG:
		return unix.EBADF
	case kind == lockUnlock:
		r.locks.unlock(f.node.id, l)
	case kind == lockRead, kind == lockWrite:
		l.write = kind == lockWrite
		if status, err = r.locks.lock(f, l); err != nil {
			return err
		}
	default:
		return unix.EINVAL
	}
	r.e.u8(status)
	return nil
}

// Tgetlock: fid[4] type[1] start[8] length[8] proc_id[4] client_id[s];
// Rgetlock: type[1] start[8] length[8] proc_id[4] client_id[s], of a lock that
// is in the way, or of type unlock. Who on the host holds one is not the
// guest's to know: it is process 0.
func (r *request) getlock() error {
	id, kind := r.d.u32(), r.d.u8()
	start, length := r.d.u64(), r.d.u64()
	l, err := r.lockArgs(start, length)
	if err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	if f.opened == nil || f.node.kind != unix.S_IFREG {
		return unix.EBADF
	}
	// Linux 6.12 asks with the type "unlock", for it has overwritten the one
	// that its process asked with: any lock is in the way then.
	l.write = kind != lockRead
	found, pid, err := r.locks.test(f, l)
	if err != nil {
		return err
	}
	r.e.u8(found)
	r.e.u64(start)
	r.e.u64(length)
	r.e.u32(pid)
	r.e.str(l.owner.client)
	return nil
}

func (a lockRange) overlaps(b lockRange) bool { return a.start <= b.end && b.start <= a.end }

// lock takes l, for the file that f has open.
func (t *lockTable) lock(f *fid, l lockRange) (status uint8, err error) {
	if l.write && !f.opened.canWrite || !l.write && !f.opened.canRead {
		return 0, unix.EBADF // fcntl(2)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count >= maxLocks {
		return lockError, nil
	}
	lf, err := t.file(f, l.write)
	if err != nil {
		return 0, err
	}
	for _, o := range lf.ranges {
		if o.owner != l.owner && o.overlaps(l) && (o.write || l.write) {
			return lockBlocked, nil
		}
	}
	kind := int16(unix.F_RDLCK)
	if l.write {
		kind = unix.F_WRLCK
	}
	switch err := lf.set(kind, l.start, l.end); err {
	case nil:
	case unix.EAGAIN, unix.EACCES:
		t.tidy(f.node.id, lf)
		return lockBlocked, nil
	default:
		t.tidy(f.node.id, lf)
		return 0, err
	}
	before := len(lf.ranges)
	lf.ranges = append(lf.without(l), l)
	t.count += len(lf.ranges) - before
	return lockSuccess, nil
}

// file returns the lockedFile of f, opened so that it can carry l.
func (t *lockTable) file(f *fid, write bool) (got *lockedFile, err error) {
	lf := t.files[f.node.id]
	if lf != nil && (lf.write || !write) {
		return lf, nil
	}
	if lf == nil {
		if t.budget.Add(-1) < 0 {
			t.budget.Add(1)
			return nil, unix.ENOLCK
		}
		defer func() {
			if got == nil {
				t.budget.Add(1)
			}
		}()
	}
	flags := unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd := -1
	err = unix.EROFS
	if f.writable() == nil {
		fd, err = reopen(f.node.fd, flags|unix.O_RDWR)
	}
	rw := err == nil
	if err != nil && !write {
		fd, err = reopen(f.node.fd, flags)
	}
	if err != nil {
		return nil, err
	}
	next := &lockedFile{fd: fd, write: rw}
	if lf != nil {
		// Read locks only. They share with the new description's, and go with
		// the old one.
		next.ranges = lf.ranges
		for _, o := range next.ranges {
			if err := next.set(unix.F_RDLCK, o.start, o.end); err != nil {
				unix.Close(fd)
				return nil, err
			}
		}
		unix.Close(lf.fd)
	}
	if t.files == nil {
		t.files = map[fileID]*lockedFile{}
	}
	t.files[f.node.id] = next
	return next, nil
}

// tidy closes lf if it has no locks.
func (t *lockTable) tidy(id fileID, lf *lockedFile) {
	if len(lf.ranges) == 0 {
		unix.Close(lf.fd)
		t.budget.Add(1)
		delete(t.files, id)
	}
}

// set sets the lock of the description over start to end.
func (lf *lockedFile) set(kind int16, start, end int64) error {
	fl := unix.Flock_t{Type: kind, Start: start}
	if end != math.MaxInt64 {
		fl.Len = end - start + 1
	}
	return unix.FcntlFlock(uintptr(lf.fd), unix.F_OFD_SETLK, &fl)
}

// without returns the ranges less what l's owner has where l is.
func (lf *lockedFile) without(l lockRange) []lockRange {
	var out []lockRange
	for _, o := range lf.ranges {
		if o.owner != l.owner || !o.overlaps(l) {
			out = append(out, o)
			continue
		}
		if o.start < l.start {
			left := o
			left.end = l.start - 1
			out = append(out, left)
		}
		if o.end > l.end {
			right := o
			right.start = l.end + 1
			out = append(out, right)
		}
	}
	return out
}

// unlock lets go of what l's owner has where l is.
func (t *lockTable) unlock(id fileID, l lockRange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lf := t.files[id]
	if lf == nil {
		return
	}
	before := len(lf.ranges)
	lf.ranges = lf.without(l)
	t.count += len(lf.ranges) - before
	// Only where nobody else of the guest has a lock: to let go of it all and
	// take theirs again would let a writer in between.
	free := l.start
	for _, o := range slices.SortedFunc(slices.Values(lf.ranges), func(a, b lockRange) int { return cmp.Compare(a.start, b.start) }) {
		if !o.overlaps(l) {
			continue
		}
		if o.start > free {
			_ = lf.set(unix.F_UNLCK, free, o.start-1)
		}
		if o.end >= l.end {
			t.tidy(id, lf)
			return
		}
		free = max(free, o.end+1)
	}
	_ = lf.set(unix.F_UNLCK, free, l.end)
	t.tidy(id, lf)
}

// test returns the type of a lock that is in l's way, and its process.
func (t *lockTable) test(f *fid, l lockRange) (kind uint8, pid uint32, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd := f.opened.fd
	if lf := t.files[f.node.id]; lf != nil {
		for _, o := range lf.ranges {
			if o.owner != l.owner && o.overlaps(l) && (o.write || l.write) {
				if o.write {
					return lockWrite, o.owner.pid, nil
				}
				return lockRead, o.owner.pid, nil
			}
		}
		fd = lf.fd // its own locks are not in its way
	}
	fl := unix.Flock_t{Type: unix.F_RDLCK, Start: l.start}
	if l.write {
		fl.Type = unix.F_WRLCK
	}
	if l.end != math.MaxInt64 {
		fl.Len = l.end - l.start + 1
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &fl); err != nil {
		return 0, 0, err
	}
	switch fl.Type {
	case unix.F_RDLCK:
		return lockRead, 0, nil
	case unix.F_WRLCK:
		return lockWrite, 0, nil
	}
	return lockUnlock, 0, nil
}
