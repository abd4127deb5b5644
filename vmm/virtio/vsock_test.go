package virtio_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq/virtqtest"
)

func listen(t testing.TB, v *virtio.Vsock, port uint32) net.Listener {
	t.Helper()
	l, err := v.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// connected returns a connection from port 1000 of the guest to port 9 of the
// host.
func connected(t testing.TB, cfg virtio.VsockConfig) (net.Conn, *virtio.Vsock, *vguest) {
	t.Helper()
	v, g := newVsock(t, cfg)
	l := listen(t, v, 9)
	g.send(vpacket{op: opRequest, srcPort: 1000, dstPort: 9})
	c := accept(t, l)
	if p := g.one(opResponse); p.srcPort != 9 || p.dstPort != 1000 || p.bufAlloc == 0 {
		t.Fatalf("the response is %+v", p)
	}
	return c, v, g
}

func read(t testing.TB, c net.Conn, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestVsockConn is what every net.Conn has to do, over two devices that take
// each other for guests.
func TestVsockConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		va, a := newVsock(t, virtio.VsockConfig{})
		vb, b := newVsock(t, virtio.VsockConfig{})
		w := newWire(a, b)
		l, err := vb.Listen(7)
		if err != nil {
			return nil, nil, nil, err
		}
		if c1, err = va.Dial(t.Context(), 7); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() {
			c1.Close()
			c2.Close()
			va.Close()
			vb.Close()
			w.close()
		}, nil
	})
}

// TestVsockStream sends a lot both ways at once, through buffers much smaller,
// and half-closes.
func TestVsockStream(t *testing.T) {
	va, a := newVsock(t, virtio.VsockConfig{Buffer: 5000})
	vb, b := newVsock(t, virtio.VsockConfig{Buffer: 7001})
	b.rxLen = 64 // 20 bytes of data a packet
	b.halt()
	b.boot()
	w := newWire(a, b)
	defer w.close()
	l := listen(t, vb, 7)
	one, err := va.Dial(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two := accept(t, l)
	one.SetDeadline(time.Now().Add(30 * time.Second))
	two.SetDeadline(time.Now().Add(30 * time.Second))
	want := make([]byte, 300000)
	for i := range want {
		want[i] = byte(i * i >> 7)
	}
	done := make(chan error, 4)
	for _, c := range []net.Conn{one, two} {
		go func() {
			for b := want; len(b) > 0; {
				n, err := c.Write(b[:min(len(b), 1+len(b)%9000)])
				if err != nil {
					done <- err
					return
				}
				b = b[n:]
			}
			done <- c.(interface{ CloseWrite() error }).CloseWrite()
		}()
		go func() {
			got, err := io.ReadAll(c)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("%d bytes, not the ones that were sent", len(got))
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if s := va.Stats(); s != (virtio.VsockStats{}) {
		t.Errorf("an honest peer counts %+v", s)
	}
	if _, err := one.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a write behind CloseWrite: %v; want EPIPE", err)
	}
}

func TestVsockListen(t *testing.T) {
	v, g := newVsock(t, virtio.VsockConfig{MaxConns: 70})
	l := listen(t, v, 9)
	if _, err := v.Listen(9); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second Listen: %v; want EADDRINUSE", err)
	}
	if got := l.Addr().String(); got != "2:9" || l.Addr().Network() != "vsock" {
		t.Errorf("address %s %s; want vsock 2:9", l.Addr().Network(), got)
	}
	// Nobody listens there.
	g.send(vpacket{op: opRequest, srcPort: 1, dstPort: 10})
	if p := g.one(opReset); p.srcPort != 10 || p.dstPort != 1 {
		t.Errorf("the reset is %+v", p)
	}
	// The backlog is bounded.
	for i := range uint32(100) {
		g.send(vpacket{op: opRequest, srcPort: 100 + i, dstPort: 9})
	}
	responses, resets := 0, 0
	for responses+resets < 100 {
		for _, p := range g.recv() {
			switch p.op {
			case opResponse:
				responses++
			case opReset:
				resets++
			}
		}
	}
	if responses != 64 || resets != 36 {
		t.Errorf("%d responses, %d resets; want 64 and 36", responses, resets)
	}
	c := accept(t, l)
	if got := c.RemoteAddr().String(); got != "3:100" {
		t.Errorf("the first connection is from %s; want 3:100", got)
	}
	// Those that nobody accepted end with the listener.
	go l.Close()
	resets = 0
	for resets < 63 {
		for _, p := range g.recv() {
			if p.op == opReset {
				resets++
			}
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed listener: %v; want net.ErrClosed", err)
	}
	// And so are connections in all.
	l = listen(t, v, 11)
	for i := range uint32(70) {
		g.send(vpacket{op: opRequest, srcPort: 300 + i, dstPort: 11})
		if ops := g.recv(); ops[0].op == opReset {
			if i != 64 {
				t.Errorf("connection %d was refused; want 64 in the backlog", i)
			}
			for range 64 {
				accept(t, l)
			}
			break
		}
	}
	n := 65
	for i := range uint32(10) {
		g.send(vpacket{op: opRequest, srcPort: 500 + i, dstPort: 11})
		if g.recv()[0].op == opReset {
			break
		}
		n++
	}
	if n != 70 {
		t.Errorf("%d connections; want 70", n)
	}
}

func TestVsockDial(t *testing.T) {
	v, g := newVsock(t, virtio.VsockConfig{})
	dial := func(ctx context.Context) (chan net.Conn, chan error) {
		conns, errs := make(chan net.Conn, 1), make(chan error, 1)
		go func() {
			c, err := v.Dial(ctx, 22)
			conns <- c
			errs <- err
		}()
		return conns, errs
	}
	// Answered.
	conns, errs := dial(t.Context())
	p := g.one(opRequest)
	if p.dstPort != 22 || p.bufAlloc != 256<<10 {
		t.Errorf("the request is %+v", p)
	}
	g.send(vpacket{op: opResponse, srcPort: 22, dstPort: p.srcPort})
	c := <-conns
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	if c.RemoteAddr().String() != "3:22" || c.LocalAddr() != (virtio.VsockAddr{CID: 2, Port: p.srcPort}) {
		t.Errorf("connected %v to %v", c.LocalAddr(), c.RemoteAddr())
	}
	g.send(vpacket{op: opRW, srcPort: 22, dstPort: p.srcPort, data: []byte("hi")})
	if got := read(t, c, 2); got != "hi" {
		t.Errorf("read %q", got)
	}
	c.Close()
	if p := g.one(opShutdown); p.flags != 3 {
		t.Errorf("the shutdown is %+v; want both flags", p)
	}
	g.send(vpacket{op: opReset, srcPort: 22, dstPort: p.srcPort})

	// Refused.
	_, errs = dial(t.Context())
	p = g.one(opRequest)
	g.send(vpacket{op: opReset, srcPort: 22, dstPort: p.srcPort})
	if err := <-errs; !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a refused Dial: %v; want ECONNREFUSED", err)
	}
	// Nobody waits any more: the guest is told.
	ctx, cancel := context.WithCancel(t.Context())
	_, errs = dial(ctx)
	p = g.one(opRequest)
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled Dial: %v", err)
	}
	g.one(opReset)
	g.send(vpacket{op: opResponse, srcPort: 22, dstPort: p.srcPort})
	g.one(opReset)
	// Data instead of an answer.
	_, errs = dial(t.Context())
	p = g.one(opRequest)
	g.send(vpacket{op: opRW, srcPort: 22, dstPort: p.srcPort, data: []byte("x")})
	if err := <-errs; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a Dial that gets data: %v; want ECONNRESET", err)
	}
	g.one(opReset)
	// The driver goes down while one waits, and is not up again.
	_, errs = dial(t.Context())
	g.one(opRequest)
	g.halt()
	if err := <-errs; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a Dial whose guest went away: %v; want ECONNRESET", err)
	}
	if _, err := v.Dial(t.Context(), 22); !errors.Is(err, virtio.ErrDown) {
		t.Errorf("a Dial without a driver: %v; want ErrDown", err)
	}
}

// TestVsockHostile: each packet is one that an honest driver does not send. The
// connection that there is dies of it, or not; the device and its neighbours
// live on.
func TestVsockHostile(t *testing.T) {
	big := make([]byte, 5000)
	for _, tt := range []struct {
		name  string
		send  []vpacket
		reset bool // of the connection
		stats virtio.VsockStats
	}{
		{"from somebody else", []vpacket{{src: 4, op: opRW, data: []byte("x")}}, false, virtio.VsockStats{Foreign: 1}},
		{"from the host", []vpacket{{src: 2, op: opReset}}, false, virtio.VsockStats{Foreign: 1}},
		{"to somebody else", []vpacket{{dst: 1, op: opReset}}, false, virtio.VsockStats{Foreign: 1}},
		{"high bits of the address", []vpacket{{src: 1<<32 | guestCID, op: opReset}}, false, virtio.VsockStats{Foreign: 1}},
		{"operation 0", []vpacket{{op: 0}}, true, virtio.VsockStats{Violations: 1}},
		{"operation 8", []vpacket{{op: 8}}, true, virtio.VsockStats{Violations: 1}},
		{"operation 0xffff", []vpacket{{op: 0xffff}}, true, virtio.VsockStats{Violations: 1}},
		{"a second request", []vpacket{{op: opRequest}}, true, virtio.VsockStats{Violations: 1}},
		{"a response to nothing", []vpacket{{op: opResponse}}, true, virtio.VsockStats{Violations: 1}},
		{"more than the credit", []vpacket{{op: opRW, data: big}}, true, virtio.VsockStats{Violations: 1}},
		{"more than the credit in two", []vpacket{{op: opRW, data: big[:4096]}, {op: opRW, data: big[:1]}}, true, virtio.VsockStats{Violations: 1}},
		{"longer than its chain", []vpacket{{op: opRW, n: 2, data: []byte("x")}}, true, virtio.VsockStats{Violations: 1}},
		{"4 GiB", []vpacket{{op: opRW, n: 0xffffffff, data: []byte("x")}}, true, virtio.VsockStats{Violations: 1}},
		{"data behind the end", []vpacket{{op: opShutdown, flags: 2}, {op: opRW, data: []byte("x")}}, true, virtio.VsockStats{Violations: 1}},
		{"shutdown of nothing", []vpacket{{op: opShutdown, flags: 0}, {op: opShutdown, flags: 0xfffffffc}}, false, virtio.VsockStats{}},
		{"no data", []vpacket{{op: opRW}}, false, virtio.VsockStats{}},
		{"credit of nothing", []vpacket{{op: opCreditUpdate, bufAlloc: 1, fwdCnt: 0xffffffff}}, false, virtio.VsockStats{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, v, g := connected(t, virtio.VsockConfig{Buffer: 4096})
			g.send(vpacket{op: opRequest, srcPort: 1001, dstPort: 9}) // the neighbour
			g.one(opResponse)
			for _, p := range tt.send {
				p.srcPort, p.dstPort = 1000, 9
				g.send(p)
			}
			if tt.reset {
				if p := g.recv()[0]; p.op != opReset || p.srcPort != 9 || p.dstPort != 1000 {
					t.Errorf("the answer is %+v; want a reset", p)
				}
				if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("write: %v; want ECONNRESET", err)
				}
			} else {
				if _, err := c.Write([]byte("x")); err != nil {
					t.Errorf("write: %v", err)
				}
				g.send(vpacket{op: opCreditUpdate, srcPort: 1000, dstPort: 9})
				if p := g.recv(); p[0].op != opRW {
					t.Errorf("packets %+v; want the data", p)
				}
			}
			if got := v.Stats(); got != tt.stats {
				t.Errorf("counted %+v; want %+v", got, tt.stats)
			}
			g.send(vpacket{op: opCreditRequest, srcPort: 1001, dstPort: 9})
			for _, p := range g.recv() {
				if p.op != opCreditUpdate || p.dstPort != 1001 {
					t.Errorf("the neighbour gets %+v", p)
				}
			}
		})
	}
}

// TestVsockNoConnection: packets of no connection, of an unknown type or in a
// bad chain.
func TestVsockNoConnection(t *testing.T) {
	v, g := newVsock(t, virtio.VsockConfig{})
	for op := range uint16(9) {
		g.send(vpacket{op: op, srcPort: 5, dstPort: 6, data: []byte("x")})
		if op == opReset {
			g.none() // two ends that reset each other's resets would never stop
			continue
		}
		if p := g.one(opReset); p.srcPort != 6 || p.dstPort != 5 || p.flags != 0 || p.n != 0 {
			t.Errorf("op %d: the reset is %+v", op, p)
		}
	}
	for _, kind := range []uint16{2, 3, 0xffff} { // seqpacket, a datagram, what else
		g.send(vpacket{kind: kind, op: opRequest, srcPort: 5, dstPort: 6})
		if p := g.one(opReset); p.kind != kind {
			t.Errorf("type %d: the reset is %+v", kind, p)
		}
		g.send(vpacket{kind: kind, op: opReset, srcPort: 5, dstPort: 6})
		g.none()
	}
	before := v.Stats().BadChains
	for n := range headerLen {
		g.sendRaw(make([]byte, n))
	}
	bad := func(descs ...virtqtest.Desc) {
		g.tx.Publish(g.tx.Add(descs...))
		g.dev.Kick(1)
		g.tx.TakeUsed()
	}
	bad(virtqtest.Desc{Addr: ramSize - 10, Len: 44})
	bad(virtqtest.Desc{Addr: txBuffer, Len: 44, Flags: virtqtest.Write})
	bad(virtqtest.Desc{Addr: txBuffer, Len: 44}, virtqtest.Desc{Addr: txBuffer, Len: 1, Flags: virtqtest.Write})
	g.none()
	if got := v.Stats().BadChains - before; got != headerLen+3 {
		t.Errorf("%d bad chains counted; want %d", got, headerLen+3)
	}
	// Resets that wait for a buffer are bounded, and so is the memory.
	g.halt()
	g.rxLen = 0
	g.boot()
	for range 5000 {
		g.send(vpacket{op: opRW, srcPort: 5, dstPort: 6})
	}
}

// TestVsockCuts: a packet means the same however it is cut into descriptors.
func TestVsockCuts(t *testing.T) {
	c, _, g := connected(t, virtio.VsockConfig{})
	b := vpacket{op: opRW, srcPort: 1000, dstPort: 9, data: []byte("0123456789")}.right().bytes()
	for cut := range len(b) {
		g.sendRaw(b, cut)
		if got := read(t, c, 10); got != "0123456789" {
			t.Fatalf("cut at %d: read %q", cut, got)
		}
		g.sendRaw(b, cut/2, cut, (cut+len(b))/2)
		if got := read(t, c, 10); got != "0123456789" {
			t.Fatalf("cut at %d, %d, %d: read %q", cut/2, cut, (cut+len(b))/2, got)
		}
	}
	all := make([]int, len(b))
	for i := range all {
		all[i] = i
	}
	for i := 0; i < len(b); i += txSize - 1 { // a chain is no longer than the queue
		g.sendRaw(b, all[i:min(i+txSize-1, len(b))]...)
		if got := read(t, c, 10); got != "0123456789" {
			t.Fatalf("cut at every byte from %d: read %q", i, got)
		}
	}
}

// TestVsockBadBuffers: the buffers that the guest posts are of its own choice.
func TestVsockBadBuffers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		descs []virtqtest.Desc
	}{
		{"too short", []virtqtest.Desc{{Addr: rxBuffers, Len: 43, Flags: virtqtest.Write}}},
		{"of no length", []virtqtest.Desc{{Addr: rxBuffers, Flags: virtqtest.Write}}},
		{"not writable", []virtqtest.Desc{{Addr: rxBuffers, Len: 4096}}},
		{"half not writable", []virtqtest.Desc{{Addr: rxBuffers, Len: 44}, {Addr: rxBuffers, Len: 4096, Flags: virtqtest.Write}}},
		{"behind the end of ram", []virtqtest.Desc{{Addr: ramSize - 20, Len: 4096, Flags: virtqtest.Write}}},
		{"without room for data", []virtqtest.Desc{{Addr: rxBuffers, Len: 44, Flags: virtqtest.Write}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, v, g := connected(t, virtio.VsockConfig{})
			g.halt() // the buffers of the honest driver are gone, and the connection
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read after the driver went: %v; want ECONNRESET", err)
			}
			g.rxLen = 0
			g.boot()
			g.rx.TakeUsed()
			g.dev.Stop(0)
			g.rx.Reset()
			g.rx.Publish(g.rx.Add(tt.descs...))
			g.dev.Start(0, newQueue(t, g.mem, g.rx.Config), g)
			l := listen(t, v, 10)
			g.send(vpacket{op: opRequest, srcPort: 1, dstPort: 10})
			d := accept(t, l)
			if _, err := d.Write([]byte("data")); err != nil {
				t.Fatal(err)
			}
			deadline := time.Now().Add(5 * time.Second)
			var used []virtqtest.Used
			for len(used) == 0 && time.Now().Before(deadline) {
				used = append(used, g.rx.TakeUsed()...)
				time.Sleep(time.Millisecond)
			}
			if tt.name != "without room for data" && (len(used) != 1 || used[0].Len != 0) {
				t.Fatalf("given back %+v; want one buffer with nothing in it", used)
			}
			// A good one after it gets what the bad one did not.
			g.rx.Publish(g.rx.Add(virtqtest.Desc{Addr: rxBuffers + 0x10000, Len: 4096, Flags: virtqtest.Write}))
			g.dev.Kick(0)
			used = nil
			for len(used) == 0 && time.Now().Before(deadline) {
				used = append(used, g.rx.TakeUsed()...)
				time.Sleep(time.Millisecond)
			}
			b := make([]byte, 44)
			if err := g.mem.Read(rxBuffers+0x10000, b); err != nil || len(used) == 0 {
				t.Fatalf("%v, %+v", err, used)
			}
			if p := parsePacket(b); p.op != opResponse && p.op != opRW {
				t.Errorf("then came %+v", p)
			}
		})
	}
}

// TestVsockCredit: what the guest says of its buffer limits what it is sent,
// modulo 2^32, and lies stop the stream and nothing else.
func TestVsockCredit(t *testing.T) {
	c, _, g := connected(t, virtio.VsockConfig{Buffer: 8192})
	say := func(alloc, fwd uint32) {
		g.send(vpacket{op: opCreditUpdate, srcPort: 1000, dstPort: 9, bufAlloc: alloc, fwdCnt: fwd})
	}
	got := 0
	take := func() (n int) {
		time.Sleep(20 * time.Millisecond)
		for _, p := range g.used() {
			n += len(p.data)
		}
		got += n
		return n
	}
	say(100, 0)
	if n, err := c.Write(make([]byte, 8192)); n != 8192 || err != nil {
		t.Fatalf("write = %d, %v", n, err)
	}
	for _, step := range []struct {
		alloc, fwd uint32
		want       int
	}{
		{100, 0, 100},         // no more than that
		{100, 0, 0},           // said again
		{100, 60, 60},         // it has read some
		{50, 100, 0},          // a smaller buffer: 60 under way
		{100, 161, 0},         // it has read what was never sent
		{100, 0xffffffff, 0},  // or less than nothing
		{0xffffffff, 0, 8032}, // room for all the rest
	} {
		say(step.alloc, step.fwd)
		if n := take(); n != step.want {
			t.Errorf("buf_alloc %d, fwd_cnt %d: %d bytes came; want %d", step.alloc, step.fwd, n, step.want)
		}
	}
	if got != 8192 {
		t.Errorf("%d bytes came; want 8192", got)
	}

	// Our own credit goes round, too: more than 2^32 bytes would take too long
	// here, but the buffer is used many times over, and never overrun.
	for range 100 {
		g.send(vpacket{op: opRW, srcPort: 1000, dstPort: 9, data: make([]byte, 8192), fwdCnt: 8192})
		read(t, c, 8192)
	}
	updates := 0
	for _, p := range g.recv() {
		if p.op == opCreditUpdate {
			updates++
		}
	}
	if updates == 0 {
		t.Error("no credit update in 100 buffers")
	}
}

// TestVsockBlocked: a writer without credit waits, for its deadline or for the
// guest, and asks it once.
func TestVsockBlocked(t *testing.T) {
	c, _, g := connected(t, virtio.VsockConfig{Buffer: 4096})
	g.send(vpacket{op: opCreditUpdate, srcPort: 1000, dstPort: 9, bufAlloc: 10, fwdCnt: 0})
	c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := c.Write(make([]byte, 10000))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n < 4096 || n > 4106 {
		t.Errorf("write = %d, %v; want some 4096 and its deadline", n, err)
	}
	ops := map[uint16]int{}
	for range 2 {
		for _, p := range g.used() {
			ops[p.op]++
		}
		time.Sleep(10 * time.Millisecond)
	}
	if ops[opRW] != 1 || ops[opCreditRequest] != 1 || len(ops) != 2 {
		t.Errorf("packets by op %v; want data and one credit request", ops)
	}
	g.send(vpacket{op: opShutdown, flags: 1, srcPort: 1000, dstPort: 9})
	c.SetWriteDeadline(time.Time{})
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to a guest that reads no more: %v; want EPIPE", err)
	}
}

// TestVsockEnds: how a connection ends for the one that reads.
func TestVsockEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ends   []vpacket
		halt   bool
		want   error // of the read behind the data
		answer uint16
	}{
		{"the guest sends no more", []vpacket{{op: opShutdown, flags: 2}}, false, io.EOF, 0},
		{"the guest closes", []vpacket{{op: opShutdown, flags: 3}}, false, io.EOF, opReset},
		{"the guest closes in two steps", []vpacket{{op: opShutdown, flags: 2}, {op: opShutdown, flags: 1}}, false, io.EOF, opReset},
		{"the guest resets", []vpacket{{op: opReset}}, false, syscall.ECONNRESET, 0},
		{"the guest ends and resets", []vpacket{{op: opShutdown, flags: 2}, {op: opReset}}, false, io.EOF, 0},
		{"the guest reboots", nil, true, syscall.ECONNRESET, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _, g := connected(t, virtio.VsockConfig{})
			g.send(vpacket{op: opRW, srcPort: 1000, dstPort: 9, data: []byte("last words")})
			for _, p := range tt.ends {
				p.srcPort, p.dstPort = 1000, 9
				g.send(p)
			}
			if tt.halt {
				g.halt()
			}
			if tt.answer != 0 {
				g.one(tt.answer)
			}
			if got := read(t, c, 10); got != "last words" {
				t.Errorf("read %q", got)
			}
			if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, tt.want) {
				t.Errorf("read = %d, %v; want %v", n, err, tt.want)
			}
		})
	}
}

// TestVsockReboot: a guest that starts anew finds the listeners, and nothing of
// what was before.
func TestVsockReboot(t *testing.T) {
	v, g := newVsock(t, virtio.VsockConfig{})
	l := listen(t, v, 9)
	for range 50 {
		g.send(vpacket{op: opRequest, srcPort: 1000, dstPort: 9})
		c := accept(t, l)
		done := make(chan error)
		go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
		if _, err := c.Write(make([]byte, 100000)); err != nil {
			t.Fatal(err)
		}
		g.halt()
		if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read: %v; want ECONNRESET", err)
		}
		for _, i := range []int{0, 1, 2, 99, -1} { // kicks without queues do nothing
			g.dev.Kick(i)
		}
		g.boot()
	}
	g.none()
}

// TestVsockHeld: a buffer that was taken for a packet that is not to be sent
// any more is kept for the next one, and given back in the end.
func TestVsockHeld(t *testing.T) {
	for range 30 {
		c, _, g := connected(t, virtio.VsockConfig{})
		credit := func(n uint32) { g.send(vpacket{op: opCreditUpdate, srcPort: 1000, dstPort: 9, bufAlloc: n}) }
		credit(1)
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		for i := range uint32(200) {
			credit(i + 2)
			credit(1)
		}
		g.halt() // which judges
	}
}

// TestVsockNotify: the guest is asked for a kick of the receive queue only when
// a packet waits for a buffer, for a kick stops it.
func TestVsockNotify(t *testing.T) {
	c, _, g := connected(t, virtio.VsockConfig{})
	if flags, _ := g.rx.UsedHead(); flags != 1 {
		t.Errorf("with buffers the flags of the used ring are %d; want 1, no kicks", flags)
	}
	go c.Write(make([]byte, 300<<10)) // more than the buffers hold
	for limit := time.Now().Add(10 * time.Second); ; {
		if _, idx := g.rx.UsedHead(); idx == g.rx.AvailIdx {
			break
		} else if time.Now().After(limit) {
			t.Fatalf("%d of %d buffers used after 10 s", idx, g.rx.AvailIdx)
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if flags, _ := g.rx.UsedHead(); flags != 0 {
		t.Errorf("without buffers the flags are %d; want 0, a kick", flags)
	}
}

// TestVsockBounded: a guest that gives no buffers and opens, breaks and reboots
// as often as it likes leaves nothing in memory.
func TestVsockBounded(t *testing.T) {
	v, g := newVsock(t, virtio.VsockConfig{Buffer: 4096, MaxConns: 16})
	l := listen(t, v, 9)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write(make([]byte, 100))
			c.Close()
		}
	}()
	g.halt()
	round := func() {
		g.rx.Reset() // no buffers
		g.tx.Reset()
		for i, d := range []*virtqtest.Driver{g.rx, g.tx} {
			g.queues[i] = newQueue(t, g.mem, d.Config)
			g.dev.Start(i, g.queues[i], g)
		}
		for i := range uint32(16) {
			g.send(vpacket{op: opRequest, srcPort: i, dstPort: 9})
			g.send(vpacket{op: opRW, srcPort: i, dstPort: 9, data: make([]byte, 4096)})
			if i%2 == 0 {
				g.send(vpacket{op: 99, srcPort: i, dstPort: 9})
			}
		}
		g.halt()
	}
	round()
	before := heap()
	for range 300 {
		round()
	}
	l.Close()
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("the heap has grown by %d bytes in 300 rounds", grown)
	}
}

// TestVsockBrokenRing: the queue is dead, the device tells so once, and
// whoever waited does not wait any more.
func TestVsockBrokenRing(t *testing.T) {
	for i, name := range []string{"receive", "transmit"} {
		t.Run(name, func(t *testing.T) {
			c, v, g := connected(t, virtio.VsockConfig{})
			[]*virtqtest.Driver{g.rx, g.tx}[i].SetAvailIdx(30000)
			if i == 0 {
				// The buffers that were good are used up before it is looked at.
				go c.Write(make([]byte, 300<<10))
			} else {
				g.dev.Kick(1)
			}
			select {
			case err := <-g.broken:
				if !strings.Contains(err.Error(), "30000") {
					t.Errorf("broken: %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the device does not notice")
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v; want ECONNRESET", err)
			}
			if _, err := v.Dial(t.Context(), 1); !errors.Is(err, virtio.ErrDown) {
				t.Errorf("dial: %v; want ErrDown", err)
			}
			g.halt()
			g.boot()
			if len(g.broken) != 0 {
				t.Errorf("and again: %v", <-g.broken)
			}
		})
	}
}

// TestVsockLinger: what was written before Close is still sent, then the end is
// told, and a guest that does not answer is waited for 8 seconds.
func TestVsockLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, v, g := connected(t, virtio.VsockConfig{})
		g.send(vpacket{op: opCreditUpdate, srcPort: 1000, dstPort: 9, bufAlloc: 3})
		if _, err := c.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		c.Close()
		synctest.Wait()
		got := ""
		for _, p := range g.used() {
			got += string(p.data)
			if p.op == opShutdown {
				t.Error("the end is told before the last words")
			}
		}
		g.send(vpacket{op: opCreditUpdate, srcPort: 1000, dstPort: 9, bufAlloc: 100, fwdCnt: 3})
		synctest.Wait()
		ends := 0
		for _, p := range g.used() {
			got += string(p.data)
			if p.op == opShutdown && p.flags == 3 {
				ends++
			}
		}
		if got != "last words" || ends != 1 {
			t.Errorf("the guest got %q and %d ends", got, ends)
		}
		// What comes now is of no use to anybody, and no offence.
		g.send(vpacket{op: opRW, srcPort: 1000, dstPort: 9, data: []byte("late")})
		time.Sleep(7900 * time.Millisecond)
		g.none()
		time.Sleep(100 * time.Millisecond)
		if p := g.one(opReset); p.dstPort != 1000 {
			t.Errorf("the reset is %+v", p)
		}
		g.send(vpacket{op: opRW, srcPort: 1000, dstPort: 9, data: []byte("later")})
		g.one(opReset) // there is no such connection
		if s := v.Stats(); s.Violations != 0 || s.Refused != 1 {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestVsockClose(t *testing.T) {
	c, v, g := connected(t, virtio.VsockConfig{})
	l := listen(t, v, 10)
	v.Close()
	v.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v; want net.ErrClosed", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v; want net.ErrClosed", err)
	}
	if _, err := v.Listen(11); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listen: %v; want net.ErrClosed", err)
	}
	if _, err := v.Dial(t.Context(), 11); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial: %v; want net.ErrClosed", err)
	}
	g.send(vpacket{op: opRequest, srcPort: 1000, dstPort: 10})
}

func TestVsockDevice(t *testing.T) {
	for _, cfg := range []virtio.VsockConfig{{CID: 0}, {CID: 2}, {CID: 0xffffffff}, {CID: 3, Buffer: 100}, {CID: 3, MaxConns: -1}} {
		if _, err := virtio.NewVsock(cfg); err == nil {
			t.Errorf("NewVsock(%+v) took it", cfg)
		}
	}
	v, _ := newVsock(t, virtio.VsockConfig{CID: 0x12345})
	var d virtio.Device = v
	b := make([]byte, 10)
	d.WriteConfig(0, []byte{9, 9})
	d.ReadConfig(0, b)
	if binary.LittleEndian.Uint64(b) != 0x12345 || b[8] != 0 {
		t.Errorf("config space %x", b)
	}
	if d.Type() != 19 || d.Features() != 1<<32 || len(d.Queues()) != 3 {
		t.Errorf("type %d, features %#x, queues %v", d.Type(), d.Features(), d.Queues())
	}
}
