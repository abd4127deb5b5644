package virtq_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtq"
	"sekimori/vmm/virtq/virtqtest"
)

const (
	ram  = 1 << 20
	bufs = 0x10000 // where tests put their buffers
)

// rig returns a queue and the driver that fills it.
func rig(t testing.TB, size uint16) (*virtq.Queue, *virtqtest.Driver) {
	t.Helper()
	m, err := guestmem.New(ram)
	if err != nil {
		t.Fatal(err)
	}
	d := virtqtest.New(m, 0, size)
	q, err := virtq.New(m, d.Config)
	if err != nil {
		t.Fatal(err)
	}
	return q, d
}

func TestPopPush(t *testing.T) {
	q, d := rig(t, 8)
	var c virtq.Chain
	if ok, err := q.Pop(&c); ok || err != nil {
		t.Fatalf("Pop of an empty queue = %v, %v", ok, err)
	}
	// Round the ring, and round the 16 bits of its index, many times.
	for i := range 3 * 65536 / 2 {
		want := fmt.Appendf(nil, "chain %d", i)
		if err := d.Mem.Write(bufs, want); err != nil {
			t.Fatal(err)
		}
		one := d.Add(virtqtest.Desc{Addr: bufs, Len: 3}, virtqtest.Desc{Addr: bufs + 3, Len: uint32(len(want) - 3)},
			virtqtest.Desc{Addr: bufs + 0x100, Len: 4, Flags: virtqtest.Write}, virtqtest.Desc{Addr: bufs + 0x200, Len: 60, Flags: virtqtest.Write})
		two := d.Add(virtqtest.Desc{Addr: bufs, Len: 1})
		d.Publish(one, two)

		ok, err := q.Pop(&c)
		if !ok || err != nil || c.Head != one || c.Readable() != uint64(len(want)) || c.Writable() != 64 {
			t.Fatalf("Pop %d = %v, %v: head %d, readable %d, writable %d", i, ok, err, c.Head, c.Readable(), c.Writable())
		}
		got := make([]byte, 100)
		if n, err := c.CopyOut(got, 0); err != nil || !bytes.Equal(got[:n], want) {
			t.Fatalf("CopyOut = %q, %v; want %q", got[:n], err, want)
		}
		if n, err := c.CopyIn(want, 0); err != nil || n != len(want) {
			t.Fatalf("CopyIn = %d, %v; want %d", n, err, len(want))
		}
		if err := q.Push(c.Head, uint32(len(want))); err != nil {
			t.Fatal(err)
		}
		if ok, err := q.Pop(&c); !ok || err != nil || c.Head != two {
			t.Fatalf("second Pop = %v, %v, head %d; want %d", ok, err, c.Head, two)
		}
		if err := q.Push(c.Head, 0); err != nil {
			t.Fatal(err)
		}
		if ok, err := q.Pop(&c); ok || err != nil {
			t.Fatalf("third Pop = %v, %v; want nothing", ok, err)
		}
		used := d.TakeUsed()
		if len(used) != 2 || used[0] != (virtqtest.Used{Head: uint32(one), Len: uint32(len(want))}) || used[1] != (virtqtest.Used{Head: uint32(two)}) {
			t.Fatalf("used = %v", used)
		}
		back := make([]byte, 4)
		if err := d.Mem.Read(bufs+0x100, back); err != nil || !bytes.Equal(back, want[:4]) {
			t.Fatalf("the first writable buffer holds %q, %v; want %q", back, err, want[:4])
		}
		rest := make([]byte, len(want)-4)
		if err := d.Mem.Read(bufs+0x200, rest); err != nil || !bytes.Equal(rest, want[4:]) {
			t.Fatalf("the second writable buffer holds %q, %v; want %q", rest, err, want[4:])
		}
	}
}

// Copying begins anywhere, and ends where the part does.
func TestCopyOffsets(t *testing.T) {
	q, d := rig(t, 8)
	text := []byte("abcdefghijklmnopqrstuvwxyz")
	if err := d.Mem.Write(bufs, text); err != nil {
		t.Fatal(err)
	}
	d.Publish(d.Add(
		virtqtest.Desc{Addr: bufs, Len: 5}, virtqtest.Desc{Addr: bufs + 5, Len: 0}, virtqtest.Desc{Addr: bufs + 5, Len: 1}, virtqtest.Desc{Addr: bufs + 6, Len: 20},
		virtqtest.Desc{Addr: bufs + 0x100, Len: 1, Flags: virtqtest.Write}, virtqtest.Desc{Addr: bufs + 0x101, Len: 25, Flags: virtqtest.Write}))
	var c virtq.Chain
	if ok, err := q.Pop(&c); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for off := range 30 {
		for n := range 30 {
			got := make([]byte, n)
			k, err := c.CopyOut(got, uint64(off))
			want := text[min(off, 26):min(off+n, 26)]
			if err != nil || !bytes.Equal(got[:k], want) {
				t.Fatalf("CopyOut(%d bytes, %d) = %q, %v; want %q", n, off, got[:k], err, want)
			}
			if err := d.Mem.Write(bufs+0x100, bytes.Repeat([]byte{'.'}, 30)); err != nil {
				t.Fatal(err)
			}
			if k, err = c.CopyIn(text[:min(n, 26)], uint64(off)); err != nil {
				t.Fatal(err)
			}
			all := make([]byte, 30)
			if err := d.Mem.Read(bufs+0x100, all); err != nil {
				t.Fatal(err)
			}
			expect := bytes.Repeat([]byte{'.'}, 30)
			if m := copy(expect[min(off, 26):26], text[:min(n, 26)]); m != k || !bytes.Equal(all, expect) {
				t.Fatalf("CopyIn(%d bytes, %d) = %d: %q; want %d: %q", n, off, k, all, m, expect)
			}
		}
	}
	if k, err := c.CopyOut(make([]byte, 8), math.MaxUint64); k != 0 || err != nil {
		t.Errorf("CopyOut far behind the end = %d, %v; want 0", k, err)
	}
}

// A driver that breaks a rule breaks its queue, and gets no second chance.
func TestBroken(t *testing.T) {
	const size = 8
	tests := []struct {
		name string
		fill func(d *virtqtest.Driver)
		want string
	}{
		{"head out of range", func(d *virtqtest.Driver) { d.Publish(size) },
			"virtq test: chain 8 at descriptor 8: the queue has no such descriptor"},
		{"head 65535", func(d *virtqtest.Driver) { d.Publish(65535) },
			"virtq test: chain 65535 at descriptor 65535: the queue has no such descriptor"},
		{"next out of range", func(d *virtqtest.Driver) {
			d.Set(0, virtqtest.Desc{Addr: bufs, Len: 1, Flags: virtqtest.Next, Next: 999})
			d.Publish(0)
		}, "virtq test: chain 0 at descriptor 0: links to a descriptor that the queue does not have"},
		{"next one out of range", func(d *virtqtest.Driver) {
			d.Set(0, virtqtest.Desc{Addr: bufs, Len: 1, Flags: virtqtest.Next, Next: size})
			d.Publish(0)
		}, "virtq test: chain 0 at descriptor 0: links to a descriptor that the queue does not have"},
		{"linked to itself", func(d *virtqtest.Driver) {
			d.Set(3, virtqtest.Desc{Addr: bufs, Len: 1, Flags: virtqtest.Next, Next: 3})
			d.Publish(3)
		}, "virtq test: chain 3 at descriptor 3: the chain is longer than the queue: it loops"},
		{"two empty ones in a circle", func(d *virtqtest.Driver) {
			d.Set(0, virtqtest.Desc{Flags: virtqtest.Next, Next: 1})
			d.Set(1, virtqtest.Desc{Flags: virtqtest.Next, Next: 0})
			d.Publish(0)
		}, "virtq test: chain 0 at descriptor 0: the chain is longer than the queue: it loops"},
		{"writable ones in a circle", func(d *virtqtest.Driver) {
			for i := range uint16(size) {
				d.Set(i, virtqtest.Desc{Addr: bufs, Len: 64, Flags: virtqtest.Next | virtqtest.Write, Next: (i + 1) % size})
			}
			d.Publish(0)
		}, "it loops"},
		{"indirect", func(d *virtqtest.Driver) {
			d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: 16, Flags: virtqtest.Indirect}))
		}, "virtq test: chain 0 at descriptor 0: indirect, which was not negotiated"},
		{"indirect at the end of a chain", func(d *virtqtest.Driver) {
			d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: 16}, virtqtest.Desc{Addr: bufs, Len: 16, Flags: virtqtest.Indirect | virtqtest.Write}))
		}, "chain 0 at descriptor 1: indirect"},
		{"readable after writable", func(d *virtqtest.Driver) {
			d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: 16, Flags: virtqtest.Write}, virtqtest.Desc{Addr: bufs, Len: 16}))
		}, "virtq test: chain 0 at descriptor 1: readable after a writable one"},
		{"longer than 4 GiB", func(d *virtqtest.Driver) {
			d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: math.MaxUint32}, virtqtest.Desc{Addr: bufs, Len: 2}))
		}, "virtq test: chain 0 at descriptor 1: the chain is longer than 4 GiB"},
		{"longer than 4 GiB with its writable part", func(d *virtqtest.Driver) {
			d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: math.MaxUint32}, virtqtest.Desc{Addr: bufs, Len: 2, Flags: virtqtest.Write}))
		}, "longer than 4 GiB"},
		{"buffer wraps", func(d *virtqtest.Driver) {
			d.Publish(d.Add(virtqtest.Desc{Addr: math.MaxUint64 - 7, Len: 64}))
		}, "virtq test: chain 0 at descriptor 0: its buffer wraps around the address space"},
		{"index far ahead", func(d *virtqtest.Driver) { d.SetAvailIdx(65535) },
			"virtq test: available index 65535 is 65535 ahead of 0, more than the queue's 8"},
		{"index one too far ahead", func(d *virtqtest.Driver) { d.SetAvailIdx(size + 1) },
			"virtq test: available index 9 is 9 ahead of 0, more than the queue's 8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, d := rig(t, size)
			tt.fill(d)
			var c virtq.Chain
			ok, err := q.Pop(&c)
			if ok || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Pop = %v, %v; want %q", ok, err, tt.want)
			}
			var ce *virtq.ChainError
			var re *virtq.RingError
			if !errors.As(err, &ce) && !errors.As(err, &re) {
				t.Errorf("err is a %T; want a ChainError or a RingError", err)
			}
			// An honest chain does not mend it.
			d.SetAvailIdx(0)
			d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: 1}))
			before := d.TakeUsed()
			_, popErr := q.Pop(&c)
			_, irqErr := q.NeedInterrupt()
			for what, got := range map[string]error{
				"Pop": popErr, "Push": q.Push(0, 0), "NeedInterrupt": irqErr, "SetNotify": q.SetNotify(false), "Broken": q.Broken(),
			} {
				if got != err {
					t.Errorf("%s of the broken queue = %v; want %v again", what, got, err)
				}
			}
			if used := d.TakeUsed(); len(before)+len(used) != 0 {
				t.Errorf("the broken queue gave back %v %v", before, used)
			}
		})
	}
}

// As many chains as descriptors, and a chain of all descriptors, are fine.
func TestFull(t *testing.T) {
	const size = 8
	q, d := rig(t, size)
	var c virtq.Chain
	var all []virtqtest.Desc
	for range size {
		d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: 1}))
		all = append(all, virtqtest.Desc{Addr: bufs, Len: math.MaxUint32 / size})
	}
	for range size {
		if ok, err := q.Pop(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := q.Push(c.Head, 0); err != nil {
			t.Fatal(err)
		}
	}
	d.Publish(d.Add(all...))
	if ok, err := q.Pop(&c); !ok || err != nil || c.Readable() != math.MaxUint32/size*size {
		t.Errorf("Pop of a chain of all descriptors = %v, %v, %d bytes", ok, err, c.Readable())
	}
	// A single buffer of 4 GiB less one byte is no more than a number, too.
	q, d = rig(t, size)
	d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: math.MaxUint32}))
	if ok, err := q.Pop(&c); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if n, err := c.CopyOut(make([]byte, 64), 0); n != 64 || err != nil {
		t.Errorf("CopyOut of its beginning = %d, %v; want 64", n, err)
	}
	var re *guestmem.RangeError
	if _, err := c.CopyOut(make([]byte, 64), ram); !errors.As(err, &re) {
		t.Errorf("CopyOut of what is not RAM = %v; want a RangeError", err)
	}
	if q.Broken() != nil {
		t.Errorf("a bad buffer broke the queue: %v", q.Broken())
	}
}

// Buffers outside RAM cost their chain, not the queue.
func TestBadBuffers(t *testing.T) {
	for _, addr := range []guestmem.GPA{ram - 4, ram, 1 << 40, math.MaxUint64 - 100} {
		q, d := rig(t, 8)
		d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: 4}, virtqtest.Desc{Addr: addr, Len: 64}, virtqtest.Desc{Addr: addr, Len: 64, Flags: virtqtest.Write}))
		var c virtq.Chain
		if ok, err := q.Pop(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		var re *guestmem.RangeError
		b := make([]byte, 64)
		if _, err := c.CopyOut(b, 0); !errors.As(err, &re) || re.Addr != addr {
			t.Errorf("CopyOut at %#x = %v; want a RangeError", uint64(addr), err)
		}
		if _, err := c.CopyIn(b, 0); !errors.As(err, &re) || re.Addr != addr {
			t.Errorf("CopyIn at %#x = %v; want a RangeError", uint64(addr), err)
		}
		if err := q.Push(c.Head, 0); err != nil {
			t.Error(err)
		}
		if used := d.TakeUsed(); len(used) != 1 {
			t.Errorf("used = %v; want the chain back", used)
		}
	}
}

func TestNewRefused(t *testing.T) {
	m, err := guestmem.New(ram)
	if err != nil {
		t.Fatal(err)
	}
	good := virtqtest.New(m, 0, 256).Config
	tests := []struct {
		name   string
		change func(c *virtq.Config)
		want   string
	}{
		{"size 0", func(c *virtq.Config) { c.Size = 0 }, "size 0 is not a power of two"},
		{"size 3", func(c *virtq.Config) { c.Size = 3 }, "size 3 is not a power of two"},
		{"size 65535", func(c *virtq.Config) { c.Size = 65535 }, "size 65535 is not a power of two"},
		{"descriptors not aligned", func(c *virtq.Config) { c.Desc = 8 }, "descriptor table at 0x8: not a multiple of 16"},
		{"available not aligned", func(c *virtq.Config) { c.Avail += 2 }, "available ring at"},
		{"used not aligned", func(c *virtq.Config) { c.Used += 2 }, "used ring at"},
		{"descriptors behind RAM", func(c *virtq.Config) { c.Desc = ram - 16*256 + 16 }, "descriptor table: guest memory [0xff010, +4096): outside RAM"},
		{"available behind RAM", func(c *virtq.Config) { c.Avail = ram - 512 }, "available ring: guest memory"},
		{"used on the last page of RAM", func(c *virtq.Config) { c.Used = ram - 2048 }, "used ring: guest memory"},
		{"used nowhere", func(c *virtq.Config) { c.Used = 1 << 32 }, "used ring: guest memory"},
		{"used wraps", func(c *virtq.Config) { c.Used = math.MaxUint64 - 3 }, "used ring: guest memory"},
		{"descriptors wrap", func(c *virtq.Config) { c.Desc = math.MaxUint64 - 15 }, "descriptor table: guest memory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			q, err := virtq.New(m, cfg)
			var re *virtq.RingError
			if q != nil || !errors.As(err, &re) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, %v; want %q", q, err, tt.want)
			}
		})
	}
	if _, err := virtq.New(m, good); err != nil {
		t.Errorf("the ring that the others were made of: %v", err)
	}
	// The last bytes of RAM are RAM.
	good.Used = ram - (4+8*256+2)&^3 - 4
	if _, err := virtq.New(m, good); err != nil {
		t.Errorf("used ring at the very end: %v", err)
	}
}

// "If flags is 1, the device SHOULD NOT send a notification. If flags is 0, the
// device MUST send a notification" (virtio 1.2, 2.7.7.2).
func TestNeedInterrupt(t *testing.T) {
	q, d := rig(t, 8)
	for _, flags := range []uint16{0, virtqtest.NoInterrupt, 0} {
		d.SetAvailFlags(flags)
		if want, err := q.NeedInterrupt(); want != (flags == 0) || err != nil {
			t.Errorf("NeedInterrupt with flags %d = %v, %v", flags, want, err)
		}
	}
}

// "The device MUST set flags to 0 or 1" (virtio 1.2, 2.7.10.2).
func TestSetNotify(t *testing.T) {
	q, d := rig(t, 8)
	if flags, idx := d.UsedHead(); flags != 0 || idx != 0 {
		t.Errorf("at the start flags, idx = %d, %d; want 0, 0", flags, idx)
	}
	for i, on := range []bool{false, true, false} {
		if err := q.SetNotify(on); err != nil {
			t.Fatal(err)
		}
		d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: 1}))
		var c virtq.Chain
		if ok, err := q.Pop(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := q.Push(c.Head, 0); err != nil {
			t.Fatal(err)
		}
		want := uint16(1)
		if on {
			want = 0
		}
		if flags, idx := d.UsedHead(); flags != want || idx != uint16(i+1) {
			t.Errorf("SetNotify(%v), Push: flags, idx = %d, %d; want %d, %d", on, flags, idx, want, i+1)
		}
	}
}

// A queue that is stopped and made again goes on where it was.
func TestNext(t *testing.T) {
	q, d := rig(t, 8)
	var c virtq.Chain
	for i := range 5 {
		d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: uint32(i + 1)}))
	}
	for range 3 {
		if ok, err := q.Pop(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := q.Push(c.Head, 0); err != nil {
			t.Fatal(err)
		}
	}
	cfg := d.Config
	cfg.Next = q.Next()
	q, err := virtq.New(d.Mem, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := q.Pop(&c); !ok || err != nil || c.Readable() != 4 {
		t.Errorf("Pop = %v, %v, %d bytes; want the fourth chain", ok, err, c.Readable())
	}
	if err := q.Push(c.Head, 0); err != nil {
		t.Fatal(err)
	}
	if used := d.TakeUsed(); len(used) != 4 || used[3].Head != 3 {
		t.Errorf("used = %v; want four, the last of them 3", used)
	}
}

// A ring whose memory goes away breaks the queue, wherever it goes away.
func TestMemoryGone(t *testing.T) {
	use := map[string]func(q *virtq.Queue) error{
		"Pop":           func(q *virtq.Queue) error { _, err := q.Pop(new(virtq.Chain)); return err },
		"Push":          func(q *virtq.Queue) error { return q.Push(0, 0) },
		"NeedInterrupt": func(q *virtq.Queue) error { _, err := q.NeedInterrupt(); return err },
		"SetNotify":     func(q *virtq.Queue) error { return q.SetNotify(true) },
	}
	for name, f := range use {
		t.Run(name, func(t *testing.T) {
			q, d := rig(t, 8)
			if err := d.Mem.Close(); err != nil {
				t.Fatal(err)
			}
			var fe *guestmem.FaultError
			if err := f(q); !errors.As(err, &fe) || q.Broken() == nil {
				t.Errorf("%s = %v, broken %v; want a FaultError and a broken queue", name, err, q.Broken())
			}
		})
	}
}

func TestNoAllocs(t *testing.T) {
	q, d := rig(t, 256)
	var c virtq.Chain
	buf := make([]byte, 1526)
	head := d.Add(virtqtest.Desc{Addr: bufs, Len: 12}, virtqtest.Desc{Addr: bufs + 12, Len: 1514}, virtqtest.Desc{Addr: bufs, Len: 1526, Flags: virtqtest.Write})
	allocs := testing.AllocsPerRun(1000, func() {
		d.Publish(head)
		if ok, err := q.Pop(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if n, err := c.CopyOut(buf, 0); n != 1526 || err != nil {
			t.Fatal(n, err)
		}
		if n, err := c.CopyIn(buf, 0); n != 1526 || err != nil {
			t.Fatal(n, err)
		}
		if err := q.Push(c.Head, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := q.NeedInterrupt(); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a chain; want none", allocs)
	}
}

func BenchmarkChain(b *testing.B) {
	q, d := rig(b, 256)
	var c virtq.Chain
	buf := make([]byte, 1526)
	head := d.Add(virtqtest.Desc{Addr: bufs, Len: 12}, virtqtest.Desc{Addr: bufs + 12, Len: 1514})
	for b.Loop() {
		d.Publish(head)
		if ok, err := q.Pop(&c); !ok || err != nil {
			b.Fatal(ok, err)
		}
		if _, err := c.CopyOut(buf, 0); err != nil {
			b.Fatal(err)
		}
		if err := q.Push(c.Head, 0); err != nil {
			b.Fatal(err)
		}
		if _, err := q.NeedInterrupt(); err != nil {
			b.Fatal(err)
		}
	}
}
