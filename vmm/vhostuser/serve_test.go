package vhostuser_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/vhostuser"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq"
	"sekimori/vmm/virtq/virtqtest"
)

var aFrame = slices.Concat([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, bytes.Repeat([]byte("frame"), 20))

// One frame each way, message by message as Linux sends them.
func TestFrames(t *testing.T) {
	n, b, p := card(t)
	p.start()
	cfg := p.ask(getConfig, slices.Concat(u32s(0, 12, 0), make([]byte, 12)))
	if want := []byte{2, 0, 0, 0, 0, 2, 1, 0, 1, 0, 0xdc, 5}; !bytes.Equal(cfg[12:], want) {
		t.Errorf("configuration = %x; want %x", cfg[12:], want)
	}

	p.put(aFrame)
	p.must(vringKick, u32s(1, 0))
	if frames, faults := b.sent(); len(frames) != 1 || !bytes.Equal(frames[0], aFrame) || len(faults) != 0 {
		t.Fatalf("frames = %x, faults %v; want the frame", frames, faults)
	}
	if used := p.rings[1].TakeUsed(); len(used) != 1 || used[0].Len != 0 {
		t.Errorf("used = %v; want the chain back", used)
	}
	if i := p.interrupt(); i != 1 {
		t.Errorf("interrupt of queue %d; want 1", i)
	}

	if err := n.Deliver(aFrame); !errors.Is(err, virtio.ErrNoBuffers) {
		t.Errorf("Deliver without buffers = %v; want ErrNoBuffers", err)
	}
	p.post(2)
	if err := n.Deliver(aFrame); err != nil {
		t.Fatal(err)
	}
	if i := p.interrupt(); i != 0 {
		t.Errorf("interrupt of queue %d; want 0", i)
	}
	used := p.rings[0].TakeUsed()
	if len(used) != 1 || used[0].Len != uint32(12+len(aFrame)) {
		t.Fatalf("used = %v; want %d bytes", used, 12+len(aFrame))
	}
	got := make([]byte, used[0].Len)
	if err := p.mem.Read(rxBuf, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:12], []byte{10: 1, 11: 0}) || !bytes.Equal(got[12:], aFrame) {
		t.Errorf("the guest got %x; want a header and the frame", got)
	}
	p.quiet()

	unix.Close(p.sock)
	p.sock = -1
	if err := p.end(); err != nil {
		t.Errorf("Serve = %v; want nil after a hang-up", err)
	}
	if err := n.Deliver(aFrame); !errors.Is(err, virtio.ErrDown) {
		t.Errorf("Deliver to a device that is gone = %v; want ErrDown", err)
	}
}

// The verdict comes before the acknowledgement, and interrupts after it: while
// the device has a frame the guest has not been answered, nor disturbed.
func TestKickIsSynchronous(t *testing.T) {
	n, b, p := card(t)
	p.start()
	p.post(1)
	b.mu.Lock()
	b.during = func() {
		if nr, _, err := unix.Recvfrom(p.sock, make([]byte, 1), unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("answered (%d, %v) before the frame was judged", nr, err)
		}
		if err := n.Deliver(aFrame); err != nil { // as an answer to ARP would be
			t.Errorf("Deliver during a kick: %v", err)
		}
		p.quiet()
	}
	b.mu.Unlock()
	p.put(aFrame)
	p.must(vringKick, u32s(1, 0))
	if got := []uint32{p.interrupt(), p.interrupt()}; !slices.Equal(got, []uint32{0, 1}) {
		t.Errorf("interrupts of %v; want 0 and 1", got)
	}
	p.quiet()
}

// A driver may accept any part of what is offered: frames look the same then.
// QEMU's header was longer than its place when another bit was negotiated
// (CVE-2023-6693).
func TestFeatureSubsets(t *testing.T) {
	optional := []uint64{1 << 3, 1 << 5, 1 << 16}
	for subset := range 1 << len(optional) {
		f := uint64(1<<32 | 1<<30)
		for i, bit := range optional {
			if subset&(1<<i) != 0 {
				f |= bit
			}
		}
		n, b, p := card(t)
		p.negotiate()
		p.must(setFeatures, u64s(f))
		for i := range uint32(2) {
			p.describe(i)
			p.must(setVringEnable, u32s(i, 1))
		}
		p.put(aFrame)
		p.must(vringKick, u32s(1, 0))
		p.post(1)
		if err := n.Deliver(aFrame); err != nil {
			t.Errorf("features %#x: Deliver = %v", f, err)
		}
		if frames, faults := b.sent(); len(frames) != 1 || !bytes.Equal(frames[0], aFrame) || len(faults) != 0 {
			t.Errorf("features %#x: frames %x, faults %v", f, frames, faults)
		}
		if used := p.rings[0].TakeUsed(); len(used) != 1 || used[0].Len != uint32(12+len(aFrame)) {
			t.Errorf("features %#x: used = %v", f, used)
		}
	}
}

// A guest that is not synchronous is refused, in words.
func TestRefusesAsynchronous(t *testing.T) {
	tests := []struct {
		name string
		do   func(p *peer)
		want string
	}{
		{"no REPLY_ACK", func(p *peer) { p.do(setProtocolFeatures, u64s(protocol&^(1<<3))) },
			"vhost-user SET_PROTOCOL_FEATURES: the guest does not accept REPLY_ACK: it does not wait for the answer to its kicks, and who sent a frame cannot be told"},
		{"no INBAND_NOTIFICATIONS", func(p *peer) { p.do(setProtocolFeatures, u64s(protocol&^(1<<14))) },
			"vhost-user SET_PROTOCOL_FEATURES: the guest does not accept INBAND_NOTIFICATIONS: with kicks by eventfd it runs on, and who sent a frame cannot be told"},
		{"no SLAVE_REQ", func(p *peer) { p.do(setProtocolFeatures, u64s(protocol&^(1<<5))) },
			"vhost-user SET_PROTOCOL_FEATURES: the guest does not accept SLAVE_REQ: there is no way to interrupt it"},
		{"no protocol features at all", func(p *peer) {
			p.must(setFeatures, u64s(features&^(1<<30)))
			p.must(setMemTable, ramTable, p.ram)
			p.describe(0)
			p.do(setVringEnable, u32s(0, 1))
		}, "vhost-user SET_VRING_ENABLE: sent before the features were negotiated: kicks have to be answered, and who sent a frame could not be told"},
		{"an eventfd", func(p *peer) {
			p.negotiate()
			p.do(setVringKick, u64s(0), p.ram)
		}, "vhost-user SET_VRING_KICK: in-band notifications are required: with an eventfd the guest runs on, and who sent a frame cannot be told"},
		{"a kick without waiting", func(p *peer) {
			p.start()
			p.put(aFrame)
			if err := p.send(vringKick, flagVersion, u32s(1, 0)); err != nil {
				p.t.Fatal(err)
			}
		}, "vhost-user VRING_KICK: the guest does not wait for the answer: who sent a frame cannot be told"},
		{"a legacy driver", func(p *peer) { p.do(setFeatures, u64s(features&^(1<<32))) },
			"vhost-user SET_FEATURES: the guest's driver is a legacy one: it does not accept VIRTIO_F_VERSION_1"},
		{"no way to interrupt", func(p *peer) {
			p.must(setProtocolFeatures, u64s(protocol))
			p.must(setFeatures, u64s(features))
			p.must(setMemTable, ramTable, p.ram)
			p.describe(0)
			p.do(setVringEnable, u32s(0, 1))
		}, "vhost-user SET_VRING_ENABLE: sent before SET_SLAVE_REQ_FD: there is no way to interrupt the guest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, b, p := card(t)
			tt.do(p)
			if err := p.end(); !isProtocolError(err) || err.Error() != tt.want {
				t.Errorf("Serve = %v; want %s", err, tt.want)
			}
			if frames, _ := b.sent(); len(frames) > 0 {
				t.Errorf("%d frames got out", len(frames))
			}
		})
	}
}

// Every queue that is started is stopped, once, before the memory goes.
func TestStopsWhatItStarted(t *testing.T) {
	n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: discard{}})
	if err != nil {
		t.Fatal(err)
	}
	d := &recorder{Device: n}
	p := dial(t, vhostuser.Config{Device: d, MaxMemory: 64 << 20, Memory: func(m *guestmem.Memory) { d.note("memory %v", m != nil) }})
	p.start()
	p.must(setVringEnable, u32s(0, 0))
	p.must(setVringEnable, u32s(0, 0))
	p.must(setVringEnable, u32s(0, 1))
	p.must(setVringEnable, u32s(0, 1))
	p.cancel()
	p.end()
	want := []string{"memory true", "start 0", "start 1", "stop 0", "start 0", "stop 0", "stop 1", "memory false"}
	if !slices.Equal(d.events, want) {
		t.Errorf("events = %q; want %q", d.events, want)
	}
}

// A recorder is a device that records what its transport does. All of that is
// on one goroutine.
type recorder struct {
	virtio.Device
	events []string
}

func (r *recorder) note(format string, args ...any) {
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *recorder) Start(i int, q *virtq.Queue, t virtio.Transport) {
	r.note("start %d", i)
	r.Device.Start(i, q, t)
}

func (r *recorder) Stop(i int) {
	r.note("stop %d", i)
	r.Device.Stop(i)
}

// A guest may be killed at any time, also while it waits for an answer.
func TestHangUp(t *testing.T) {
	tests := map[string]func(p *peer){
		"at once":          func(p *peer) {},
		"while it runs":    func(p *peer) { p.start() },
		"before an answer": func(p *peer) { _ = p.send(getFeatures, flagVersion, nil) },
		"within a kick": func(p *peer) {
			p.start()
			p.put(aFrame)
			_ = p.send(vringKick, flagVersion|flagNeedReply, u32s(1, 0))
		},
	}
	for name, until := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, p := card(t)
			until(p)
			unix.Close(p.sock)
			p.sock = -1
			if err := p.end(); err != nil {
				t.Errorf("Serve = %v; want nil", err)
			}
		})
	}
}

func TestNoBound(t *testing.T) {
	n, _, _ := card(t)
	p := dial(t, vhostuser.Config{Device: n})
	if err := p.end(); err == nil || err.Error() != "vhost-user: no bound for the guest's memory" {
		t.Errorf("Serve without MaxMemory = %v", err)
	}
}

// Serve ends when its context does, wherever the peer has it wait.
func TestCancel(t *testing.T) {
	tests := map[string]func(p *peer){
		"before a message": func(p *peer) {},
		"within a header":  func(p *peer) { p.raw(make([]byte, 5)) },
		"within a payload": func(p *peer) { p.raw(slices.Concat(u32s(setFeatures, flagVersion, 8), make([]byte, 3))) },
		"while it runs":    func(p *peer) { p.start() },
		"with answers that nobody reads": func(p *peer) {
			for p.raw(u32s(getFeatures, flagVersion, 0)) == nil {
			}
		},
	}
	for name, until := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, p := card(t)
			until(p)
			start := time.Now()
			p.cancel()
			if err := p.end(); !errors.Is(err, context.Canceled) {
				t.Errorf("Serve = %v; want context.Canceled", err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("it took %v; want at most a second", took)
			}
		})
	}
}

// A guest that does not read its interrupts holds nobody up, and loses none
// once it reads again.
func TestInterruptsNotRead(t *testing.T) {
	n, _, p := card(t)
	p.start()
	start := time.Now()
	for range 20 {
		p.post(200)
		for range 200 {
			if err := n.Deliver(aFrame); err != nil {
				t.Fatal(err)
			}
		}
		p.rings[0].TakeUsed()
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("4000 frames took %v", took)
	}
	// One queue's calls are many now; the other one's has to come, too.
	p.put(aFrame)
	p.must(vringKick, u32s(1, 0))
	for i := 0; p.interrupt() != 1; i++ {
		if i > 4000 {
			t.Fatal("no interrupt of the transmit queue")
		}
	}
}

// The driver may turn interrupts off.
func TestNoInterruptFlag(t *testing.T) {
	n, _, p := card(t)
	p.start()
	for _, r := range p.rings {
		r.SetAvailFlags(virtqtest.NoInterrupt)
	}
	p.post(1)
	if err := n.Deliver(aFrame); err != nil {
		t.Fatal(err)
	}
	p.put(aFrame)
	p.must(vringKick, u32s(1, 0))
	p.quiet()
}

// A queue is stopped and goes on: by ENABLE, by GET_VRING_BASE, and in a new
// table of memory.
func TestStopAndGoOn(t *testing.T) {
	n, b, p := card(t)
	p.start()
	frame := func() {
		t.Helper()
		p.put(aFrame)
		p.must(vringKick, u32s(1, 0))
		p.interrupt()
	}
	frame()
	frame()

	p.must(setVringEnable, u32s(1, 0))
	p.put(aFrame)
	p.must(vringKick, u32s(1, 0)) // of a queue that is off: nothing
	if frames, _ := b.sent(); len(frames) != 2 {
		t.Fatalf("%d frames; want 2: the queue is off", len(frames))
	}
	p.must(setVringEnable, u32s(1, 1))
	p.must(vringKick, u32s(1, 0))
	if frames, _ := b.sent(); len(frames) != 3 {
		t.Fatalf("%d frames; want 3: the one that waited", len(frames))
	}
	p.interrupt()

	if got, want := p.ask(getVringBase, u32s(1, 0)), u32s(1, 3); !bytes.Equal(got, want) {
		t.Errorf("GET_VRING_BASE = %x; want %x", got, want)
	}
	p.must(setVringBase, u32s(1, 3))
	p.must(setVringEnable, u32s(1, 1))
	frame()

	p.post(1)
	for i := range uint32(2) {
		p.must(setVringEnable, u32s(i, 0))
	}
	p.must(setMemTable, ramTable, p.ram)
	for i := range uint32(2) {
		p.must(setVringEnable, u32s(i, 1))
	}
	frame()
	if err := n.Deliver(aFrame); err != nil {
		t.Errorf("Deliver in the new table: %v", err)
	}
	if frames, _ := b.sent(); len(frames) != 5 {
		t.Errorf("%d frames; want 5", len(frames))
	}
	if used := p.rings[1].TakeUsed(); len(used) != 5 {
		t.Errorf("%d chains came back; want 5", len(used))
	}

	// As a driver does that is unbound and bound again.
	for i := range uint32(2) {
		p.must(setVringEnable, u32s(i, 0))
	}
	p.must(setFeatures, u64s(features))
	p.must(setMemTable, ramTable, p.ram)
	for i := range uint32(2) {
		p.rings[i].Reset()
		p.describe(i)
		p.must(setVringEnable, u32s(i, 1))
	}
	for p.rings[1].TakeUsed() != nil {
	}
	p.put(aFrame)
	p.must(vringKick, u32s(1, 0))
	if frames, _ := b.sent(); len(frames) != 6 {
		t.Errorf("%d frames; want 6", len(frames))
	}
}

// The hook hears of memory before queues use it, and when it is gone.
func TestMemoryHook(t *testing.T) {
	var told []*guestmem.Memory
	n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: &backend{}})
	if err != nil {
		t.Fatal(err)
	}
	p := dial(t, vhostuser.Config{Device: n, MaxMemory: 64 << 20, Memory: func(m *guestmem.Memory) { told = append(told, m) }})
	p.negotiate()
	p.must(setMemTable, ramTable, p.ram)
	p.cancel()
	p.end()
	if len(told) != 4 || told[0] == nil || told[1] != nil || told[2] == nil || told[3] != nil {
		t.Fatalf("told of %v; want memory, nil, memory, nil", told)
	}
	var fe *guestmem.FaultError
	if _, err := told[2].Load32(ramBase); !errors.As(err, &fe) {
		t.Errorf("a late look = %v; want a FaultError", err)
	}
}

func TestKickNoAllocs(t *testing.T) {
	n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: discard{}})
	if err != nil {
		t.Fatal(err)
	}
	p := dial(t, vhostuser.Config{Device: n, MaxMemory: 64 << 20})
	p.start()
	p.rings[1].SetAvailFlags(virtqtest.NoInterrupt)
	kick := slices.Concat(u32s(vringKick, flagVersion|flagNeedReply, 8, 1, 0))
	answer := make([]byte, 20)
	if err := p.mem.Write(txBuf, slices.Concat(make([]byte, 12), aFrame)); err != nil {
		t.Fatal(err)
	}
	head := p.rings[1].Add(virtqtest.Desc{Addr: txBuf, Len: uint32(12 + len(aFrame))})
	allocs := testing.AllocsPerRun(500, func() {
		p.rings[1].Publish(head)
		if _, err := unix.Write(p.sock, kick); err != nil {
			t.Fatal(err)
		}
		if err := readFull(p.sock, answer); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a kick; want none", allocs)
	}
}

type discard struct{}

func (discard) Transmit([]byte, uint16)                {}
func (discard) Refuse([]byte, uint16, virtio.NetFault) {}

func BenchmarkKick(b *testing.B) {
	n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: discard{}})
	if err != nil {
		b.Fatal(err)
	}
	p := dial(b, vhostuser.Config{Device: n, MaxMemory: 64 << 20})
	p.start()
	p.rings[1].SetAvailFlags(virtqtest.NoInterrupt)
	kick := slices.Concat(u32s(vringKick, flagVersion|flagNeedReply, 8, 1, 0))
	answer := make([]byte, 20)
	head := p.rings[1].Add(virtqtest.Desc{Addr: txBuf, Len: 12 + 1514})
	for b.Loop() {
		p.rings[1].Publish(head)
		if _, err := unix.Write(p.sock, kick); err != nil {
			b.Fatal(err)
		}
		if err := readFull(p.sock, answer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSocket is what BenchmarkKick costs without a server: 20 bytes there
// and 20 back.
func BenchmarkSocket(b *testing.B) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	var echo sync.WaitGroup
	echo.Go(func() {
		for m := make([]byte, 20); readFull(pair[1], m) == nil; {
			_, _ = unix.Write(pair[1], m)
		}
	})
	m := make([]byte, 20)
	for b.Loop() {
		if _, err := unix.Write(pair[0], m); err != nil {
			b.Fatal(err)
		}
		if err := readFull(pair[0], m); err != nil {
			b.Fatal(err)
		}
	}
	unix.Close(pair[0])
	echo.Wait()
	unix.Close(pair[1])
}
