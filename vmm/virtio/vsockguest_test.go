package virtio_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq"
	"sekimori/vmm/virtq/virtqtest"
)

const (
	guestCID = 3
	hostCID  = 2
	stream   = 1

	opRequest       = 1
	opResponse      = 2
	opReset         = 3
	opShutdown      = 4
	opRW            = 5
	opCreditUpdate  = 6
	opCreditRequest = 7

	headerLen = 44
)

// A vpacket is a packet as it lies in a buffer. In those that a test sends, 0
// stands for what is right: the two addresses, the type, the length.
type vpacket struct {
	src, dst         uint64
	srcPort, dstPort uint32
	n                uint32
	kind, op         uint16
	flags            uint32
	bufAlloc, fwdCnt uint32
	data             []byte
}

func (p vpacket) bytes() []byte {
	b := make([]byte, headerLen, headerLen+len(p.data))
	le := binary.LittleEndian
	le.PutUint64(b[0:], p.src)
	le.PutUint64(b[8:], p.dst)
	le.PutUint32(b[16:], p.srcPort)
	le.PutUint32(b[20:], p.dstPort)
	le.PutUint32(b[24:], p.n)
	le.PutUint16(b[28:], p.kind)
	le.PutUint16(b[30:], p.op)
	le.PutUint32(b[32:], p.flags)
	le.PutUint32(b[36:], p.bufAlloc)
	le.PutUint32(b[40:], p.fwdCnt)
	return append(b, p.data...)
}

func parsePacket(b []byte) vpacket {
	le := binary.LittleEndian
	return vpacket{
		src: le.Uint64(b[0:]), dst: le.Uint64(b[8:]), srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]),
		n: le.Uint32(b[24:]), kind: le.Uint16(b[28:]), op: le.Uint16(b[30:]), flags: le.Uint32(b[32:]),
		bufAlloc: le.Uint32(b[36:]), fwdCnt: le.Uint32(b[40:]), data: b[headerLen:],
	}
}

// A vguest is the driver of a socket device: 64 buffers of rxLen bytes for
// what comes, and one large one for what goes, used over and over, as the
// device takes a packet before Kick returns.
type vguest struct {
	t      testing.TB
	dev    *virtio.Vsock
	mem    *guestmem.Memory
	rx, tx *virtqtest.Driver
	queues [2]*virtq.Queue
	rxLen  int
	irq    chan struct{} // of the receive queue
	broken chan error

	mu     sync.Mutex // guards tx
	fwdCnt map[[2]uint32]uint32
}

const (
	rxSize, txSize = 64, 16
	rxBase         = 0x10000
	txBase         = 0x20000
	rxBuffers      = 0x100000
	txBuffer       = 0x800000
	ramSize        = 0x900000
)

func (g *vguest) Interrupt(i int) {
	if i == 0 {
		select {
		case g.irq <- struct{}{}:
		default:
		}
	}
}

func (g *vguest) Broken(i int, err error) { g.broken <- err }

// newVsock returns a device with a driver that has given it rxSize buffers.
func newVsock(t testing.TB, cfg virtio.VsockConfig) (*virtio.Vsock, *vguest) {
	t.Helper()
	if cfg.CID == 0 {
		cfg.CID = guestCID
	}
	v, err := virtio.NewVsock(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	mem, err := guestmem.FromSlices(guestmem.Slice{Bytes: make([]byte, ramSize)})
	if err != nil {
		t.Fatal(err)
	}
	g := &vguest{t: t, dev: v, mem: mem, rxLen: 4096, irq: make(chan struct{}, 1), broken: make(chan error, 3), fwdCnt: map[[2]uint32]uint32{}}
	g.boot()
	return v, g
}

// boot starts the driver, which posts its buffers.
func (g *vguest) boot() {
	g.t.Helper()
	g.rx, g.tx = virtqtest.New(g.mem, rxBase, rxSize), virtqtest.New(g.mem, txBase, txSize)
	g.post(rxSize)
	for i, d := range []*virtqtest.Driver{g.rx, g.tx} {
		q, err := virtq.New(g.mem, d.Config)
		if err != nil {
			g.t.Fatal(err)
		}
		g.queues[i] = q
		g.dev.Start(i, q, g)
	}
}

// halt stops the driver. Whatever the device took it has given back.
func (g *vguest) halt() {
	g.t.Helper()
	for i := range 3 {
		g.dev.Stop(i)
	}
	for i, d := range []*virtqtest.Driver{g.rx, g.tx} {
		if _, used := d.UsedHead(); g.queues[i].Broken() == nil && g.queues[i].Next() != used {
			g.t.Errorf("queue %d: %d chains taken, %d given back", i, g.queues[i].Next(), used)
		}
	}
}

// post gives n buffers to the device, the ones that were given back longest ago.
func (g *vguest) post(n int) {
	for range n {
		slot := int(g.rx.AvailIdx) % rxSize
		head := g.rx.Add(virtqtest.Desc{Addr: guestmem.GPA(rxBuffers + slot*0x10000), Len: uint32(g.rxLen), Flags: virtqtest.Write})
		g.rx.Publish(head)
	}
	g.dev.Kick(0)
}

// used returns the packets that came, and posts their buffers again.
func (g *vguest) used() []vpacket {
	var all []vpacket
	used := g.rx.TakeUsed()
	for _, u := range used {
		if u.Len < headerLen || int(u.Len) > g.rxLen {
			g.t.Errorf("a packet of %d bytes", u.Len)
			continue
		}
		b := make([]byte, u.Len)
		if err := g.mem.Read(guestmem.GPA(rxBuffers+int(u.Head)*0x10000), b); err != nil {
			g.t.Error(err)
		}
		p := parsePacket(b)
		if int(p.n) != len(p.data) || p.src != hostCID || p.dst != guestCID || p.kind != stream && p.op != opReset {
			g.t.Errorf("the device sent %+v", p)
		}
		all = append(all, p)
	}
	if len(used) > 0 {
		g.post(len(used))
	}
	return all
}

// recv waits for packets.
func (g *vguest) recv() []vpacket {
	g.t.Helper()
	for limit := time.After(10 * time.Second); ; {
		if all := g.used(); len(all) > 0 {
			return all
		}
		select {
		case <-g.irq:
		case <-limit:
			g.t.Fatal("no packet for 10 s")
		}
	}
}

// one waits for one packet, and wants no more.
func (g *vguest) one(op uint16) vpacket {
	g.t.Helper()
	all := g.recv()
	if len(all) != 1 || all[0].op != op {
		g.t.Fatalf("packets %+v; want one with op %d", all, op)
	}
	return all[0]
}

// none wants no packet within a short time.
func (g *vguest) none() {
	g.t.Helper()
	time.Sleep(20 * time.Millisecond)
	if all := g.used(); len(all) > 0 {
		g.t.Errorf("packets %+v; want none", all)
	}
}

// right fills in what a test leaves out.
func (p vpacket) right() vpacket {
	if p.src == 0 {
		p.src = guestCID
	}
	if p.dst == 0 {
		p.dst = hostCID
	}
	if p.kind == 0 {
		p.kind = stream
	}
	if p.n == 0 {
		p.n = uint32(len(p.data))
	}
	if p.bufAlloc == 0 {
		p.bufAlloc = 1 << 20
	}
	return p
}

// send sends a packet.
func (g *vguest) send(p vpacket) { g.sendRaw(p.right().bytes(), 0) }

// sendRaw sends bytes, in descriptors that end at the cuts.
func (g *vguest) sendRaw(b []byte, cuts ...int) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.mem.Write(txBuffer, b); err != nil {
		g.t.Fatal(err)
	}
	var descs []virtqtest.Desc
	at := 0
	for _, cut := range append(cuts, len(b)) {
		if cut > at || cut == len(b) {
			descs = append(descs, virtqtest.Desc{Addr: guestmem.GPA(txBuffer + at), Len: uint32(cut - at)})
			at = cut
		}
	}
	g.tx.Publish(g.tx.Add(descs...))
	g.dev.Kick(1)
	if used := g.tx.TakeUsed(); len(used) != 1 || used[0].Len != 0 {
		g.t.Fatalf("given back %+v; want one chain with nothing in it", used)
	}
}

// A vwire connects two devices, each of which takes the other for its guest.
type vwire struct {
	a, b *vguest
	stop chan struct{}
	wg   sync.WaitGroup
}

func newWire(a, b *vguest) *vwire {
	w := &vwire{a: a, b: b, stop: make(chan struct{})}
	w.wg.Go(func() { w.run(a, b) })
	w.wg.Go(func() { w.run(b, a) })
	return w
}

// run carries what from's host sends to to's, with the addresses exchanged.
func (w *vwire) run(from, to *vguest) {
	for {
		select {
		case <-from.irq:
		case <-w.stop:
			return
		}
		for all := from.used(); len(all) > 0; all = from.used() {
			for _, p := range all {
				p.src, p.dst = guestCID, hostCID
				to.sendRaw(p.bytes())
			}
		}
	}
}

func (w *vwire) close() { close(w.stop); w.wg.Wait() }

func newQueue(t testing.TB, mem *guestmem.Memory, cfg virtq.Config) *virtq.Queue {
	t.Helper()
	q, err := virtq.New(mem, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return q
}
