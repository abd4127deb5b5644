package p9

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A fid is what the client's number stands for. It never changes: a request
// that opens a file puts another fid in the place of the old one, and requests
// already at work keep theirs. What it holds is closed when nobody uses it any
// more, never while a system call is at work with it: a descriptor's number
// would by then be another file's.
type fid struct {
	place
	opened *opened // nil until opened
	attr   *attr   // an extended attribute; nil for files
	refs   atomic.Int32
}

// An opened file or directory.
type opened struct {
	fd                     int // -1 for an empty directory
	dir, canRead, canWrite bool

	mu  sync.Mutex // guards the position of fd, of directories only
	pos uint64
}

func newFid(p place) *fid {
	f := &fid{place: p}
	f.refs.Store(1)
	return f
}

func (f *fid) release() {
	if f.refs.Add(-1) != 0 {
		return
	}
	if f.opened != nil && f.opened.fd >= 0 {
		unix.Close(f.opened.fd)
	}
	if f.attr != nil {
		<-f.attr.held
	}
	f.node.release()
}

// reopened returns a fid of the same file that has o, or a.
func (f *fid) reopened(o *opened, a *attr) *fid {
	next := newFid(place{f.export, f.node.hold(), f.gate, f.uid})
	next.opened, next.attr = o, a
	return next
}

// A fidTable has the fids of one connection.
type fidTable struct {
	budget *atomic.Int64 // fids that the server may still make, over all connections

	mu sync.Mutex // guards m
	m  map[uint32]*fid
}

// use returns the fid that id stands for. The caller releases it.
func (t *fidTable) use(id uint32) (*fid, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.m[id]
	if f == nil {
		return nil, unix.EBADF
	}
	f.refs.Add(1)
	return f, nil
}

// add takes f over, also where it returns an error.
func (t *fidTable) add(id uint32, f *fid) error {
	err := t.tryAdd(id, f)
	if err != nil {
		f.release()
	}
	return err
}

func (t *fidTable) tryAdd(id uint32, f *fid) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id == noFid || t.m[id] != nil {
		return unix.EINVAL
	}
	if t.budget.Add(-1) < 0 {
		t.budget.Add(1)
		return unix.ENFILE
	}
	t.m[id] = f
	return nil
}

// replace puts next in the place of old; it takes next over.
func (t *fidTable) replace(id uint32, old, next *fid) error {
	t.mu.Lock()
	if t.m[id] != old { // clunked or opened meanwhile
		t.mu.Unlock()
		next.release()
		return unix.EBADF
	}
	t.m[id] = next
	t.mu.Unlock()
	old.release()
	return nil
}

// remove forgets id; the caller releases what it stood for.
func (t *fidTable) remove(id uint32) (*fid, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.m[id]
	if f == nil {
		return nil, unix.EBADF
	}
	delete(t.m, id)
	t.budget.Add(1)
	return f, nil
}

// clear forgets all fids.
func (t *fidTable) clear() {
	t.mu.Lock()
	all := t.m
	t.m = map[uint32]*fid{}
	t.budget.Add(int64(len(all)))
	t.mu.Unlock()
	for _, f := range all {
		f.release()
	}
}

// defaultFids is as many as the process has descriptors for: a fid takes one,
// and a second one while it is open, and the rest is for everybody else. With
// cache=loose a guest has a fid for each name that it keeps in its own cache: a
// find over a whole distribution is some 200,000. Each pins a file of the host's
// kernel, a kilobyte or so.
func defaultFids() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		lim.Cur = 1024
	}
	return int(min(lim.Cur/4, 1<<18))
}
