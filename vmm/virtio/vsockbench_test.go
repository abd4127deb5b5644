package virtio_test

import (
	"io"
	"testing"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq/virtqtest"
)

// BenchmarkVsockOut is a guest that sends packets of 64 KiB, as Linux does, to
// a program on the host that reads them: without a kernel on the other side,
// so what the device itself costs.
func BenchmarkVsockOut(b *testing.B) {
	v, g := newVsock(b, virtio.VsockConfig{})
	l := listen(b, v, 9)
	g.send(vpacket{op: opRequest, srcPort: 1000, dstPort: 9})
	c, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	const n = 64 << 10
	p := vpacket{op: opRW, srcPort: 1000, dstPort: 9, data: make([]byte, n)}.right().bytes()
	if err := g.mem.Write(txBuffer, p); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, n)
	b.SetBytes(n)
	for b.Loop() {
		g.tx.Publish(g.tx.Add(virtqtest.Desc{Addr: txBuffer, Len: uint32(len(p))}))
		g.dev.Kick(1)
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVsockIn is a program on the host that writes to a guest with buffers
// of 4 KiB, as Linux posts them, which it gives back as they come.
func BenchmarkVsockIn(b *testing.B) {
	v, g := newVsock(b, virtio.VsockConfig{})
	l := listen(b, v, 9)
	g.send(vpacket{op: opRequest, srcPort: 1000, dstPort: 9, bufAlloc: 0x7fffffff})
	c, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var head [headerLen]byte
		var got uint32
		for {
			select {
			case <-g.irq:
			case <-stop:
				return
			}
			for used := g.rx.TakeUsed(); len(used) > 0; used = g.rx.TakeUsed() {
				for _, u := range used {
					_ = g.mem.Read(guestmem.GPA(rxBuffers+int(u.Head)*0x10000), head[:])
					got += u.Len - headerLen
				}
				g.post(len(used))
			}
			g.send(vpacket{op: opCreditUpdate, srcPort: 1000, dstPort: 9, bufAlloc: 0x7fffffff, fwdCnt: got})
		}
	}()
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	close(stop)
	<-done
}

// BenchmarkVsockEcho is a guest that sends 64 bytes and waits for them to come
// back from a program on the host.
func BenchmarkVsockEcho(b *testing.B) {
	v, g := newVsock(b, virtio.VsockConfig{})
	l := listen(b, v, 9)
	g.send(vpacket{op: opRequest, srcPort: 1000, dstPort: 9})
	c, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	go io.Copy(c, struct{ io.Reader }{c})
	g.one(opResponse)
	got := uint32(0)
	p := vpacket{op: opRW, srcPort: 1000, dstPort: 9, data: make([]byte, 64)}
	for b.Loop() {
		p.fwdCnt = got
		g.send(p)
		for want := got + 64; got != want; {
			for _, p := range g.recv() {
				got += uint32(len(p.data))
			}
		}
	}
}
