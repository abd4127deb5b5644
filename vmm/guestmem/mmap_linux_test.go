package guestmem_test

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/vmm/guestmem"
)

const page = 4096

// memfd returns shared memory of n bytes.
func memfd(t *testing.T, n int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, n); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestMapShares(t *testing.T) {
	fd := memfd(t, 4*page)
	m, err := guestmem.Map(guestmem.File{Base: 0x10000, Size: 2 * page, FD: fd, Offset: page})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := unix.Pwrite(fd, []byte("guest"), page+16); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if err := m.Read(0x10010, b); err != nil || string(b) != "guest" {
		t.Errorf("Read = %q, %v; want what the guest wrote", b, err)
	}
	if err := m.Write(0x10000+2*page-5, []byte("heavy")); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pread(fd, b, 3*page-5); err != nil || string(b) != "heavy" {
		t.Errorf("the guest reads %q, %v; want what we wrote", b, err)
	}
}

func TestMapRefused(t *testing.T) {
	shared := memfd(t, 2*page)
	readOnly, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	file, err := os.Create(t.TempDir() + "/ram")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(2 * page); err != nil {
		t.Fatal(err)
	}
	zero, err := os.OpenFile("/dev/zero", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	dir, err := os.Open("/dev/shm")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	sealed := memfd(t, 2*page)
	if _, err := unix.FcntlInt(uintptr(sealed), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name string
		file guestmem.File
		want string
	}{
		{"a program", guestmem.File{Size: page, FD: int(readOnly.Fd())}, "not shared memory"},
		{"/dev/zero", guestmem.File{Size: page, FD: int(zero.Fd())}, "not shared memory"},
		{"a pipe", guestmem.File{Size: page, FD: int(w.Fd())}, "not shared memory"},
		{"a directory", guestmem.File{Size: page, FD: int(dir.Fd())}, "not shared memory"},
		{"no descriptor", guestmem.File{Size: page, FD: -1}, "not shared memory"},
		{"sealed against writing", guestmem.File{Size: page, FD: sealed}, "mmap"},
		{"longer than the file", guestmem.File{Size: 3 * page, FD: shared}, "ends before"},
		{"past the end of the file", guestmem.File{Size: page, FD: shared, Offset: 2 * page}, "ends before"},
		{"offset wraps", guestmem.File{Size: 2 * page, FD: shared, Offset: ^uint64(page - 1)}, "ends before"},
		{"offset within a page", guestmem.File{Size: page, FD: shared, Offset: 8}, "number of pages"},
		{"base within a page", guestmem.File{Base: 8, Size: page, FD: shared}, "number of pages"},
		{"half a page", guestmem.File{Size: 2048, FD: shared}, "number of pages"},
		{"nothing", guestmem.File{Size: 0, FD: shared}, "out of range"},
		{"too much", guestmem.File{Size: 1 << 62, FD: shared}, "out of range"},
		{"wraps", guestmem.File{Base: ^guestmem.GPA(page - 1), Size: 2 * page, FD: shared}, "wraps"},
	}
	if huge, err := unix.MemfdCreate("huge", unix.MFD_CLOEXEC|unix.MFD_HUGETLB); err == nil {
		defer unix.Close(huge)
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.name, last.file.FD, last.want = "huge pages", huge, "not of a tmpfs"
	}
	if !onTmpfs(t, file) {
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.name, last.file.FD = "a file on a disk", int(file.Fd())
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := guestmem.Map(tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Map = %v; want %q", err, tt.want)
			}
		})
	}
	t.Run("overlap", func(t *testing.T) {
		_, err := guestmem.Map(guestmem.File{Size: 2 * page, FD: shared}, guestmem.File{Base: page, Size: page, FD: shared})
		if err == nil || !strings.Contains(err.Error(), "overlaps") {
			t.Errorf("Map = %v; want overlaps", err)
		}
	})
}

func onTmpfs(t *testing.T, f *os.File) bool {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Type == unix.TMPFS_MAGIC
}

// The physical memory of User-Mode Linux is an unlinked file of a tmpfs, which
// the guest's process can shrink. Who touches a page that is gone gets SIGBUS.
func TestShrunkFile(t *testing.T) {
	for _, where := range []string{"memfd", "/dev/shm"} {
		t.Run(where, func(t *testing.T) {
			fd := memfd(t, 4*page)
			if where != "memfd" {
				f, err := os.CreateTemp(where, "seki-test-")
				if err != nil {
					t.Skipf("needs %s: %v", where, err)
				}
				defer f.Close()
				os.Remove(f.Name())
				if err := f.Truncate(4 * page); err != nil {
					t.Fatal(err)
				}
				fd = int(f.Fd())
			}
			m, err := guestmem.Map(guestmem.File{Size: 4 * page, FD: fd})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if err := unix.Ftruncate(fd, page); err != nil {
				t.Fatal(err)
			}
			faults(t, m, 2*page)
			// Over the edge: the first part is there, the rest is not.
			if err := m.Read(page-8, make([]byte, 16)); !isFault(err) {
				t.Errorf("Read over the edge = %v; want a FaultError", err)
			}
			if err := m.Write(0, make([]byte, page)); err != nil {
				t.Errorf("Write to the page that is left: %v", err)
			}
			// The file may grow again: nothing is remembered.
			if err := unix.Ftruncate(fd, 4*page); err != nil {
				t.Fatal(err)
			}
			if err := m.Write(2*page, []byte{1}); err != nil {
				t.Errorf("Write after it grew again: %v", err)
			}
		})
	}
}

// faults tries every access at addr.
func faults(t *testing.T, m *guestmem.Memory, addr guestmem.GPA) {
	t.Helper()
	_, e16 := m.Load16(addr)
	_, e32 := m.Load32(addr)
	_, e64 := m.Load64(addr)
	for name, err := range map[string]error{
		"Read":    m.Read(addr, make([]byte, 64)),
		"Read 1":  m.Read(addr, make([]byte, 1)),
		"Write":   m.Write(addr, make([]byte, 1500)),
		"Load16":  e16,
		"Load32":  e32,
		"Load64":  e64,
		"Store32": m.Store32(addr, 1),
		"Store64": m.Store64(addr, 1),
	} {
		var fe *guestmem.FaultError
		if !errors.As(err, &fe) || fe.Addr != addr {
			t.Errorf("%s = %v; want a FaultError", name, err)
		}
	}
}

func isFault(err error) bool {
	var fe *guestmem.FaultError
	return errors.As(err, &fe)
}

// A fault that is not the guest's is a bug, and is not swallowed: catching is
// bound to the access and put back after it.
func TestOtherFaultsStay(t *testing.T) {
	m, err := guestmem.New(page)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Read(0, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a nil pointer did not panic after an access")
		}
	}()
	var p *int
	*p = 1
}

func TestClose(t *testing.T) {
	fd := memfd(t, 2*page)
	m, err := guestmem.Map(guestmem.File{Size: 2 * page, FD: fd})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // closing twice is fine
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		faults(t, m, page)
	}
	own, err := guestmem.New(page)
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Close(); err != nil {
		t.Fatal(err)
	}
	faults(t, own, 0)
}

// Many tables of memory in a row, as from a peer that sends nothing else: what
// is closed and forgotten is unmapped.
func TestCloseGivesBack(t *testing.T) {
	fd := memfd(t, 16*page)
	before := mappings(t)
	for range 500 {
		m, err := guestmem.Map(guestmem.File{Size: 16 * page, FD: fd})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // cleanups run after a collection, in a goroutine of the runtime
		runtime.GC()
	}
	for try := 0; mappings(t) > before+50; try++ {
		if try == 1000 {
			t.Fatalf("%d mappings, %d before", mappings(t), before)
		}
		runtime.GC()
	}
}

func mappings(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

// Accesses race with Close and with a guest that shrinks its file: each one
// works or is a FaultError, and the process lives.
func TestRaces(t *testing.T) {
	fd := memfd(t, 4*page)
	m, err := guestmem.Map(guestmem.File{Size: 4 * page, FD: fd})
	if err != nil {
		t.Fatal(err)
	}
	var users sync.WaitGroup
	for range 3 {
		users.Go(func() {
			b := make([]byte, 2*page)
			for i := range 5000 {
				for _, err := range []error{m.Read(page, b), m.Write(page, b), m.Store32(3*page, uint32(i))} {
					if err != nil && !isFault(err) {
						t.Errorf("err = %v; want none or a FaultError", err)
						return
					}
				}
			}
		})
	}
	for range 500 {
		if err := errors.Join(unix.Ftruncate(fd, page), unix.Ftruncate(fd, 4*page)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	users.Wait()
}
