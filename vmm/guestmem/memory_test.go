package guestmem_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"sekimori/vmm/guestmem"
)

// twoRegions has RAM at [0x1000, 0x2000), [0x2000, 0x2010) and [0x8000, 0x8010).
func twoRegions(t *testing.T) *guestmem.Memory {
	t.Helper()
	m, err := guestmem.FromSlices(
		guestmem.Slice{Base: 0x8000, Bytes: make([]byte, 16)},
		guestmem.Slice{Base: 0x1000, Bytes: make([]byte, 0x1000)},
		guestmem.Slice{Base: 0x2000, Bytes: make([]byte, 16)},
	)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRange(t *testing.T) {
	tests := []struct {
		addr guestmem.GPA
		n    int
		ok   bool
	}{
		{0x1000, 1, true},
		{0x1000, 0x1000, true},
		{0x1fff, 1, true},
		{0x1ff8, 16, true},     // over the seam of two regions
		{0x1000, 0x1010, true}, // all of both
		{0x1000, 0x1011, false},
		{0x2000, 17, false},
		{0x0fff, 1, false},
		{0x0fff, 2, false},
		{0x2010, 0, false},
		{0x7fff, 2, false},
		{0x8000, 16, true},
		{0x8001, 16, false},
		{0, 1, false},
		{math.MaxUint64, 1, false},
		{math.MaxUint64 - 7, 16, false}, // wraps
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%#x+%d", uint64(tt.addr), tt.n), func(t *testing.T) {
			m := twoRegions(t)
			if got := m.Contains(tt.addr, uint64(tt.n)); got != tt.ok {
				t.Errorf("Contains = %v; want %v", got, tt.ok)
			}
			b := bytes.Repeat([]byte{0xa5}, tt.n)
			err := m.Write(tt.addr, b)
			back := make([]byte, tt.n)
			rerr := m.Read(tt.addr, back)
			if tt.ok {
				if err != nil || rerr != nil || !bytes.Equal(back, b) {
					t.Errorf("Write = %v, Read = %x, %v; want what was written", err, back, rerr)
				}
				return
			}
			for _, err := range []error{err, rerr} {
				var re *guestmem.RangeError
				if !errors.As(err, &re) || re.Addr != tt.addr || re.Len != uint64(tt.n) || re.RAM != 0x1020 {
					t.Errorf("err = %v; want a RangeError of the access", err)
				}
			}
			for _, at := range []guestmem.GPA{0x1000, 0x1ff8, 0x2000, 0x8000} {
				if v, err := m.Load64(at); v != 0 || err != nil {
					t.Errorf("a refused write left %#x, %v at %#x", v, err, uint64(at))
				}
			}
		})
	}
}

func TestContainsHuge(t *testing.T) {
	m := twoRegions(t)
	if m.Contains(0x1000, math.MaxUint64) || m.Contains(0x1000, 1<<63) {
		t.Error("Contains a length that wraps")
	}
	if m.Size() != 0x1020 {
		t.Errorf("Size = %#x; want 0x1020", m.Size())
	}
}

func TestWords(t *testing.T) {
	m := twoRegions(t)
	if err := m.Write(0x1008, []byte{1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load16(0x100a); v != 0x0403 || err != nil {
		t.Errorf("Load16 = %#x, %v; want 0x0403", v, err)
	}
	if v, err := m.Load32(0x100c); v != 0x08070605 || err != nil {
		t.Errorf("Load32 = %#x, %v; want 0x08070605", v, err)
	}
	if v, err := m.Load64(0x1008); v != 0x0807060504030201 || err != nil {
		t.Errorf("Load64 = %#x, %v; want 0x0807060504030201", v, err)
	}
	if err := errors.Join(m.Store32(0x1008, 0xffeeddcc), m.Store64(0x1010, 0x1122334455667788)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	want := []byte{0xcc, 0xdd, 0xee, 0xff, 5, 6, 7, 8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}
	if err := m.Read(0x1008, b); err != nil || !bytes.Equal(b, want) {
		t.Errorf("Read = %x, %v; want %x", b, err, want)
	}
}

func TestWordsRefused(t *testing.T) {
	m := twoRegions(t)
	type op struct {
		name string
		n    guestmem.GPA
		do   func(guestmem.GPA) error
	}
	ops := []op{
		{"Load16", 2, func(a guestmem.GPA) error { _, err := m.Load16(a); return err }},
		{"Load32", 4, func(a guestmem.GPA) error { _, err := m.Load32(a); return err }},
		{"Load64", 8, func(a guestmem.GPA) error { _, err := m.Load64(a); return err }},
		{"Store32", 4, func(a guestmem.GPA) error { return m.Store32(a, 1) }},
		{"Store64", 8, func(a guestmem.GPA) error { return m.Store64(a, 1) }},
	}
	for _, op := range ops {
		t.Run(op.name, func(t *testing.T) {
			var ae *guestmem.AlignError
			if err := op.do(0x1001); !errors.As(err, &ae) {
				t.Errorf("at an odd address: %v; want an AlignError", err)
			}
			var re *guestmem.RangeError
			for _, at := range []guestmem.GPA{0x8010, 0x800f, math.MaxUint64, 0x9000, 0} {
				if err := op.do(at); !errors.As(err, &re) {
					t.Errorf("at %#x: %v; want a RangeError", uint64(at), err)
				}
			}
			if err := op.do(0x8010 - op.n); err != nil {
				t.Errorf("the last word: %v", err)
			}
		})
	}
}

func TestFromSlicesRefused(t *testing.T) {
	page := make([]byte, 4096)
	tests := []struct {
		name string
		s    []guestmem.Slice
	}{
		{"empty", []guestmem.Slice{{Base: 0, Bytes: nil}}},
		{"overlap", []guestmem.Slice{{Base: 0, Bytes: page}, {Base: 4088, Bytes: page}}},
		{"the same", []guestmem.Slice{{Base: 0, Bytes: page}, {Base: 0, Bytes: page}}},
		{"wraps", []guestmem.Slice{{Base: math.MaxUint64 - 7, Bytes: page}}},
		{"base not aligned", []guestmem.Slice{{Base: 4, Bytes: page}}},
		{"bytes not aligned", []guestmem.Slice{{Base: 0, Bytes: page[1:]}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := guestmem.FromSlices(tt.s...); err == nil {
				t.Error("FromSlices = nil error")
			}
		})
	}
	if _, err := guestmem.FromSlices(guestmem.Slice{Base: math.MaxUint64 - 4095, Bytes: page}); err != nil {
		t.Errorf("the last page of the address space: %v", err)
	}
}

func TestErrors(t *testing.T) {
	m := twoRegions(t)
	err := m.Read(0x10000000, make([]byte, 64))
	if want := "guest memory [0x10000000, +64): outside RAM of 4128 bytes"; err == nil || err.Error() != want {
		t.Errorf("Read = %v; want %s", err, want)
	}
}

func TestNoAllocs(t *testing.T) {
	m := twoRegions(t)
	b := make([]byte, 1514)
	allocs := testing.AllocsPerRun(100, func() {
		if m.Read(0x1000, b) != nil || m.Write(0x1000, b) != nil || m.Store32(0x1000, 1) != nil {
			t.Error("refused")
		}
		if _, err := m.Load16(0x1000); err != nil {
			t.Error(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations; want none", allocs)
	}
}

func BenchmarkRead(b *testing.B) {
	m, err := guestmem.New(1 << 20)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{2, 16, 64, 1514} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			buf := make([]byte, n)
			for b.Loop() {
				if err := m.Read(0x1000, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("copy only", func(b *testing.B) {
		src, buf := make([]byte, 1514), make([]byte, 1514)
		for b.Loop() {
			copy(buf, src)
		}
	})
	b.Run("Load32", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.Load32(0x1000); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Load16", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.Load16(0x1000); err != nil {
				b.Fatal(err)
			}
		}
	})
}
