package mmio_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"sekimori/vmm/mmio"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq"
	"sekimori/vmm/virtq/virtqtest"
)

// TestIdentity: what a driver reads first, and that nothing else is there.
func TestIdentity(t *testing.T) {
	r := newRig(t)
	for off, want := range map[uint64]uint32{
		0x00: 0x74726976, 0x04: 2, 0x08: virtio.TypeNet, 0x0c: 0x696b6573, deviceStatus: 0, interruptStatus: 0,
		queueMax: 256, queueReady: 0, 0xb0: ^uint32(0), 0xb4: ^uint32(0), 0xfc: 0, 0x74: 0, 0xc0: 0,
	} {
		if got := r.read(off); got != want {
			t.Errorf("register %#x = %#x; want %#x", off, got, want)
		}
	}
	r.write(deviceSel, 1)
	if got := r.read(deviceFeatures); got != 1 {
		t.Errorf("features, high = %#x; want VERSION_1", got)
	}
	r.write(deviceSel, 2)
	if got := r.read(deviceFeatures); got != 0 {
		t.Errorf("features, beyond = %#x", got)
	}
	r.write(queueSel, 2)
	if got := r.read(queueMax); got != 0 {
		t.Errorf("size of a queue that is not there = %d", got)
	}
	var mac [6]byte
	r.regs.Read(config, mac[:])
	if mac != [6]byte{2, 0, 0, 0, 0, 7} {
		t.Errorf("configuration = % x", mac)
	}
}

// TestWidth: "the driver MUST use only 32 bit wide and aligned reads and
// writes" (virtio 1.2, 4.2.2.2); any other does nothing.
func TestWidth(t *testing.T) {
	r := newRig(t).up()
	for _, n := range []int{1, 2, 3, 8} {
		b := bytes.Repeat([]byte{0xff}, n)
		for off := uint64(0); off < config; off++ {
			if r.regs.Read(off, b); !bytes.Equal(b, make([]byte, n)) {
				t.Fatalf("read of %d at %#x = % x", n, off, b)
			}
			r.regs.Write(off, b)
		}
	}
	for _, off := range []uint64{deviceStatus + 1, deviceStatus + 2, 0x1001, ^uint64(0)} {
		b := []byte{0xff, 0xff, 0xff, 0xff}
		r.regs.Write(off, b)
		if r.regs.Read(off, b); !bytes.Equal(b, make([]byte, 4)) {
			t.Errorf("read at %#x = % x", off, b)
		}
	}
	if got := r.read(deviceStatus); got != acknowledge|driver|featuresOK|driverOK {
		t.Errorf("status = %#x after writes beside it", got)
	}
}

// TestFeatures: "The driver MUST NOT accept a feature which the device did not
// offer" (virtio 1.2, 2.2.1), and has to accept VERSION_1.
func TestFeatures(t *testing.T) {
	const mac = 1 << 5
	for _, tt := range []struct {
		name     string
		features uint64
		want     bool
	}{
		{"what is needed", virtio.FeatureVersion1, true},
		{"one more", virtio.FeatureVersion1 | mac, true},
		{"legacy", mac, false},
		{"none", 0, false},
		{"indirect descriptors", virtio.FeatureVersion1 | 1<<28, false},
		{"event index", virtio.FeatureVersion1 | 1<<29, false},
		{"packed ring", virtio.FeatureVersion1 | 1<<34, false},
		{"checksum offload", virtio.FeatureVersion1 | 1, false},
		{"everything", ^uint64(0), false},
	} {
		r := newRig(t)
		if got := r.negotiate(tt.features); got != tt.want {
			t.Errorf("%s: agreed = %v", tt.name, got)
		}
		r.write(driverSel, 0)
		r.write(driverFeatures, 1) // too late, or another try that is as bad
		r.write(deviceStatus, acknowledge|driver|featuresOK|driverOK)
		if ok := r.read(deviceStatus)&driverOK != 0; ok != tt.want {
			t.Errorf("%s: DRIVER_OK = %v", tt.name, ok)
		}
	}
}

// TestTransmit: a kick is done with when it returns, and the driver is
// interrupted.
func TestTransmit(t *testing.T) {
	r := newRig(t).up()
	r.send(60)
	if len(r.frames) != 1 || len(r.frames[0]) != 60 {
		t.Fatalf("%d frames", len(r.frames))
	}
	if r.read(interruptStatus) != 1 || r.interrupts.Load() != 1 {
		t.Errorf("interrupt status %d, %d interrupts", r.read(interruptStatus), r.interrupts.Load())
	}
	r.write(interruptACK, 1)
	if got := r.read(interruptStatus); got != 0 {
		t.Errorf("interrupt status %d after the acknowledgement", got)
	}
	if used := r.drivers[tx].TakeUsed(); len(used) != 1 {
		t.Errorf("%d chains given back", len(used))
	}
}

// TestBeforeDriverOK: "The device MUST NOT consume buffers … before DRIVER_OK"
// (virtio 1.2, 3.1.2).
func TestBeforeDriverOK(t *testing.T) {
	r := newRig(t)
	r.write(queueNotify, tx) // before anything
	r.negotiate(virtio.FeatureVersion1)
	for i, d := range r.drivers {
		r.describe(i, d.Config, uint32(d.Size))
	}
	r.send(60)
	if err := r.net.Deliver(make([]byte, 60)); !errors.Is(err, virtio.ErrDown) {
		t.Errorf("Deliver = %v; want ErrDown", err)
	}
	if len(r.frames) != 0 {
		t.Fatalf("%d frames before DRIVER_OK", len(r.frames))
	}
	r.write(deviceStatus, acknowledge|driver|featuresOK|driverOK)
	r.write(queueNotify, tx)
	if len(r.frames) != 1 {
		t.Errorf("%d frames after it", len(r.frames))
	}
}

// TestFixedOnceItRuns: a guest that changed a queue's size after activation had
// Firecracker write out of bounds (CVE-2026-5747).
func TestFixedOnceItRuns(t *testing.T) {
	r := newRig(t).up()
	for _, size := range []uint32{0, 1, 3, 65535, 1 << 31} {
		r.write(queueSel, tx)
		r.write(queueNum, size)
		for _, reg := range []uint64{queueDesc, queueDriver, queueDevice} {
			r.write(reg, ram-8)
			r.write(reg+4, ^uint32(0))
		}
		r.write(queueReady, 0)
		r.write(queueReady, 1)
		r.send(60)
	}
	if len(r.frames) != 5 || r.read(queueReady) != 1 {
		t.Errorf("%d frames, ready %d; want 5, 1", len(r.frames), r.read(queueReady))
	}
	if got := r.read(deviceStatus); got&needsReset != 0 {
		t.Errorf("status %#x", got)
	}
	r.intact()
}

// TestStatusOnlyGrows: "The driver MUST NOT clear a device status bit" but all
// of them (virtio 1.2, 2.1.1).
func TestStatusOnlyGrows(t *testing.T) {
	r := newRig(t).up()
	r.write(deviceStatus, acknowledge)
	r.send(60)
	if got := r.read(deviceStatus); got != acknowledge|driver|featuresOK|driverOK || len(r.frames) != 1 {
		t.Errorf("status %#x, %d frames", got, len(r.frames))
	}
	r.write(deviceStatus, 0)
	r.send(60)
	if got := r.read(deviceStatus); got != 0 || len(r.frames) != 1 {
		t.Errorf("after a reset: status %#x, %d frames", got, len(r.frames))
	}
	for range 3 {
		r.up().send(60) // and all over again
	}
	if len(r.frames) != 4 {
		t.Errorf("%d frames after three more drivers", len(r.frames))
	}
}

// TestNeedsReset: a queue that is none, and a ring that breaks, ask for a reset
// by status and interrupt, and the reset mends it.
func TestNeedsReset(t *testing.T) {
	good := func(r *rig) virtq.Config { return r.drivers[tx].Config }
	for _, tt := range []struct {
		name string
		size uint32
		at   func(r *rig) virtq.Config
	}{
		{"size 0", 0, good},
		{"size 3", 3, good},
		{"size 512", 512, good},
		{"size that truncates to 256", 1<<16 | 256, good},
		{"used ring in the last page", 256, func(r *rig) virtq.Config {
			c := good(r)
			c.Used = ram - 2048 // it is 2,054 bytes long
			return c
		}},
		{"used ring behind RAM", 256, func(r *rig) virtq.Config { c := good(r); c.Used = ram; return c }},
		{"address that truncates to RAM", 256, func(r *rig) virtq.Config { c := good(r); c.Desc |= 1 << 32; return c }},
		{"address that wraps", 256, func(r *rig) virtq.Config { c := good(r); c.Avail = ^c.Avail &^ 3; return c }},
		{"misaligned", 256, func(r *rig) virtq.Config { c := good(r); c.Desc += 8; return c }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.negotiate(virtio.FeatureVersion1)
			r.describe(tx, tt.at(r), tt.size)
			if got := r.read(deviceStatus); got&needsReset == 0 || r.read(queueReady) != 0 {
				t.Errorf("status %#x, ready %d", got, r.read(queueReady))
			}
			r.write(deviceStatus, acknowledge|driver|featuresOK|driverOK)
			r.send(60)
			if len(r.frames) != 0 {
				t.Errorf("%d frames of a queue that is none", len(r.frames))
			}
			r.up().send(60)
			if len(r.frames) != 1 {
				t.Errorf("%d frames after the reset", len(r.frames))
			}
			r.intact()
		})
	}
}

// TestHostileRings are the cases that made gokvm's device panic, hang or write
// the host's memory, each through these registers. The machine goes on: the device
// can be reset, and works.
func TestHostileRings(t *testing.T) {
	type desc = virtqtest.Desc
	const w, next, indirect = virtqtest.Write, virtqtest.Next, virtqtest.Indirect
	one := func(queue int, d desc) func(*rig) {
		return func(r *rig) {
			r.drivers[queue].Set(0, d)
			r.drivers[queue].Publish(0)
		}
	}
	for _, tt := range []struct {
		name   string
		broken bool // the ring, not just the chain
		do     func(r *rig)
	}{
		{"tx head out of range", true, func(r *rig) { r.drivers[tx].Publish(256) }},
		{"tx next out of range", true, one(tx, desc{Addr: txBuf, Len: 72, Flags: next, Next: 999})},
		{"tx chain loops to itself", true, one(tx, desc{Addr: txBuf, Len: 72, Flags: next})},
		{"tx chain loops of two", true, func(r *rig) {
			r.drivers[tx].Set(0, desc{Flags: next, Next: 1})
			r.drivers[tx].Set(1, desc{Flags: next, Next: 0})
			r.drivers[tx].Publish(0)
		}},
		{"tx buffer behind RAM", false, one(tx, desc{Addr: ram - 10, Len: 72})},
		{"tx buffer wraps", true, one(tx, desc{Addr: ^desc{}.Addr - 10, Len: 72})},
		{"tx of 4 GiB", false, one(tx, desc{Addr: txBuf, Len: ^uint32(0)})},
		{"tx shorter than its header", false, one(tx, desc{Addr: txBuf, Len: 9})},
		{"tx jumbo", false, one(tx, desc{Addr: txBuf, Len: 128 << 10})},
		{"tx writable", false, one(tx, desc{Addr: txBuf, Len: 72, Flags: w})},
		{"tx indirect", true, one(tx, desc{Addr: txBuf, Len: 72, Flags: indirect})},
		{"tx index jumps", true, func(r *rig) { r.drivers[tx].SetAvailIdx(65535) }},
		{"rx head out of range", true, func(r *rig) { r.drivers[rx].Publish(65535) }},
		{"rx of length 0", false, one(rx, desc{Addr: rxBuf, Flags: w})},
		{"rx too short", false, one(rx, desc{Addr: rxBuf, Len: 16, Flags: w})},
		{"rx buffer behind RAM", false, one(rx, desc{Addr: ram - 10, Len: 2048, Flags: w})},
		{"rx read-only", false, one(rx, desc{Addr: rxBuf, Len: 2048})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).up()
			tt.do(r)
			for range 3 {
				r.write(queueNotify, rx)
				r.write(queueNotify, tx)
				r.write(queueNotify, 99)
				if err := r.net.Deliver(make([]byte, 60)); err == nil {
					t.Error("delivered into what is no buffer")
				}
			}
			if got := r.read(deviceStatus)&needsReset != 0; got != tt.broken {
				t.Errorf("needs reset = %v; want %v", got, tt.broken)
			}
			if len(r.frames) != 0 {
				t.Errorf("%d frames came of it", len(r.frames))
			}
			if tt.broken && r.read(interruptStatus)&2 == 0 {
				t.Error("the driver was not told")
			}
			r.intact()
			r.up().send(60)
			if len(r.frames) != 1 {
				t.Errorf("%d frames after a reset", len(r.frames))
			}
		})
	}
}

// TestResetWhileItWorks: processors of the guest reset the device, kick it and
// read it while frames come in; it ends, and works afterwards.
func TestResetWhileItWorks(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex // the driver's own: it brings the device up one at a time
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for range 300 {
				mu.Lock()
				r.up()
				mu.Unlock()
			}
		})
		all.Go(func() {
			for range 3000 {
				if queue, kick := r.regs.Write(queueNotify, []byte{tx, 0, 0, 0}); kick {
					r.regs.Kick(queue)
				}
				r.read(interruptStatus)
				r.read(deviceStatus)
			}
		})
	}
	all.Go(func() {
		for range 3000 {
			_ = r.net.Deliver(make([]byte, 60)) // there is no buffer; what counts is that it comes back
		}
	})
	all.Wait()
	r.up().send(60)
	if len(r.frames) != 1 {
		t.Errorf("%d frames", len(r.frames))
	}
}

// TestClose: afterwards the device has no queue.
func TestClose(t *testing.T) {
	r := newRig(t).up()
	r.regs.Close()
	r.send(60)
	if err := r.net.Deliver(make([]byte, 60)); !errors.Is(err, virtio.ErrDown) || len(r.frames) != 0 {
		t.Errorf("Deliver = %v, %d frames", err, len(r.frames))
	}
}

// FuzzRegisters lets a driver write what it likes to the registers, in any
// order and width, and to its rings meanwhile: no panic, nothing beside the RAM
// is written, and the device comes up afterwards for an honest driver.
func FuzzRegisters(f *testing.F) {
	f.Add([]byte{deviceStatus / 4, 1, deviceStatus / 4, 3, driverSel / 4, 1, driverFeatures / 4, 1, deviceStatus / 4, 11, queueNum / 4, 16, queueReady / 4, 1, deviceStatus / 4, 15, queueNotify / 4, 1})
	f.Add(bytes.Repeat([]byte{queueNotify / 4, 1, 0xff, 3, deviceStatus / 4, 0}, 40))
	f.Add([]byte{driverSel / 4, 1, driverFeatures / 4, 1, deviceStatus / 4, 11, queueSel / 4, 1, queueNum / 4, 16, queueDriver / 4, 0x40, queueDevice / 4, 0x80, queueReady / 4, 1, deviceStatus / 4, 15, 0xfe, 2, queueNotify / 4, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := newRig(t)
		for ; len(ops) >= 2; ops = ops[2:] {
			op, v := ops[0], ops[1]
			switch {
			case op >= 0xf8: // the driver's ring changes
				r.around[beside+int(op-0xf8)*0x41+int(v)] = v
			case op >= 0xf0: // an access of another width
				b := make([]byte, op&7+1)
				b[0] = v
				r.regs.Write(uint64(v)*4, b)
				r.regs.Read(uint64(v), b)
			case op >= 0xe0: // large values
				r.write(uint64(op&15)*4+queueDesc, uint32(v)<<24|0xfffff8)
			default:
				r.write(uint64(op)*4, uint32(v)*16&^0xf0|uint32(v))
				r.read(uint64(op) * 4)
			}
			_ = r.net.Deliver(make([]byte, 60))
		}
		r.intact()
		r.frames = nil
		r.up().send(60)
		if len(r.frames) != 1 {
			t.Fatalf("%d frames for an honest driver", len(r.frames))
		}
	})
}

// BenchmarkKick is a frame through the registers, without the exit.
func BenchmarkKick(b *testing.B) {
	r := newRig(b).up()
	r.regs = mmio.New(mmio.Config{Device: r.net, Memory: r.mem, Interrupt: func() {}})
	r.up()
	b.ReportAllocs()
	notify := []byte{tx, 0, 0, 0}
	head := r.drivers[tx].Add(virtqtest.Desc{Addr: txBuf, Len: 72})
	for b.Loop() {
		r.frames = r.frames[:0]
		r.drivers[tx].Publish(head)
		if queue, kick := r.regs.Write(queueNotify, notify); kick {
			r.regs.Kick(queue)
		}
	}
}
