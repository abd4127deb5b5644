package introspect_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/vmm/guestmem"
)

// TestMemoryGone: a guest that shrinks the file behind its memory, whole or but
// for some pages, gets nobody for an answer, and ends nobody but itself.
func TestMemoryGone(t *testing.T) {
	tr := newTraced(t)
	tr.Post(tr.card, 0, introspecttest.Frame{Len: 60, Sk: tr.Socket(introspecttest.Socket{Net: tr.nets[101]})})
	task := tr.Task(introspecttest.Task{PID: 4, TGID: 4, PGID: 4, Net: tr.nets[101], Cgroup: tr.Cgroup(9), PIDNS: 1})
	size := (tr.Alloc(1) - direct + 4095) &^ 4095
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, tr.RAM(size), 0); err != nil {
		t.Fatal(err)
	}
	ram, err := guestmem.Map(guestmem.File{Size: size, FD: fd})
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	g := newGuest(t, tr.Kernel, introspect.NewUML(ram, 0, direct, direct), introspect.Current{})
	q, err := g.Queue(tr.ring)
	if err != nil {
		t.Fatal(err)
	}
	if got := q.Owner(0, 60); got.Member != 1 {
		t.Fatalf("Owner = %+v; want 1", got)
	}
	for left := size - 4096; ; left -= 4096 {
		if err := unix.Ftruncate(fd, int64(left)); err != nil {
			t.Fatal(err)
		}
		if got := q.Owner(0, 60); got.Member > 1 || got.Kernel || got.Member == 0 && got.Cause == "" {
			t.Errorf("with %d bytes left: Owner = %+v", left, got)
		}
		if _, err := g.Task(task); err == nil && left < task-direct {
			t.Errorf("with %d bytes left a task behind them was read", left)
		}
		if left == 0 {
			break
		}
	}
	if got := q.Owner(0, 60); got.Member != 0 || got.Cause == "" {
		t.Errorf("Owner in no memory = %+v; want nobody", got)
	}
}
