package virtq_test

import (
	"bytes"
	"runtime"
	"sync"
	"testing"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtq"
	"sekimori/vmm/virtq/virtqtest"
)

// What the specification asks of the device's side of a split virtqueue, one
// test for each sentence that no other test here quotes.

// "A device MUST NOT write to a device-readable buffer, and a device SHOULD NOT
// read a device-writable buffer. A device MUST NOT write to any descriptor table
// entry" (virtio 1.2, 2.7.5.1).
func TestWritesOnlyWhatItMay(t *testing.T) {
	q, d := rig(t, 8)
	if err := d.Mem.Write(bufs, bytes.Repeat([]byte{0x11}, 0x100)); err != nil {
		t.Fatal(err)
	}
	if err := d.Mem.Write(bufs+0x100, bytes.Repeat([]byte{0x22}, 0x100)); err != nil {
		t.Fatal(err)
	}
	d.Publish(d.Add(virtqtest.Desc{Addr: bufs, Len: 0x100}, virtqtest.Desc{Addr: bufs + 0x100, Len: 0x80, Flags: virtqtest.Write}))
	before := image(t, d.Mem)

	var c virtq.Chain
	if ok, err := q.Pop(&c); !ok || err != nil {
		t.Fatal(ok, err)
	}
	got := make([]byte, 0x200)
	if n, err := c.CopyOut(got, 0); n != 0x100 || err != nil || bytes.Contains(got, []byte{0x22}) {
		t.Errorf("CopyOut = %d bytes, %v: %x; want the readable 256", n, err, got)
	}
	if n, err := c.CopyIn(bytes.Repeat([]byte{0x33}, 0x200), 0); n != 0x80 || err != nil {
		t.Errorf("CopyIn = %d, %v; want the writable 128", n, err)
	}
	if err := q.Push(c.Head, 0x80); err != nil {
		t.Fatal(err)
	}
	copy(before[bufs+0x100:], bytes.Repeat([]byte{0x33}, 0x80))
	copy(before[d.Config.Used:], []byte{0, 0, 1, 0, 0, 0, 0, 0, 0x80, 0, 0, 0})
	for i, b := range image(t, d.Mem) {
		if b != before[i] {
			t.Errorf("byte %#x is %#x; want %#x", i, b, before[i])
		}
	}
}

func image(t *testing.T, m *guestmem.Memory) []byte {
	t.Helper()
	b := make([]byte, m.Size())
	if err := m.Read(0, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// "The device MUST set len prior to updating the used idx" (virtio 1.2,
// 2.7.8.2): a driver on another processor that sees the index sees the element,
// too.
func TestUsedElementBeforeIndex(t *testing.T) {
	const n = 20000
	q, d := rig(t, 8)
	var driver sync.WaitGroup
	seen := make(chan struct{}, 4) // how far the device may be ahead
	driver.Go(func() {
		for next := uint32(1); next <= n; {
			for _, u := range d.TakeUsed() {
				if u.Len != next || u.Head != next%8 {
					t.Errorf("element %d is %v", next, u)
				}
				next++
				<-seen
			}
			runtime.Gosched()
		}
	})
	for i := range uint32(n) {
		seen <- struct{}{}
		if err := q.Push(uint16((i+1)%8), i+1); err != nil {
			t.Fatal(err)
		}
	}
	driver.Wait()
}

// "idx always increments, and wraps naturally at 65536" (virtio 1.2, 2.7.13.3):
// a queue of the largest size whose index wraps while it is full.
func TestLargestQueueWraps(t *testing.T) {
	m, err := guestmem.New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	d := virtqtest.New(m, 0, virtq.MaxSize)
	cfg := d.Config
	cfg.Next = 65530
	d.SetAvailIdx(cfg.Next)
	q, err := virtq.New(m, cfg)
	if err != nil {
		t.Fatal(err)
	}
	head := d.Add(virtqtest.Desc{Addr: bufs, Len: 1})
	for range virtq.MaxSize {
		d.SetSlot(d.AvailIdx, head)
		d.AvailIdx++
	}
	d.SetAvailIdx(d.AvailIdx)
	var c virtq.Chain
	for i := range virtq.MaxSize {
		if ok, err := q.Pop(&c); !ok || err != nil {
			t.Fatalf("chain %d: %v, %v", i, ok, err)
		}
		if err := q.Push(c.Head, 0); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := q.Pop(&c); ok || err != nil {
		t.Errorf("Pop of the drained queue = %v, %v", ok, err)
	}
	if _, idx := d.UsedHead(); idx != d.AvailIdx {
		t.Errorf("used index %d; want %d", idx, d.AvailIdx)
	}
	d.SetAvailIdx(d.AvailIdx + virtq.MaxSize + 1)
	if ok, err := q.Pop(&c); ok || err == nil {
		t.Errorf("Pop with the index too far ahead = %v, %v", ok, err)
	}
}
