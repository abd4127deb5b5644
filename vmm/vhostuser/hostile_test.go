package vhostuser_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/vhostuser"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq/virtqtest"
)

// Whatever a peer sends, it costs its own connection, with an error that says
// what it was, and nothing is left open. do sends; what it leaves unanswered
// is not read.
func TestHostile(t *testing.T) {
	bad := func(request uint32, payload []byte, fds ...int) func(p *peer) {
		return func(p *peer) { _ = p.send(request, flagVersion, payload, fds...) }
	}
	after := func(before func(p *peer), f func(p *peer)) func(p *peer) {
		return func(p *peer) { before(p); f(p) }
	}
	negotiated := func(f func(p *peer)) func(p *peer) { return after((*peer).negotiate, f) }
	running := func(f func(p *peer)) func(p *peer) { return after((*peer).start, f) }
	with := func(request uint32, payload []byte, fd func(p *peer) int) func(p *peer) {
		return func(p *peer) { _ = p.send(request, flagVersion, payload, fd(p)) }
	}
	ram := func(p *peer) int { return p.ram }

	tests := []struct {
		name string
		do   func(p *peer)
		want string
	}{
		// Framing.
		{"request 0", bad(0, nil), "vhost-user 0: no such request"},
		{"request 4, deprecated", bad(4, nil), "vhost-user 4: no such request"},
		{"request 17, of MQ, which was not offered", bad(17, nil), "vhost-user 17: no such request"},
		{"request 36", bad(36, nil), "vhost-user 36: no such request"},
		{"request 2^32-1", bad(1<<32-1, nil), "vhost-user 4294967295: no such request"},
		{"version 0", func(p *peer) { _ = p.send(getFeatures, 0, nil) }, "flags 0x0: not a request of version 1"},
		{"version 2", func(p *peer) { _ = p.send(getFeatures, 2, nil) }, "flags 0x2: not a request of version 1"},
		{"a reply", func(p *peer) { _ = p.send(getFeatures, flagVersion|flagReply, nil) }, "flags 0x5: not a request"},
		{"flags that are none", func(p *peer) { _ = p.send(getFeatures, flagVersion|0x100, nil) }, "flags 0x101: not a request"},
		{"4 GiB of payload", func(p *peer) { _ = p.raw(u32s(setFeatures, flagVersion, 1<<32-1)) }, "payload of 4294967295 bytes is longer than"},
		{"a payload too long for any", func(p *peer) { _ = p.raw(u32s(setConfig, flagVersion, 12+257)) }, "payload of 269 bytes is longer than"},
		{"hang-up within a header", func(p *peer) { _ = p.raw(make([]byte, 11)); p.hangUp() }, "unexpected EOF"},
		{"hang-up within a payload", func(p *peer) {
			_ = p.raw(slices.Concat(u32s(setFeatures, flagVersion, 8), make([]byte, 7)))
			p.hangUp()
		}, "unexpected EOF"},
		{"too short", bad(setFeatures, make([]byte, 7)), "vhost-user SET_FEATURES: payload of 7 bytes, want 8"},
		{"too long", bad(setFeatures, make([]byte, 9)), "vhost-user SET_FEATURES: payload of 9 bytes, want 8"},
		{"a payload where there is none", bad(getFeatures, make([]byte, 8)), "vhost-user GET_FEATURES: payload of 8 bytes, want 0"},
		{"a descriptor where there is none", with(getFeatures, nil, ram), "vhost-user GET_FEATURES: 1 descriptors, want at most 0"},
		{"nine descriptors", func(p *peer) {
			_ = p.send(setMemTable, flagVersion, ramTable, slices.Repeat([]int{p.ram}, 9)...)
		}, "descriptors"},
		{"250 descriptors", func(p *peer) {
			_ = p.send(setMemTable, flagVersion, ramTable, slices.Repeat([]int{p.ram}, 250)...)
		}, "more descriptors than a message may carry"},
		{"descriptors with each half of a message", func(p *peer) {
			five := slices.Repeat([]int{p.ram}, 5)
			_ = p.raw(u32s(setMemTable, flagVersion, uint32(len(ramTable))), five...)
			_ = p.raw(ramTable, five...)
		}, "more than 8 descriptors with one message"},

		// Features.
		{"SET_OWNER twice", after(func(p *peer) { p.must(setOwner, nil) }, bad(setOwner, nil)), "vhost-user SET_OWNER: sent twice"},
		{"a feature that was not offered", bad(setFeatures, u64s(features|1<<28)), "SET_FEATURES: features 0x10000000 were not offered"},
		{"a protocol feature that was not offered", bad(setProtocolFeatures, u64s(protocol|1)), "SET_PROTOCOL_FEATURES: protocol features 0x1 were not offered"},
		{"features while it runs", running(bad(setFeatures, u64s(features))), "SET_FEATURES: sent while a queue runs"},
		{"protocol features while it runs", running(bad(setProtocolFeatures, u64s(protocol))), "SET_PROTOCOL_FEATURES: sent while a queue runs"},

		// The socket for interrupts.
		{"interrupts before features", func(p *peer) { _ = p.send(setBackendReqFD, flagVersion, nil, p.reqFar) }, "SET_SLAVE_REQ_FD: sent before SET_PROTOCOL_FEATURES"},
		{"interrupts to nothing", negotiated(bad(setBackendReqFD, nil)), "SET_SLAVE_REQ_FD: no descriptor"},
		{"interrupts to a file", negotiated(with(setBackendReqFD, nil, ram)), "SET_SLAVE_REQ_FD: not a socket"},
		{"interrupts to /dev/zero", negotiated(with(setBackendReqFD, nil, (*peer).zero)), "SET_SLAVE_REQ_FD: not a socket"},
		{"interrupts to a pipe", negotiated(with(setBackendReqFD, nil, (*peer).pipe)), "SET_SLAVE_REQ_FD: not a socket"},
		{"interrupts to a datagram socket", negotiated(with(setBackendReqFD, nil, func(p *peer) int {
			return p.file(unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
		})), "SET_SLAVE_REQ_FD: not a unix stream socket (domain 1, type 2)"},
		{"interrupts to the internet", negotiated(with(setBackendReqFD, nil, func(p *peer) int {
			return p.file(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
		})), "SET_SLAVE_REQ_FD: not a unix stream socket (domain 2, type 1)"},
		{"interrupts elsewhere while it runs", running(func(p *peer) { _ = p.send(setBackendReqFD, flagVersion, nil, p.reqFar) }), "SET_SLAVE_REQ_FD: sent while a queue runs"},

		// Configuration.
		{"configuration before features", bad(getConfig, slices.Concat(u32s(0, 4, 0), make([]byte, 4))), "GET_CONFIG: CONFIG was not negotiated"},
		{"configuration of another size", negotiated(bad(getConfig, slices.Concat(u32s(0, 5, 0), make([]byte, 4)))), "GET_CONFIG: size 5 with 4 bytes"},
		{"configuration of 4 GiB", negotiated(bad(getConfig, slices.Concat(u32s(0, 1<<32-1, 0), make([]byte, 4)))), "GET_CONFIG: size 4294967295 with 4 bytes"},
		{"configuration far away", negotiated(bad(getConfig, slices.Concat(u32s(1<<32-1, 4, 0), make([]byte, 4)))), "GET_CONFIG: [4294967295, +4) is outside"},
		{"configuration behind its end", negotiated(bad(setConfig, slices.Concat(u32s(253, 4, 0), make([]byte, 4)))), "SET_CONFIG: [253, +4) is outside"},
		{"configuration without a head", negotiated(bad(setConfig, make([]byte, 11))), "SET_CONFIG: payload of 11 bytes, want 12 or more"},

		// Memory.
		{"no regions", with(setMemTable, table(), ram), "SET_MEM_TABLE: 0 regions, want 1 to 8"},
		{"4 billion regions", with(setMemTable, slices.Concat(u32s(1<<32-1, 0), make([]byte, 64)), ram), "SET_MEM_TABLE: 4294967295 regions"},
		{"less than a head", with(setMemTable, make([]byte, 7), ram), "SET_MEM_TABLE: payload of 7 bytes, want 8 or more"},
		{"fewer regions than it says", with(setMemTable, slices.Concat(u32s(2, 0), region(0, 4096, 0, 0)), ram), "too short for 2 regions"},
		{"a region without a file", bad(setMemTable, ramTable), "SET_MEM_TABLE: 0 descriptors for 1 regions"},
		{"a file without a region", func(p *peer) { _ = p.send(setMemTable, flagVersion, ramTable, p.ram, p.ram) }, "SET_MEM_TABLE: 2 descriptors for 1 regions"},
		{"/dev/zero", with(setMemTable, ramTable, (*peer).zero), "not shared memory"},
		{"a pipe", with(setMemTable, ramTable, (*peer).pipe), "not shared memory"},
		{"a directory", with(setMemTable, ramTable, (*peer).directory), "not shared memory"},
		{"a program", with(setMemTable, ramTable, (*peer).program), "not shared memory"},
		{"its own socket", with(setMemTable, ramTable, func(p *peer) int { return p.sock }), "not shared memory"},
		{"a region of nothing", with(setMemTable, table(region(0, 0, 0, 0)), ram), "region 0 of 0 bytes"},
		{"a region of 2^64-1", with(setMemTable, table(region(0, 1<<64-1, 0, 0)), ram), "more than the"},
		{"more than the machine has", with(setMemTable, table(region(0, 64<<20+4096, 0, 0)), ram), "region 0 of 67112960 bytes: more than the 67108864 that are left"},
		{"more than the machine has, in two", func(p *peer) {
			_ = p.send(setMemTable, flagVersion, table(region(0, 40<<20, 0, 0), region(1<<30, 40<<20, 1<<30, 0)), p.ram, p.ram)
		}, "region 1 of 41943040 bytes: more than the 25165824 that are left"},
		{"longer than its file", with(setMemTable, table(region(ramBase, ramSize+4096, ramBase, ramBase)), ram), "ends before"},
		{"offset behind its file", with(setMemTable, table(region(ramBase, 4096, ramBase, 1<<40)), ram), "ends before"},
		{"offset wraps", with(setMemTable, table(region(ramBase, 8192, ramBase, ^uint64(4095))), ram), "ends before"},
		{"offset not a page", with(setMemTable, table(region(ramBase, 4096, ramBase, 1)), ram), "not a number of pages"},
		{"guest address wraps", with(setMemTable, table(region(^uint64(4095), 8192, 0, 0)), ram), "wraps"},
		{"own address wraps", with(setMemTable, table(region(0, 8192, ^uint64(4095), 0)), ram), "region 0: [0xfffffffffffff000, +8192) wraps"},
		{"guest addresses overlap", func(p *peer) {
			_ = p.send(setMemTable, flagVersion, table(region(0, 8192, 0, 0), region(4096, 8192, 1<<30, 0)), p.ram, p.ram)
		}, "overlaps"},
		{"own addresses overlap", func(p *peer) {
			_ = p.send(setMemTable, flagVersion, table(region(0, 8192, 0, 0), region(1<<30, 8192, 4096, 0)), p.ram, p.ram)
		}, "region 1: [0x1000, +8192) overlaps another"},
		{"own addresses overlap, the other way round", func(p *peer) {
			_ = p.send(setMemTable, flagVersion, table(region(0, 8192, 8192, 0), region(1<<30, 16384, 4096, 0)), p.ram, p.ram)
		}, "region 1: [0x1000, +16384) overlaps another"},
		{"memory while it runs", running(func(p *peer) { _ = p.send(setMemTable, flagVersion, ramTable, p.ram) }), "SET_MEM_TABLE: sent while a queue runs"},

		// Queues.
		{"queue 2 of 2", negotiated(bad(setVringNum, u32s(2, 256))), "SET_VRING_NUM: the device has no queue 2"},
		{"queue 2^32-1", negotiated(bad(setVringEnable, u32s(1<<32-1, 1))), "SET_VRING_ENABLE: the device has no queue 4294967295"},
		{"a kick of queue 99", running(bad(vringKick, u32s(99, 0))), "VRING_KICK: the device has no queue 99"},
		{"size 0", negotiated(bad(setVringNum, u32s(0, 0))), "SET_VRING_NUM: size 0 is not a power of two up to 256"},
		{"size 255", negotiated(bad(setVringNum, u32s(0, 255))), "size 255 is not a power of two up to 256"},
		{"size 512", negotiated(bad(setVringNum, u32s(0, 512))), "size 512 is not a power of two up to 256"},
		{"size 2^31", negotiated(bad(setVringNum, u32s(0, 1<<31))), "size 2147483648 is not a power of two up to 256"},
		{"base of 17 bits", negotiated(bad(setVringBase, u32s(0, 65536))), "SET_VRING_BASE: index 65536 has more than 16 bits"},
		{"a log of dirty pages", negotiated(bad(setVringAddr, slices.Concat(u32s(0, 1), make([]byte, 32)))), "SET_VRING_ADDR: flags 0x1"},
		{"half on", negotiated(bad(setVringEnable, u32s(0, 2))), "SET_VRING_ENABLE: neither on nor off: 2"},
		{"on without a word", negotiated(bad(setVringEnable, u32s(0, 1))), "SET_VRING_ENABLE: queue 0 was not described"},
		{"on without memory", func(p *peer) {
			p.must(setProtocolFeatures, u64s(protocol))
			p.must(setBackendReqFD, nil, p.reqFar)
			p.must(setFeatures, u64s(features))
			p.describe(0)
			_ = p.send(setVringEnable, flagVersion, u32s(0, 1))
		}, "SET_VRING_ENABLE: sent before SET_MEM_TABLE"},
		{"size while it runs", running(bad(setVringNum, u32s(1, 128))), "SET_VRING_NUM: queue 1 runs"},
		{"base while it runs", running(bad(setVringBase, u32s(1, 0))), "SET_VRING_BASE: queue 1 runs"},
		{"address while it runs", running(bad(setVringAddr, addr(1, virtqtest.Driver{}.Config))), "SET_VRING_ADDR: queue 1 runs"},
		{"used ring behind RAM", negotiated(func(p *peer) {
			p.rings[0].Config.Used = ramBase + ramSize - 1024
			p.enable(0)
		}), "SET_VRING_ENABLE: queue 0: [0xce7c00, +2054) is in no region of memory"},
		{"available ring nowhere", negotiated(func(p *peer) { p.rings[0].Config.Avail = 1 << 62; p.enable(0) }), "is in no region of memory"},
		{"descriptors before RAM", negotiated(func(p *peer) { p.rings[0].Config.Desc = ramBase - 16; p.enable(0) }), "is in no region of memory"},
		{"descriptors not aligned", negotiated(func(p *peer) { p.rings[0].Config.Desc += 8; p.enable(0) }), "not a multiple of 16"},
		{"used ring not aligned", negotiated(func(p *peer) { p.rings[0].Config.Used += 2; p.enable(0) }), "not a multiple of 4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, b, p := card(t)
			tt.do(p)
			err := p.end()
			if !isProtocolError(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Serve = %v; want a ProtocolError with %q", err, tt.want)
			}
			if frames, faults := b.sent(); len(frames)+len(faults) != 0 {
				t.Errorf("frames %d, faults %v; want none", len(frames), faults)
			}
			if err := n.Deliver(aFrame); err == nil {
				t.Error("the device still runs")
			}
		})
	}
}

func (p *peer) hangUp() { _ = unix.Shutdown(p.sock, unix.SHUT_WR) }

func (p *peer) enable(i uint32) {
	p.describe(i)
	_ = p.send(setVringEnable, flagVersion, u32s(i, 1))
}

// file makes an opened descriptor the test's to close.
func (p *peer) file(fd int, err error) int {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func (p *peer) zero() int {
	return p.file(unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0))
}

func (p *peer) directory() int {
	return p.file(unix.Open("/dev/shm", unix.O_RDONLY|unix.O_CLOEXEC, 0))
}

func (p *peer) program() int {
	return p.file(unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0))
}

func (p *peer) pipe() int {
	var fds [2]int
	err := unix.Pipe2(fds[:], unix.O_CLOEXEC)
	p.file(fds[0], err)
	return p.file(fds[1], err)
}

// A refusal that was asked for is answered before the connection ends.
func TestRefusalIsAnswered(t *testing.T) {
	_, _, p := card(t)
	if status := p.do(setFeatures, u64s(1<<63)); status != 1 {
		t.Errorf("acknowledged with %d; want 1", status)
	}
	if _, _, err := p.reply(); err == nil {
		t.Error("the connection goes on")
	}
}

// A guest that breaks its ring is told by the answer to its kick, as often as
// it kicks, and can set it up anew. The log does not fill with it.
func TestBrokenRing(t *testing.T) {
	var log bytes.Buffer
	b := &backend{}
	n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	p := dial(t, vhostuser.Config{Device: n, MaxMemory: 64 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))})
	p.start()
	for i := range 30 {
		p.rings[1].Publish(999)
		for range 3 {
			if status := p.do(vringKick, u32s(1, 0)); status != 1 {
				t.Fatalf("round %d: acknowledged with %d; want 1", i, status)
			}
		}
		p.must(setVringEnable, u32s(1, 0))
		p.rings[1].Reset()
		p.describe(1)
		p.must(setVringEnable, u32s(1, 1))
		p.put(aFrame)
		p.must(vringKick, u32s(1, 0))
	}
	if frames, _ := b.sent(); len(frames) != 30 {
		t.Errorf("%d frames; want 30", len(frames))
	}
	p.cancel()
	p.end()
	if n := strings.Count(log.String(), "\n"); n != 10 || !strings.Contains(log.String(), `msg="queue broken" queue=1 err="virtq 1: chain 999 at descriptor 999`) {
		t.Errorf("%d lines of log: %s", n, log.String())
	}
}

// The guest shrinks the file behind its memory while its card works. That is
// SIGBUS for whoever touches it, and would be the end of every pod.
func TestShrunkMemory(t *testing.T) {
	n, b, p := card(t)
	p.start()
	p.put(aFrame)
	p.must(vringKick, u32s(1, 0))
	p.post(1)

	// Only the buffers are gone: the frame drops, the queue goes on.
	if err := unix.Ftruncate(p.ram, ramBase+0x8000); err != nil {
		t.Fatal(err)
	}
	r := p.rings[1]
	r.Publish(r.Add(virtqtest.Desc{Addr: txBuf, Len: 100}))
	p.must(vringKick, u32s(1, 0))
	if frames, faults := b.sent(); len(frames) != 1 || !slices.Equal(faults, []virtio.NetFault{virtio.BadBuffer}) {
		t.Errorf("%d frames, faults %v; want the first frame and a bad buffer", len(frames), faults)
	}
	if err := n.Deliver(aFrame); err == nil {
		t.Error("Deliver into what is gone = nil")
	}
	// Everything is gone.
	if err := unix.Ftruncate(p.ram, 0); err != nil {
		t.Fatal(err)
	}
	if status := p.do(vringKick, u32s(1, 0)); status != 1 {
		t.Errorf("a kick without memory is acknowledged with %d; want 1: the queue is broken", status)
	}
	if err := n.Deliver(aFrame); err == nil {
		t.Error("Deliver without memory = nil")
	}
	p.cancel()
	p.end()
}

// Connections of every kind come and go; no descriptor of theirs stays.
func TestNothingLeft(t *testing.T) {
	open := func() []string {
		names, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	before := len(open())
	for i := range 30 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			_, _, p := card(t)
			switch i % 6 {
			case 0:
				p.start()
				p.cancel()
			case 1:
				_ = p.send(setMemTable, flagVersion, ramTable, slices.Repeat([]int{p.ram}, 200)...)
			case 2:
				p.negotiate()
				_ = p.send(setBackendReqFD, flagVersion, nil, p.ram)
			case 3:
				p.start()
				_ = p.send(vringKick, flagVersion|flagNeedReply, u32s(1, 0), p.ram, p.ram) // the kernel's to close
				_ = p.send(0, flagVersion, nil)
			case 4:
				p.negotiate()
				for range 20 {
					p.must(setMemTable, ramTable, p.ram)
					p.must(setBackendReqFD, nil, p.reqFar)
				}
				p.hangUp()
			case 5: // more than a message may have, in two parts
				five := slices.Repeat([]int{p.ram}, 5)
				_ = p.raw(u32s(setMemTable, flagVersion, uint32(len(ramTable))), five...)
				_ = p.raw(ramTable, five...)
			}
			p.end()
		})
	}
	// What is refused is closed by a goroutine of its own.
	for try := 0; len(open()) > before; try++ {
		if try == 200 {
			for _, name := range open() {
				to, _ := os.Readlink(name)
				t.Log(name, to)
			}
			t.Fatalf("%d descriptors are open, %d were before", len(open()), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Tables of memory without end are not taken.
func TestTooManyTables(t *testing.T) {
	_, _, p := card(t)
	p.negotiate()
	for range 999 {
		p.must(setMemTable, ramTable, p.ram)
	}
	if status := p.do(setMemTable, ramTable, p.ram); status != 1 {
		t.Errorf("table 1001 is acknowledged with %d", status)
	}
	if err := p.end(); !isProtocolError(err) || !strings.Contains(err.Error(), "more than 1000 tables") {
		t.Errorf("Serve = %v", err)
	}
}
