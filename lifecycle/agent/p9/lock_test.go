package p9_test

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent/p9"
)

const (
	rd, wr, un = uint8(0), uint8(1), uint8(2)

	granted, blocked = uint8(0), uint8(1)
)

// lock asks for bytes start to start+n of fid, for a process of the guest.
func (c *client) lock(fid uint32, kind uint8, start, n, pid int) uint8 {
	c.t.Helper()
	return c.must(tLock, fid, kind, 0, uint64(start), uint64(n), pid, "guest")[0]
}

// TestLocks: each step is a call of somebody and its answer. The host and the
// two guests see each other's locks; the processes of one guest are told apart.
func TestLocks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "0123456789")
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": export(t, dir, writable)}})
	a, b := dialTo(t, s), dialTo(t, s)
	fa, err := a.open("file", unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	fb, err := b.open("file", unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(dir+"/file", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	host := func(kind uint8, start, n int) uint8 {
		t.Helper()
		fl := unix.Flock_t{Type: []int16{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK}[kind], Start: int64(start), Len: int64(n)}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &fl); err == unix.EAGAIN {
			return blocked
		} else if err != nil {
			t.Fatal(err)
		}
		return granted
	}
	ga := func(kind uint8, start, n, pid int) uint8 { t.Helper(); return a.lock(fa, kind, start, n, pid) }
	gb := func(kind uint8, start, n, pid int) uint8 { t.Helper(); return b.lock(fb, kind, start, n, pid) }
	step := 0
	want := func(got, want uint8) {
		t.Helper()
		if step++; got != want {
			t.Errorf("step %d: status %d; want %d", step, got, want)
		}
	}
	want(ga(wr, 0, 5, 1), granted)
	want(gb(rd, 4, 1, 1), blocked) // another guest, though its process has the same number
	want(gb(wr, 5, 5, 1), granted)
	want(host(rd, 0, 1), blocked)
	want(host(rd, 9, 1), blocked)
	want(ga(wr, 3, 1, 2), blocked) // another process of the guest
	want(ga(rd, 0, 5, 1), granted) // its own, weaker now
	want(host(rd, 0, 5), granted)
	want(ga(wr, 0, 2, 1), blocked) // not while the host reads
	want(host(un, 0, 0), granted)
	want(ga(rd, 2, 4, 2), blocked) // byte 5 is b's
	want(ga(rd, 2, 3, 2), granted) // shared with process 1
	want(ga(un, 0, 0, 1), granted) // process 1 lets go; process 2 holds 2..4
	want(host(wr, 0, 2), granted)
	want(host(wr, 2, 1), blocked)
	want(host(wr, 4, 1), blocked)
	want(ga(un, 3, 1, 2), granted) // a hole in the middle
	want(host(wr, 3, 1), granted)
	want(host(wr, 4, 1), blocked)
	want(gb(un, 0, 0, 9), granted) // of a process that has none
	want(host(wr, 5, 1), blocked)
	want(gb(un, 0, 0, 1), granted)
	want(host(wr, 5, 1), granted)
	want(host(un, 0, 0), granted)
	want(ga(un, 0, 0, 2), granted)
	want(host(wr, 0, 0), granted) // nothing is left behind
	want(host(un, 0, 0), granted)

	// Tgetlock.
	want(ga(wr, 1, 1, 7), granted)
	get := func(c *client, fid uint32, kind uint8, start, n, pid int) (uint8, uint32) {
		t.Helper()
		b := c.must(tGetlock, fid, kind, uint64(start), uint64(n), pid, "guest")
		return b[0], binary.LittleEndian.Uint32(b[17:])
	}
	if kind, pid := get(a, fa, rd, 0, 5, 8); kind != wr || pid != 7 {
		t.Errorf("getlock by another process = %d of %d; want a write lock of 7", kind, pid)
	}
	if kind, _ := get(a, fa, wr, 0, 5, 7); kind != un {
		t.Errorf("getlock by its own process = %d; want none", kind)
	}
	if kind, _ := get(b, fb, rd, 0, 5, 7); kind != wr {
		t.Errorf("getlock by another guest = %d; want a write lock", kind)
	}
	if kind, _ := get(b, fb, un, 2, 5, 7); kind != un {
		t.Errorf("getlock beside it = %d; want none", kind)
	}
	// A connection's end is that of its locks.
	a.version(msize)
	want(host(wr, 0, 0), granted)
}

func TestLockRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "0123456789")
	c := dial(t, dir, writable)
	ro, _ := c.open("file", unix.O_RDONLY)
	wo, _ := c.open("file", unix.O_WRONLY)
	sub, _ := c.open("/", 0)
	c.refused(unix.EBADF, tLock, ro, wr, 0, uint64(0), uint64(0), 1, "g")
	c.refused(unix.EBADF, tLock, wo, rd, 0, uint64(0), uint64(0), 1, "g")
	c.refused(unix.EBADF, tLock, sub, rd, 0, uint64(0), uint64(0), 1, "g")
	c.refused(unix.EBADF, tLock, c.at("file"), rd, 0, uint64(0), uint64(0), 1, "g")
	c.refused(unix.EINVAL, tLock, ro, uint8(3), 0, uint64(0), uint64(0), 1, "g")
	c.refused(unix.EINVAL, tLock, ro, rd, 0, uint64(1<<63), uint64(0), 1, "g")
	c.refused(unix.EINVAL, tLock, ro, rd, 0, uint64(1), uint64(1<<63), 1, "g")
	c.must(tLock, ro, rd, 0, uint64(0), uint64(1<<63), 1, "g")

	// A reader on a read-only export locks, too.
	d := dial(t, dir, p9.Options{})
	fid, _ := d.open("file", 0)
	if got := d.lock(fid, rd, 0, 0, 1); got != granted {
		t.Errorf("read lock on a read-only export: %d", got)
	}
	// First a reader, then a writer of the same process.
	rw, _ := c.open("file", unix.O_RDWR)
	if got := c.lock(rw, wr, 0, 1, 1); got != blocked {
		t.Errorf("write lock beside the other guest's read lock: %d; want blocked", got)
	}
	d.lock(fid, un, 0, 0, 1)
	if got := c.lock(rw, wr, 0, 1, 1); got != blocked {
		t.Errorf("write lock beside process g's: %d; want blocked", got)
	}
	// The number of locks is bounded.
	last := granted
	n := 0
	for ; last == granted && n < 10000; n++ {
		last = c.lock(ro, rd, 2*n, 1, 1)
	}
	if last != 2 || n > 1200 {
		t.Errorf("%d locks, then status %d; want an error at some 1024", n, last)
	}
}
