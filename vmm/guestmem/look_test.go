package guestmem_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/vmm/guestmem"
)

func TestLook(t *testing.T) {
	m := twoRegions(t)
	want := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	if err := m.Write(0x1ff8, want); err != nil {
		t.Fatal(err)
	}
	err := m.Look(func(v guestmem.View) error {
		b := make([]byte, 16)
		if err := v.Read(0x1ff8, b); err != nil || !bytes.Equal(b, want) { // over the seam
			t.Errorf("Read = %x, %v; want %x", b, err, want)
		}
		if err := v.Read(0x2000, b[:8]); err != nil || !bytes.Equal(b[:8], want[8:]) {
			t.Errorf("Read = %x, %v; want %x", b[:8], err, want[8:])
		}
		return v.Read(0x2008, b)
	})
	var re *guestmem.RangeError
	if !errors.As(err, &re) || re.Addr != 0x2008 {
		t.Errorf("Look = %v; want the RangeError", err)
	}
	if n := testing.AllocsPerRun(100, func() {
		var b [8]byte
		_ = m.Look(func(v guestmem.View) error { return v.Read(0x1000, b[:]) })
	}); n > 1 { // b, which the test keeps on the heap
		t.Errorf("%v allocations", n)
	}
}

// TestLookFault: f ends at the fault, and the next look is as if nothing was.
func TestLookFault(t *testing.T) {
	fd := memfd(t, 4*page)
	m, err := guestmem.Map(guestmem.File{Size: 4 * page, FD: fd})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := unix.Ftruncate(fd, page); err != nil {
		t.Fatal(err)
	}
	went := false
	err = m.Look(func(v guestmem.View) error {
		b := make([]byte, 8)
		if err := v.Read(0, b); err != nil {
			t.Errorf("Read of what is there = %v", err)
		}
		_ = v.Read(2*page+64, b)
		went = true
		return nil
	})
	var fe *guestmem.FaultError
	if !errors.As(err, &fe) || fe.Addr/page != 2 || went {
		t.Errorf("Look = %v, went on: %v; want a FaultError in page 2", err, went)
	}
	if err := m.Look(func(v guestmem.View) error { return v.Read(0, make([]byte, 8)) }); err != nil {
		t.Errorf("Look = %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a nil pointer within a look was swallowed")
		}
	}()
	_ = m.Look(func(guestmem.View) error {
		var p *int
		*p = 1
		return nil
	})
}

// BenchmarkLook follows five pointers.
func BenchmarkLook(b *testing.B) {
	m, err := guestmem.New(1 << 20)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 5 {
		if err := m.Store64(guestmem.GPA(0x1000*i), uint64(0x1000*(i+1))); err != nil {
			b.Fatal(err)
		}
	}
	buf := make([]byte, 8)
	b.Run("look", func(b *testing.B) {
		f := func(v guestmem.View) error {
			at := guestmem.GPA(0)
			for range 5 {
				if err := v.Read(at, buf); err != nil {
					return err
				}
				at = guestmem.GPA(binary.LittleEndian.Uint64(buf))
			}
			return nil
		}
		for b.Loop() {
			if err := m.Look(f); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("reads", func(b *testing.B) {
		for b.Loop() {
			at := guestmem.GPA(0)
			for range 5 {
				if err := m.Read(at, buf); err != nil {
					b.Fatal(err)
				}
				at = guestmem.GPA(binary.LittleEndian.Uint64(buf))
			}
		}
	})
}
