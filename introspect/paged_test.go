package introspect_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/vmm/guestmem"
)

// newTables has tables from 0x1000 on, and data from 0x40000 on.
func newTables(levels int) *introspecttest.Tables {
	return &introspecttest.Tables{RAM: make([]byte, 8<<20), Root: 0x1000, Next: 0x3000, Levels: levels}
}

func memory(t testing.TB, p *introspecttest.Tables) *introspect.Paged {
	t.Helper()
	ram, err := guestmem.FromSlices(guestmem.Slice{Bytes: p.RAM})
	if err != nil {
		t.Fatal(err)
	}
	m := introspect.NewPaged(ram)
	cr4 := uint64(0x20)
	if p.Levels == 5 {
		cr4 |= 1 << 12
	}
	m.Enter(p.Root|0x18, cr4, false) // with flags and a PCID in CR3
	return m
}

const noExecute = 1 << 63

// read and physical are those of a memory, within a look of their own.
func read(m introspect.Memory, va uint64, b []byte) error {
	return m.Look(func() error { return m.Read(va, b) })
}

func physical(m introspect.Memory, va uint64) (at guestmem.GPA, err error) {
	err = m.Look(func() (err error) {
		at, err = m.Physical(va)
		return err
	})
	return at, err
}

func TestPaged(t *testing.T) {
	for _, levels := range []int{4, 5} {
		// The lowest address of the kernel's half, and one of the direct map.
		base := ^uint64(0) << (12 + 9*levels - 1)
		p := newTables(levels)
		for i := range p.RAM[0x40000:] {
			p.RAM[0x40000+i] = byte(i>>12) ^ byte(i)
		}
		p.Put(base, 0x50000, 12, noExecute)
		p.Put(base+0x1000, 0x41000, 12, 0x100) // not the one behind it
		p.Put(base+2<<20, 4<<20, 21, noExecute|1<<12)
		p.Put(base+3<<30, 0, 30, 0)
		p.Put(base+3<<21, 1<<40, 12, 0) // behind the end of RAM
		p.Put(^uint64(0)&^4095, 0x42000, 12, 0)
		m := memory(t, p)
		tests := []struct {
			name string
			va   uint64
			n    int
			pa   uint64 // 0: an error
		}{
			{"page", base, 8, 0x50000},
			{"end of a page", base + 0xff8, 8, 0x50ff8},
			{"large page", base + 2<<20 + 0x12345, 0x2000, 4<<20 + 0x12345},
			{"huge page", base + 3<<30 + 0x45678, 64, 0x45678},
			{"huge page behind ram", base + 3<<30 + 64<<20, 8, 0},
			{"small page behind ram", base + 3<<21, 8, 0},
			{"not mapped", base + 0x2000, 8, 0},
			{"runs into what is not mapped", base + 0x1ffc, 8, 0},
			{"not mapped, higher level", base + 1<<39 - 1<<30, 8, 0},
			{"user's half", base & (1<<63 - 1), 8, 0},
			{"user's address", 0x1000, 8, 0},
			{"below the kernel's half", base - 8, 8, 0},
			{"last bytes", ^uint64(0) - 7, 8, 0x42ff8},
			{"wraps", ^uint64(0) - 3, 8, 0},
			{"nothing", base, 0, 0},
		}
		for _, tt := range tests {
			t.Run(fmt.Sprint(levels, " ", tt.name), func(t *testing.T) {
				b := make([]byte, tt.n)
				err := read(m, tt.va, b)
				if tt.pa == 0 {
					if err == nil {
						t.Errorf("Read(%#x) = %x; want an error", tt.va, b)
					}
					return
				}
				if err != nil || !bytes.Equal(b, p.RAM[tt.pa:tt.pa+uint64(tt.n)]) {
					t.Errorf("Read(%#x) = %x, %v; want %x", tt.va, b, err, p.RAM[tt.pa:tt.pa+8])
				}
				if at, err := physical(m, tt.va); err != nil || uint64(at) != tt.pa {
					t.Errorf("Physical(%#x) = %#x, %v; want %#x", tt.va, at, err, tt.pa)
				}
			})
		}
		// Two pages that follow each other by address only.
		b := make([]byte, 16)
		if err := read(m, base+0xff8, b); err != nil || !bytes.Equal(b, append(bytes.Clone(p.RAM[0x50ff8:0x51000]), p.RAM[0x41000:0x41008]...)) {
			t.Errorf("Read over a seam = %x, %v", b, err)
		}
	}
}

// TestPagedIsolation: with page table isolation the user's tables lie in the
// page behind the kernel's and do not map it.
func TestPagedIsolation(t *testing.T) {
	p := newTables(4)
	p.Root = 0x2000 // the kernel's; the user's would be at 0x3000
	p.Next = 0x4000
	const va = 0xffff_8000_0000_0000
	p.Put(va, 0x50000, 12, 0)
	p.RAM[0x50000] = 0x5a
	m := memory(t, p)
	b := make([]byte, 1)
	if m.Enter(0x3000, 0x20, false); read(m, va, b) == nil {
		t.Error("the user's tables map the kernel")
	}
	if m.Enter(0x3000, 0x20, true); read(m, va, b) != nil || b[0] != 0x5a {
		t.Errorf("Read = %x; want the kernel's tables used", b)
	}
}

// TestPagedHostile: tables that lead to themselves end.
func TestPagedHostile(t *testing.T) {
	p := newTables(5)
	for i := range 512 {
		binary.LittleEndian.PutUint64(p.RAM[p.Root+8*uint64(i):], p.Root|1)
	}
	m := memory(t, p)
	b := make([]byte, 8)
	if err := read(m, uint64(0xff00_0000_0000_0000), b); err != nil {
		t.Errorf("Read = %v; want the table itself", err)
	}
	m.Enter(1<<51, 1<<12, false)
	if read(m, uint64(0xff00_0000_0000_0000), b) == nil {
		t.Error("tables outside of RAM were walked")
	}
}

// paged is the kernel's memory behind page tables of 2 MiB pages, as Linux maps
// RAM directly.
func paged(t testing.TB, k *introspecttest.Kernel) *introspect.Paged {
	t.Helper()
	const tableAt = 16 << 20 // behind all that the kernel holds
	p := &introspecttest.Tables{RAM: append(k.RAM(tableAt), make([]byte, 1<<20)...), Root: tableAt, Next: tableAt + 0x1000, Levels: 4}
	for pa := uint64(0); pa < tableAt; pa += 2 << 20 {
		p.Put(k.Direct+pa, pa, 21, noExecute)
	}
	return memory(t, p)
}

func TestOwnerPaged(t *testing.T) {
	tr := newTracedAt(t, 0xffff_8880_0000_0000)
	tr.Post(tr.card, 0, introspecttest.Frame{Len: 60, Sk: tr.Socket(introspecttest.Socket{Net: tr.nets[101]})})
	q, err := newGuest(t, tr.Kernel, paged(t, tr.Kernel), introspect.Current{}).Queue(tr.ring)
	if err != nil {
		t.Fatal(err)
	}
	if got := q.Owner(0, 60); got.Member != 1 {
		t.Errorf("Owner = %+v; want 1", got)
	}
	if n := testing.AllocsPerRun(1000, func() { q.Owner(0, 60) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkOwnerPaged(b *testing.B) {
	tr := newTracedAt(b, 0xffff_8880_0000_0000)
	tr.Post(tr.card, 0, introspecttest.Frame{Len: 60, Sk: tr.Socket(introspecttest.Socket{Net: tr.nets[101]})})
	q, err := newGuest(b, tr.Kernel, paged(b, tr.Kernel), introspect.Current{}).Queue(tr.ring)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		q.Owner(0, 60)
	}
}
