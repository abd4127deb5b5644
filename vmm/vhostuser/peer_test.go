package vhostuser_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
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

// Requests, by their numbers on the wire.
const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	setMemTable         = 5
	setVringNum         = 8
	setVringAddr        = 9
	setVringBase        = 10
	getVringBase        = 11
	setVringKick        = 12
	getProtocolFeatures = 15
	setProtocolFeatures = 16
	setVringEnable      = 18
	setBackendReqFD     = 21
	getConfig           = 24
	setConfig           = 25
	vringKick           = 35

	flagVersion   = 1
	flagReply     = 4
	flagNeedReply = 8

	features = 1<<32 | 1<<30 | 1<<16 | 1<<5 | 1<<3
	protocol = 1<<3 | 1<<5 | 1<<9 | 1<<14
)

const (
	ramBase = 0xbe8000 // as User-Mode Linux has it: behind its image
	ramSize = 1 << 20
)

// A peer plays the guest: it sends messages, good ones and bad ones.
type peer struct {
	t      testing.TB
	sock   int
	req    int // interrupts come here
	reqFar int
	ram    int // memfd
	mem    *guestmem.Memory
	rings  [2]*virtqtest.Driver
	served chan error
	cancel context.CancelFunc
}

// dial starts a server of dev, and returns a peer that has said nothing yet.
func dial(t testing.TB, cfg vhostuser.Config) *peer {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[1]), "server")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, sock: pair[0], served: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	var serving sync.WaitGroup
	serving.Go(func() { p.served <- vhostuser.Serve(ctx, conn.(*net.UnixConn), cfg) })

	reqs, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.req, p.reqFar = reqs[0], reqs[1]
	// A server that is stuck is an error of its own, not a test that is stuck.
	if err := unix.SetsockoptTimeval(p.sock, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 200000}); err != nil {
		t.Fatal(err)
	}
	if p.ram, err = unix.MemfdCreate("ram", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(p.ram, ramBase+ramSize); err != nil {
		t.Fatal(err)
	}
	p.mem, err = guestmem.Map(guestmem.File{Base: ramBase, Size: ramSize, FD: p.ram, Offset: ramBase})
	if err != nil {
		t.Fatal(err)
	}
	p.rings[0] = virtqtest.New(p.mem, ramBase, 256)
	p.rings[1] = virtqtest.New(p.mem, ramBase+0x4000, 256)
	t.Cleanup(func() {
		cancel()
		unix.Close(p.sock)
		serving.Wait()
		for _, fd := range []int{p.req, p.reqFar, p.ram} {
			unix.Close(fd)
		}
		p.mem.Close()
	})
	return p
}

// send sends one message and returns the error of that.
func (p *peer) send(request, flags uint32, payload []byte, fds ...int) error {
	var head [12]byte
	binary.LittleEndian.PutUint32(head[0:], request)
	binary.LittleEndian.PutUint32(head[4:], flags)
	binary.LittleEndian.PutUint32(head[8:], uint32(len(payload)))
	return p.raw(slices.Concat(head[:], payload), fds...)
}

func (p *peer) raw(b []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, err := unix.SendmsgN(p.sock, b, oob, nil, unix.MSG_NOSIGNAL)
	return err
}

// reply reads an answer.
func (p *peer) reply() (request uint32, payload []byte, err error) {
	head := make([]byte, 12)
	if err := readFull(p.sock, head); err != nil {
		return 0, nil, err
	}
	if flags := binary.LittleEndian.Uint32(head[4:]); flags != flagVersion|flagReply {
		p.t.Errorf("answer with flags %#x", flags)
	}
	payload = make([]byte, binary.LittleEndian.Uint32(head[8:]))
	return binary.LittleEndian.Uint32(head), payload, readFull(p.sock, payload)
}

func readFull(fd int, b []byte) error {
	for done := 0; done < len(b); {
		n, err := unix.Read(fd, b[done:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		default:
			done += n
		}
	}
	return nil
}

// ask sends a request and returns its answer, which has to come.
func (p *peer) ask(request uint32, payload []byte, fds ...int) []byte {
	p.t.Helper()
	if err := p.send(request, flagVersion, payload, fds...); err != nil {
		p.t.Fatalf("request %d: %v", request, err)
	}
	got, b, err := p.reply()
	if err != nil || got != request {
		p.t.Fatalf("answer to %d: request %d, %v", request, got, err)
	}
	return b
}

// do sends a request and returns how it was acknowledged.
func (p *peer) do(request uint32, payload []byte, fds ...int) uint64 {
	p.t.Helper()
	if err := p.send(request, flagVersion|flagNeedReply, payload, fds...); err != nil {
		p.t.Fatalf("request %d: %v", request, err)
	}
	got, b, err := p.reply()
	if err != nil || got != request || len(b) != 8 {
		p.t.Fatalf("acknowledgement of %d: request %d, %x, %v", request, got, b, err)
	}
	return binary.LittleEndian.Uint64(b)
}

// must is do for what has to be accepted.
func (p *peer) must(request uint32, payload []byte, fds ...int) {
	p.t.Helper()
	if status := p.do(request, payload, fds...); status != 0 {
		p.t.Fatalf("request %d: refused (%d): %v", request, status, p.end())
	}
}

// end returns what Serve returned, which has to be soon.
func (p *peer) end() error {
	p.t.Helper()
	select {
	case err := <-p.served:
		p.served <- err
		return err
	case <-time.After(5 * time.Second):
		p.t.Fatal("Serve goes on")
		return nil
	}
}

func u32s(v ...uint32) (b []byte) {
	for _, v := range v {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func u64s(v ...uint64) (b []byte) {
	for _, v := range v {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// region is one of SET_MEM_TABLE: the guest's address, size, the peer's
// address, offset.
func region(gpa, size, user, offset uint64) []byte { return u64s(gpa, size, user, offset) }

func table(regions ...[]byte) []byte {
	return slices.Concat(u32s(uint32(len(regions)), 0), slices.Concat(regions...))
}

var ramTable = table(region(ramBase, ramSize, ramBase, ramBase))

// negotiate does all that comes before the queues.
func (p *peer) negotiate() {
	p.t.Helper()
	p.must(setOwner, nil)
	if got := binary.LittleEndian.Uint64(p.ask(getFeatures, nil)); got != features {
		p.t.Fatalf("features = %#x; want %#x", got, uint64(features))
	}
	if got := binary.LittleEndian.Uint64(p.ask(getProtocolFeatures, nil)); got != protocol {
		p.t.Fatalf("protocol features = %#x; want %#x", got, uint64(protocol))
	}
	p.must(setProtocolFeatures, u64s(protocol))
	p.must(setBackendReqFD, nil, p.reqFar)
	p.must(setFeatures, u64s(features))
	p.must(setMemTable, ramTable, p.ram)
}

// describe tells the server of queue i.
func (p *peer) describe(i uint32) {
	p.t.Helper()
	r := p.rings[i]
	p.must(setVringNum, u32s(i, uint32(r.Size)))
	p.must(setVringBase, u32s(i, 0))
	p.must(setVringAddr, addr(i, r.Config))
}

func addr(i uint32, c virtq.Config) []byte {
	return slices.Concat(u32s(i, 0), u64s(uint64(c.Desc), uint64(c.Used), uint64(c.Avail), ^uint64(0)))
}

// start does all of it: both queues run.
func (p *peer) start() {
	p.t.Helper()
	p.negotiate()
	for i := range uint32(2) {
		p.describe(i)
	}
	for i := range uint32(2) {
		p.must(setVringEnable, u32s(i, 1))
	}
}

// interrupt reads the next interrupt, and returns its queue.
func (p *peer) interrupt() uint32 {
	p.t.Helper()
	if err := unix.SetsockoptTimeval(p.req, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		p.t.Fatal(err)
	}
	b := make([]byte, 20)
	if err := readFull(p.req, b); err != nil {
		p.t.Fatalf("interrupt: %v", err)
	}
	if want := u32s(4, 1, 8); !slices.Equal(b[:12], want) {
		p.t.Fatalf("interrupt = %x; want it to begin with %x", b, want)
	}
	return binary.LittleEndian.Uint32(b[12:])
}

// quiet checks that no interrupt is waiting.
func (p *peer) quiet() {
	p.t.Helper()
	b := make([]byte, 20)
	if n, _, err := unix.Recvfrom(p.req, b, unix.MSG_DONTWAIT); err != unix.EAGAIN {
		p.t.Errorf("interrupt %x, %v; want none", b[:max(n, 0)], err)
	}
}

// A backend records what the guest sends.
type backend struct {
	mu     sync.Mutex
	frames [][]byte
	faults []virtio.NetFault
	during func() // called with each frame
}

func (b *backend) Transmit(frame []byte, head uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frames = append(b.frames, slices.Clone(frame))
	if b.during != nil {
		b.during()
	}
}

// sent returns what came so far.
func (b *backend) sent() ([][]byte, []virtio.NetFault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.frames), slices.Clone(b.faults)
}

func (b *backend) Refuse(frame []byte, head uint16, why virtio.NetFault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, why)
}

// card returns a network device and a peer that drives it.
func card(t testing.TB) (*virtio.Net, *backend, *peer) {
	t.Helper()
	b := &backend{}
	n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2, 0, 0, 0, 0, 2}, Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	return n, b, dial(t, vhostuser.Config{Device: n, MaxMemory: 64 << 20})
}

// Where the tests put their buffers.
const (
	txBuf = ramBase + 0x10000
	rxBuf = ramBase + 0x20000
)

// put makes a frame available on the transmit queue, behind a zero header.
func (p *peer) put(frame []byte) {
	p.t.Helper()
	if err := p.mem.Write(txBuf, slices.Concat(make([]byte, 12), frame)); err != nil {
		p.t.Fatal(err)
	}
	r := p.rings[1]
	r.Publish(r.Add(virtqtest.Desc{Addr: txBuf, Len: uint32(12 + len(frame))}))
}

// post makes n receive buffers available.
func (p *peer) post(n int) {
	r := p.rings[0]
	for i := range n {
		r.Publish(r.Add(virtqtest.Desc{Addr: rxBuf + guestmem.GPA(i%64*2048), Len: 1530, Flags: virtqtest.Write}))
	}
}

func isProtocolError(err error) bool {
	var pe *vhostuser.ProtocolError
	return errors.As(err, &pe)
}
