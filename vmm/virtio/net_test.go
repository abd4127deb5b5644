package virtio_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq"
	"sekimori/vmm/virtq/virtqtest"
)

const (
	rx = 0
	tx = 1

	ram   = 1 << 20
	txBuf = 0x20000
	rxBuf = 0x40000

	mtu   = 1500
	limit = mtu + 14 + 8 // with two VLAN tags
)

// A rig is a card, the driver's side of its queues, and what came of it.
type rig struct {
	t       testing.TB
	net     *virtio.Net
	mem     *guestmem.Memory
	drivers [2]*virtqtest.Driver

	mu         sync.Mutex
	frames     [][]byte
	heads      []uint16
	refused    []virtio.NetFault
	interrupts [2]int
	broken     [2]error

	onFrame func(frame []byte)
}

func (r *rig) Transmit(frame []byte, head uint16) {
	if r.onFrame != nil {
		r.onFrame(frame)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = append(r.frames, slices.Clone(frame))
	r.heads = append(r.heads, head)
}

func (r *rig) Refuse(frame []byte, head uint16, why virtio.NetFault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(frame) > limit+1 {
		r.t.Errorf("a refused frame of %d bytes was not cut", len(frame))
	}
	r.refused = append(r.refused, why)
}

func (r *rig) Interrupt(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.interrupts[i]++
}

func (r *rig) Broken(i int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken[i] != nil {
		r.t.Errorf("queue %d broke twice: %v, %v", i, r.broken[i], err)
	}
	r.broken[i] = err
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t}
	var err error
	if r.mem, err = guestmem.New(ram); err != nil {
		t.Fatal(err)
	}
	if r.net, err = virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2, 0, 0, 0, 0, 7}, MTU: mtu, Backend: r}); err != nil {
		t.Fatal(err)
	}
	for i := range r.drivers {
		r.drivers[i] = virtqtest.New(r.mem, guestmem.GPA(i*0x8000), 256)
		r.start(i)
	}
	return r
}

func (r *rig) start(i int) {
	r.t.Helper()
	q, err := virtq.New(r.mem, r.drivers[i].Config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.net.Start(i, q, r)
}

// fill puts bytes where the transmit buffers are.
func (r *rig) fill(b []byte) {
	r.t.Helper()
	if err := r.mem.Write(txBuf, b); err != nil {
		r.t.Fatal(err)
	}
}

func out(addr guestmem.GPA, n int) virtqtest.Desc {
	return virtqtest.Desc{Addr: addr, Len: uint32(n)}
}

func in(addr guestmem.GPA, n int) virtqtest.Desc {
	return virtqtest.Desc{Addr: addr, Len: uint32(n), Flags: virtqtest.Write}
}

// frame returns a frame of n bytes that are all different from their
// neighbours.
func frame(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func TestTransmit(t *testing.T) {
	for _, n := range []int{14, 15, 60, 1514, limit} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := newRig(t)
			want := frame(n)
			r.fill(slices.Concat(make([]byte, 12), want))
			d := r.drivers[tx]
			d.Publish(d.Add(out(txBuf, 12), out(txBuf+12, n)), d.Add(out(txBuf, 12+n)))
			r.net.Kick(tx)
			if len(r.frames) != 2 || !bytes.Equal(r.frames[0], want) || !bytes.Equal(r.frames[1], want) {
				t.Fatalf("frames = %x, refused %v; want twice %x", r.frames, r.refused, want)
			}
			if !slices.Equal(r.heads, []uint16{0, 2}) {
				t.Errorf("heads = %v; want 0 and 2", r.heads)
			}
			if used := d.TakeUsed(); !slices.Equal(used, []virtqtest.Used{{Head: 0}, {Head: 2}}) {
				t.Errorf("used = %v; want both chains, nothing written", used)
			}
			if r.interrupts[tx] != 1 {
				t.Errorf("%d interrupts; want one for both", r.interrupts[tx])
			}
		})
	}
}

// "The device MUST NOT make assumptions about the particular arrangement of
// descriptors" (virtio 1.2, 2.7.4.1). A header over several descriptors had
// vhost write behind its buffers (CVE-2019-14835).
func TestTransmitSplit(t *testing.T) {
	want := frame(60)
	for cut := range 72 {
		for second := cut; second <= 72; second += 5 {
			r := newRig(t)
			r.fill(slices.Concat(make([]byte, 12), want))
			d := r.drivers[tx]
			d.Publish(d.Add(out(txBuf, cut), out(txBuf+guestmem.GPA(cut), second-cut), out(txBuf+guestmem.GPA(second), 72-second)))
			r.net.Kick(tx)
			if len(r.frames) != 1 || !bytes.Equal(r.frames[0], want) {
				t.Fatalf("cut at %d and %d: frames = %x, refused %v", cut, second, r.frames, r.refused)
			}
		}
	}
	// Each byte of the header a descriptor of its own, as far as that goes.
	r := newRig(t)
	r.fill(slices.Concat(make([]byte, 12), want))
	var ones []virtqtest.Desc
	for i := range 72 {
		ones = append(ones, out(txBuf+guestmem.GPA(i), 1))
	}
	d := r.drivers[tx]
	d.Publish(d.Add(ones...))
	r.net.Kick(tx)
	if len(r.frames) != 1 || !bytes.Equal(r.frames[0], want) {
		t.Fatalf("72 descriptors of a byte: frames = %x, refused %v", r.frames, r.refused)
	}
}

// What is wrong with one frame costs that frame: its chain comes back and the
// next one is sent.
func TestTransmitRefused(t *testing.T) {
	d := func(n int) []virtqtest.Desc { return []virtqtest.Desc{out(txBuf, n)} }
	header := func(at int, v byte) []byte { b := make([]byte, 12); b[at] = v; return b }
	tests := []struct {
		name   string
		header []byte
		chain  []virtqtest.Desc
		want   virtio.NetFault
	}{
		{"nothing", nil, d(0), virtio.ShortHeader},
		{"a byte", nil, d(1), virtio.ShortHeader},
		{"9 bytes", nil, d(9), virtio.ShortHeader},
		{"11 bytes", nil, d(11), virtio.ShortHeader},
		{"only a header", nil, d(12), virtio.ShortFrame},
		{"13 bytes of frame", nil, d(25), virtio.ShortFrame},
		{"a byte too long", nil, d(12 + limit + 1), virtio.LongFrame},
		{"64 KiB", nil, d(12 + 65536), virtio.LongFrame},
		{"16 MiB of the same RAM", nil, slices.Repeat([]virtqtest.Desc{out(txBuf, 1<<19)}, 32), virtio.LongFrame},
		{"behind RAM", nil, []virtqtest.Desc{out(ram-20, 100)}, virtio.BadBuffer},
		{"behind RAM after a good part", nil, []virtqtest.Desc{out(txBuf, 40), out(1<<40, 100)}, virtio.BadBuffer},
		{"4 GiB", nil, []virtqtest.Desc{out(ram-20, math.MaxUint32)}, virtio.BadBuffer},
		{"writable", nil, []virtqtest.Desc{in(txBuf, 100)}, virtio.WritableBuffer},
		{"a writable one at its end", nil, []virtqtest.Desc{out(txBuf, 100), in(txBuf, 1)}, virtio.WritableBuffer},
		{"flags: NEEDS_CSUM", header(0, 1), d(100), virtio.BadOffloadHeader},
		{"flags: DATA_VALID", header(0, 2), d(100), virtio.BadOffloadHeader},
		{"flags: what is none", header(0, 0x80), d(100), virtio.BadOffloadHeader},
		{"gso_type: TCPV4", header(1, 1), d(100), virtio.BadOffloadHeader},
		{"gso_type: ECN", header(1, 0x80), d(100), virtio.BadOffloadHeader},
		{"hdr_len", header(2, 54), d(100), virtio.BadOffloadHeader},
		{"hdr_len, high byte", header(3, 1), d(100), virtio.BadOffloadHeader},
		{"gso_size", header(4, 1), d(100), virtio.BadOffloadHeader},
		{"gso_size, high byte", header(5, 5), d(100), virtio.BadOffloadHeader},
		{"csum_start", header(6, 34), d(100), virtio.BadOffloadHeader},
		{"csum_start, high byte", header(7, 1), d(100), virtio.BadOffloadHeader},
		{"csum_offset", header(8, 16), d(100), virtio.BadOffloadHeader},
		{"csum_offset, high byte", header(9, 1), d(100), virtio.BadOffloadHeader},
		{"num_buffers, which Linux leaves as it was", header(10, 0xff), d(100), 0},
		{"num_buffers, high byte", header(11, 0xff), d(100), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			if tt.header != nil {
				r.fill(tt.header)
			}
			q := r.drivers[tx]
			good := q.Add(out(txBuf+0x10000, 100))
			head := q.Add(tt.chain...)
			q.Publish(head, good)
			r.net.Kick(tx)
			want, frames := []virtio.NetFault{tt.want}, 1
			if tt.want == 0 {
				want, frames = nil, 2
			}
			if !slices.Equal(r.refused, want) || len(r.frames) != frames {
				t.Errorf("refused %v, %d frames; want %v and %d", r.refused, len(r.frames), want, frames)
			}
			if used := q.TakeUsed(); !slices.Equal(used, []virtqtest.Used{{Head: uint32(head)}, {Head: uint32(good)}}) {
				t.Errorf("used = %v; want both chains back", used)
			}
			if r.broken != [2]error{} {
				t.Errorf("broken: %v", r.broken)
			}
		})
	}
}

// A ring that is broken is told of once and left alone; a reset mends it.
func TestTransmitBroken(t *testing.T) {
	tests := map[string]func(d *virtqtest.Driver){
		"head out of range":  func(d *virtqtest.Driver) { d.Publish(256) },
		"next out of range":  func(d *virtqtest.Driver) { d.Set(0, virtqtest.Desc{Flags: virtqtest.Next, Next: 999}); d.Publish(0) },
		"loop":               func(d *virtqtest.Driver) { d.Set(0, virtqtest.Desc{Flags: virtqtest.Next, Next: 0}); d.Publish(0) },
		"index far ahead":    func(d *virtqtest.Driver) { d.SetAvailIdx(65535) },
		"indirect":           func(d *virtqtest.Driver) { d.Publish(d.Add(virtqtest.Desc{Flags: virtqtest.Indirect})) },
		"address wraps":      func(d *virtqtest.Driver) { d.Publish(d.Add(out(math.MaxUint64-7, 64))) },
		"after a good frame": func(d *virtqtest.Driver) { d.Publish(d.Add(out(txBuf, 100)), 256) },
	}
	for name, breakIt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			d := r.drivers[tx]
			breakIt(d)
			start := time.Now()
			r.net.Kick(tx)
			if took := time.Since(start); took > time.Second {
				t.Errorf("it took %v", took)
			}
			if r.broken[tx] == nil || r.broken[rx] != nil {
				t.Fatalf("broken = %v; want the transmit queue", r.broken)
			}
			before := len(r.frames)
			d.Reset()
			d.Publish(d.Add(out(txBuf, 100)))
			r.net.Kick(tx)
			if len(r.frames) != before || len(d.TakeUsed()) != 0 {
				t.Error("a broken queue goes on")
			}
			// The other queue is none of its business.
			r.drivers[rx].Publish(r.drivers[rx].Add(in(rxBuf, 1530)))
			if err := r.net.Deliver(frame(60)); err != nil {
				t.Errorf("Deliver: %v", err)
			}
			r.net.Stop(tx)
			r.start(tx)
			r.net.Kick(tx)
			if len(r.frames) != before+1 {
				t.Errorf("%d frames after a reset; want %d", len(r.frames), before+1)
			}
		})
	}
}

// A guest that refills the ring as fast as it is drained does not hold the
// thread for ever.
func TestKickIsBounded(t *testing.T) {
	r := newRig(t)
	d := r.drivers[tx]
	head := d.Add(out(txBuf, 100))
	r.onFrame = func([]byte) { d.Publish(head) }
	d.Publish(head)
	r.net.Kick(tx)
	if len(r.frames) != 256 {
		t.Errorf("%d frames in one kick; want the queue's size, 256", len(r.frames))
	}
}

// Kicks of what is not there, or not started, do nothing: "The device MUST
// handle spurious notifications from the driver" (virtio 1.2, 2.7.10.2).
func TestSpuriousKicks(t *testing.T) {
	r := newRig(t)
	for _, i := range []int{rx, tx, 2, 99, 0xffff, -1} {
		r.net.Kick(i)
	}
	r.net.Stop(tx)
	r.net.Stop(tx)
	r.net.Stop(7)
	r.drivers[tx].Publish(r.drivers[tx].Add(out(txBuf, 100)))
	r.net.Kick(tx)
	if len(r.frames)+len(r.refused) != 0 || r.broken != [2]error{} {
		t.Errorf("frames %d, refused %v, broken %v; want nothing", len(r.frames), r.refused, r.broken)
	}
}

func TestDeliver(t *testing.T) {
	for _, n := range []int{14, 60, 1514, limit} {
		for _, split := range []int{0, 1, 5, 11, 12, 13, 20} {
			r := newRig(t)
			d := r.drivers[rx]
			if split == 0 {
				d.Publish(d.Add(in(rxBuf, 12+n)))
			} else {
				d.Publish(d.Add(in(rxBuf, split), in(rxBuf+guestmem.GPA(split), 0), in(rxBuf+guestmem.GPA(split), 2000)))
			}
			if err := r.net.Deliver(frame(n)); err != nil {
				t.Fatalf("Deliver(%d bytes) split at %d = %v", n, split, err)
			}
			if used := d.TakeUsed(); !slices.Equal(used, []virtqtest.Used{{Head: 0, Len: uint32(12 + n)}}) {
				t.Errorf("used = %v; want one of %d bytes", used, 12+n)
			}
			got := make([]byte, 12+n)
			if err := r.mem.Read(rxBuf, got); err != nil {
				t.Fatal(err)
			}
			// "the device MUST set num_buffers to 1", "MUST set flags to zero"
			// (virtio 1.2, 5.1.6.4.1).
			if want := slices.Concat([]byte{10: 1, 11: 0}, frame(n)); !bytes.Equal(got, want) {
				t.Errorf("the guest got %x; want %x", got, want)
			}
			if r.interrupts[rx] != 1 {
				t.Errorf("%d interrupts; want 1", r.interrupts[rx])
			}
		}
	}
}

// Nothing is written but into buffers that were posted as writable, and what is
// refused comes back empty.
func TestDeliverRefused(t *testing.T) {
	tests := []struct {
		name  string
		chain []virtqtest.Desc
	}{
		{"length 0", []virtqtest.Desc{in(rxBuf, 0)}},
		{"16 bytes", []virtqtest.Desc{in(rxBuf, 16)}},
		{"a byte too short", []virtqtest.Desc{in(rxBuf, 12+59)}},
		{"read-only", []virtqtest.Desc{out(rxBuf, 2000)}},
		{"read-only, then writable", []virtqtest.Desc{out(rxBuf, 12), in(rxBuf+0x1000, 2000)}},
		{"behind RAM", []virtqtest.Desc{in(ram-20, 2000)}},
		{"behind RAM, after the header", []virtqtest.Desc{in(rxBuf, 12), in(1<<40, 2000)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			canary := bytes.Repeat([]byte{0xa5}, 0x4000)
			if err := r.mem.Write(rxBuf, canary); err != nil {
				t.Fatal(err)
			}
			d := r.drivers[rx]
			head := d.Add(tt.chain...)
			good := d.Add(in(rxBuf+0x8000, 2000))
			d.Publish(head, good)
			if err := r.net.Deliver(frame(60)); !errors.Is(err, virtio.ErrBadBuffer) {
				t.Errorf("Deliver = %v; want ErrBadBuffer", err)
			}
			// One chain a frame: the one behind is not looked at for this frame.
			if used := d.TakeUsed(); !slices.Equal(used, []virtqtest.Used{{Head: uint32(head), Len: 0}}) {
				t.Errorf("used = %v; want the chain back, empty", used)
			}
			got := make([]byte, len(canary))
			if err := r.mem.Read(rxBuf, got); err != nil {
				t.Fatal(err)
			}
			if n := int(tt.chain[0].Len); tt.name == "behind RAM, after the header" {
				copy(got[:n], canary) // that buffer was posted
			}
			if !bytes.Equal(got, canary) {
				t.Error("it wrote to a buffer that it had to leave alone")
			}
			if err := r.net.Deliver(frame(60)); err != nil {
				t.Errorf("the next Deliver = %v; want it to work", err)
			}
		})
	}
}

// Of one posted buffer one is used, however many the ring once held.
func TestDeliverNeverAhead(t *testing.T) {
	r := newRig(t)
	d := r.drivers[rx]
	for i := range uint16(256) {
		d.Set(i, in(rxBuf, 2000))
		d.SetSlot(i, i)
	}
	d.SetAvailIdx(1)
	if err := r.net.Deliver(frame(60)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := r.net.Deliver(frame(60)); !errors.Is(err, virtio.ErrNoBuffers) || !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("Deliver = %v; want ErrNoBuffers", err)
		}
	}
	if used := d.TakeUsed(); len(used) != 1 {
		t.Errorf("used = %v; want one", used)
	}
}

func TestDeliverDown(t *testing.T) {
	r := newRig(t)
	d := r.drivers[rx]
	if err := r.net.Deliver(frame(limit + 1)); !errors.Is(err, virtio.ErrFrameLength) {
		t.Errorf("Deliver of a long frame = %v; want ErrFrameLength", err)
	}
	d.Publish(65535)
	if err := r.net.Deliver(frame(60)); !errors.Is(err, virtio.ErrDown) || r.broken[rx] == nil {
		t.Errorf("Deliver to a broken ring = %v, broken %v; want ErrDown", err, r.broken[rx])
	}
	if err := r.net.Deliver(frame(60)); !errors.Is(err, virtio.ErrDown) {
		t.Errorf("Deliver again = %v; want ErrDown", err)
	}
	r.net.Stop(rx)
	if err := r.net.Deliver(frame(60)); !errors.Is(err, virtio.ErrDown) || errors.Is(err, syscall.EAGAIN) {
		t.Errorf("Deliver to a stopped device = %v; want ErrDown", err)
	}
	// A queue that cannot even be started is broken from the start.
	d.Reset()
	q, err := virtq.New(r.mem, d.Config)
	if err != nil {
		t.Fatal(err)
	}
	r.broken[rx] = nil
	r.mem.Close()
	r.net.Start(rx, q, r)
	if err := r.net.Deliver(frame(60)); !errors.Is(err, virtio.ErrDown) || r.broken[rx] == nil {
		t.Errorf("Deliver without memory = %v, broken %v; want ErrDown", err, r.broken[rx])
	}
}

// The device asks for no kicks of receive buffers, and for every one of frames.
func TestNotifications(t *testing.T) {
	r := newRig(t)
	if flags, _ := r.drivers[rx].UsedHead(); flags != 1 {
		t.Errorf("receive queue: flags %d; want 1, no notifications", flags)
	}
	if flags, _ := r.drivers[tx].UsedHead(); flags != 0 {
		t.Errorf("transmit queue: flags %d; want 0: each frame is judged at its own kick", flags)
	}
}

func TestConfigSpace(t *testing.T) {
	n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2, 1, 2, 3, 4, 5}, MTU: 9000, Backend: &rig{}})
	if err != nil {
		t.Fatal(err)
	}
	all := []byte{2, 1, 2, 3, 4, 5, 1, 0, 1, 0, 0x28, 0x23}
	for _, tt := range []struct {
		off  uint32
		n    int
		want []byte
	}{
		{0, 12, all},
		{0, 6, all[:6]},
		{6, 2, []byte{1, 0}},
		{10, 4, []byte{0x28, 0x23, 0, 0}}, // behind the end it is zero
		{12, 4, make([]byte, 4)},
		{math.MaxUint32, 8, make([]byte, 8)},
	} {
		b := bytes.Repeat([]byte{0xff}, tt.n)
		n.WriteConfig(tt.off, b) // "The driver MUST NOT write to any of the device configuration fields"
		n.ReadConfig(tt.off, b)
		if !bytes.Equal(b, tt.want) {
			t.Errorf("ReadConfig(%d, %d bytes) = %x; want %x", tt.off, tt.n, b, tt.want)
		}
	}
	if f := n.Features(); f != 1<<32|1<<16|1<<5|1<<3 {
		t.Errorf("Features = %#x; want VERSION_1, STATUS, MAC and MTU, and no offload", f)
	}
	if n.Type() != 1 || !slices.Equal(n.Queues(), []uint16{256, 256}) {
		t.Errorf("Type, Queues = %d, %v", n.Type(), n.Queues())
	}
}

func TestNewNetRefused(t *testing.T) {
	good := virtio.NetConfig{MAC: [6]byte{2, 0, 0, 0, 0, 7}, Backend: &rig{}}
	tests := []struct {
		name   string
		change func(c *virtio.NetConfig)
		want   string
	}{
		{"no backend", func(c *virtio.NetConfig) { c.Backend = nil }, "no backend"},
		{"no mac", func(c *virtio.NetConfig) { c.MAC = [6]byte{} }, "mac 000000000000 is not an address of one card"},
		{"group mac", func(c *virtio.NetConfig) { c.MAC[0] = 3 }, "is not an address of one card"},
		{"mtu 67", func(c *virtio.NetConfig) { c.MTU = 67 }, "mtu 67 is out of range"},
		{"mtu 65536", func(c *virtio.NetConfig) { c.MTU = 65536 }, "mtu 65536 is out of range"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			if n, err := virtio.NewNet(cfg); n != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewNet = %v, %v; want %q", n, err, tt.want)
			}
		})
	}
}

// What is judged is what is sent: another thread of the guest flips the frame,
// the descriptors and the ring while the device works. The backend sees bytes
// that stay as they are, whatever they were.
func TestRacingWriter(t *testing.T) {
	r := newRig(t)
	good, evil := frame(200), bytes.Repeat([]byte{0xee}, 200)
	d := r.drivers[tx]
	head := d.Add(out(txBuf, 212))

	seen := map[bool]int{}
	r.onFrame = func(f []byte) {
		before := slices.Clone(f)
		for range 50 { // as long as a verdict takes
			if !bytes.Equal(f, before) {
				t.Error("a frame changed after it was copied")
				return
			}
		}
		seen[bytes.Equal(before, good)]++
	}
	stop := make(chan struct{})
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			b := good
			if i%2 == 1 {
				b = evil
			}
			_ = r.mem.Write(txBuf+12, b)
			_ = r.mem.Write(txBuf, []byte{byte(i % 3), byte(i % 5)})
			d.Set(head, virtqtest.Desc{Addr: txBuf + guestmem.GPA(i%2), Len: uint32(212 - i%2)})
		}
	})
	deadline := time.Now().Add(500 * time.Millisecond)
	for kicks := 0; kicks < 20000 && time.Now().Before(deadline); kicks++ {
		d.Publish(head)
		r.net.Kick(tx)
		if r.broken[tx] != nil {
			t.Fatalf("kick %d broke the queue: %v", kicks, r.broken[tx])
		}
	}
	close(stop)
	attacker.Wait()
	if len(r.frames) == 0 {
		t.Error("no frame was sent at all")
	}
}

// Both directions, several senders, and a transport that stops and starts at
// any time.
func TestConcurrent(t *testing.T) {
	r := newRig(t)
	stop := make(chan struct{})
	var users sync.WaitGroup
	loop := func(f func()) {
		users.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f()
				}
			}
		})
	}
	for range 2 {
		loop(func() { _ = r.net.Deliver(frame(60)) })
	}
	loop(func() { r.net.Kick(tx) })
	head := r.drivers[tx].Add(out(txBuf, 100))
	for range 100 {
		for i, d := range r.drivers {
			r.net.Stop(i)
			d.Reset()
			if i == tx {
				d.Set(head, out(txBuf, 100))
				d.Publish(head, head)
			} else {
				d.Publish(d.Add(in(rxBuf, 2000)), d.Add(in(rxBuf, 2000)))
			}
			r.start(i)
		}
	}
	close(stop)
	users.Wait()
	if r.broken != [2]error{} {
		t.Errorf("broken: %v", r.broken)
	}
}

func TestNoAllocs(t *testing.T) {
	r := newRig(t)
	n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	r.net = n
	r.start(rx)
	r.start(tx)
	sent, posted := r.drivers[tx].Add(out(txBuf, 12+1514)), r.drivers[rx].Add(in(rxBuf, 1530))
	f := frame(1514)
	if allocs := testing.AllocsPerRun(1000, func() {
		r.drivers[tx].Publish(sent)
		n.Kick(tx)
		r.drivers[rx].Publish(posted)
		if err := n.Deliver(f); err != nil {
			t.Fatal(err)
		}
		if err := n.Deliver(f); err == nil {
			t.Fatal("Deliver without a buffer")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations a frame; want none", allocs)
	}
}

type quiet struct{}

func (quiet) Transmit([]byte, uint16)                {}
func (quiet) Refuse([]byte, uint16, virtio.NetFault) {}

func BenchmarkTransmit(b *testing.B) {
	benchmark(b, func(n *virtio.Net, _ []byte) { n.Kick(tx) }, tx, 60, 1514)
}

func BenchmarkDeliver(b *testing.B) {
	benchmark(b, func(n *virtio.Net, f []byte) { _ = n.Deliver(f) }, rx, 60, 1514)
}

func benchmark(b *testing.B, do func(*virtio.Net, []byte), queue int, sizes ...int) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := newRig(b)
			n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: quiet{}})
			if err != nil {
				b.Fatal(err)
			}
			r.net = n
			r.start(queue)
			d := r.drivers[queue]
			d.SetAvailFlags(virtqtest.NoInterrupt)
			head := d.Add(out(txBuf, 12+size))
			if queue == rx {
				head = d.Add(in(rxBuf, 1530))
			}
			f := frame(size)
			for b.Loop() {
				d.Publish(head)
				do(n, f)
			}
		})
	}
}

// Frames that go wrong, without end, leave nothing behind.
func TestFaultsKeepNothing(t *testing.T) {
	n := 200000
	if testing.Short() {
		n = 20000
	}
	r := newRig(t)
	card, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	r.net = card
	r.start(rx)
	r.start(tx)
	bad, short := r.drivers[tx].Add(out(ram-4, 100)), r.drivers[rx].Add(in(ram-4, 2000))
	f := frame(60)
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	for range n {
		r.drivers[tx].Publish(bad)
		card.Kick(tx)
		r.drivers[rx].Publish(short)
		if err := card.Deliver(f); !errors.Is(err, virtio.ErrBadBuffer) {
			t.Fatal(err)
		}
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}
