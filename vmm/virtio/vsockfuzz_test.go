package virtio_test

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"sekimori/vmm/virtio"
)

// FuzzVsock has a guest that sends any packets and gives, takes and restarts
// its queues as it likes, to a host that echoes. What must hold: every packet
// the device sends is well formed, every chain it takes is given back, its
// memory is bounded, every call returns, and an honest connection works
// afterwards.
//
// An input is steps of 16 bytes: what to do, then the fields of a packet.
func FuzzVsock(f *testing.F) {
	step := func(what, op byte, port uint16, flags byte, n uint16, alloc, fwd uint32) []byte {
		b := []byte{what, op, byte(port), byte(port >> 8), flags, 0, byte(n), byte(n >> 8)}
		b = binary.LittleEndian.AppendUint32(b, alloc)
		return binary.LittleEndian.AppendUint32(b, fwd)
	}
	open := step(0, opRequest, 1, 0, 0, 1<<16, 0)
	f.Add(bytes.Join([][]byte{open, step(0, opRW, 1, 0, 100, 1<<16, 0), step(0, opShutdown, 1, 3, 0, 1<<16, 100)}, nil))
	f.Add(bytes.Join([][]byte{open, step(0, opRW, 1, 0, 5000, 1<<16, 0), step(0, opReset, 1, 0, 0, 0, 0)}, nil))
	f.Add(bytes.Join([][]byte{open, step(1, 0, 0, 0, 0, 0, 0), open, step(0, opRW, 1, 0, 10, 0, 0xffffffff), step(0, opCreditRequest, 1, 0, 0, 1, 1)}, nil))
	f.Add(bytes.Join([][]byte{step(0, opRW, 7, 0, 10, 0, 0), step(2, 3, 0, 0, 0, 0, 0), open, open}, nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		v, g := newVsock(t, virtio.VsockConfig{Buffer: 4096, MaxConns: 8})
		l := listen(t, v, 9)
		go func() { // echoes until the listener ends
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					c.SetDeadline(time.Now().Add(5 * time.Second))
					b := make([]byte, 1000)
					for {
						n, err := c.Read(b)
						if err != nil {
							return
						}
						if _, err := c.Write(b[:n]); err != nil {
							return
						}
					}
				}()
			}
		}()
		before := heap()
		for len(in) >= 16 {
			fuzzStep(g, in[:16])
			in = in[16:]
			g.used() // which judges the packets
		}
		if grown := heap() - before; grown > 8*2*4096+1<<20 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}
		g.halt()
		g.boot()
		g.used()
		g.send(vpacket{op: opRequest, srcPort: 1000, dstPort: 9})
		g.send(vpacket{op: opRW, srcPort: 1000, dstPort: 9, data: []byte("honest")})
		var got []byte
		for string(got) != "honest" {
			for _, p := range g.recv() {
				if p.dstPort == 1000 && p.op == opRW {
					got = append(got, p.data...)
				}
			}
			if len(got) > 6 {
				t.Fatalf("echoed %q", got)
			}
		}
	})
}

func fuzzStep(g *vguest, b []byte) {
	what, op, port := b[0], uint16(b[1]), uint32(binary.LittleEndian.Uint16(b[2:]))
	n := binary.LittleEndian.Uint16(b[6:])
	switch what % 8 {
	default:
		p := vpacket{op: op, srcPort: port, dstPort: 9, flags: uint32(b[4]), data: make([]byte, n),
			bufAlloc: binary.LittleEndian.Uint32(b[8:]), fwdCnt: binary.LittleEndian.Uint32(b[12:])}.right()
		if b[5] > 200 { // a length that lies, a foreign type or address
			p.n, p.kind, p.src = uint32(n)*uint32(b[5]), uint16(b[5]), uint64(b[5]-198)
		}
		g.sendRaw(p.bytes(), int(op)%44)
	case 1:
		g.halt()
		g.boot()
	case 2:
		g.dev.Stop(int(op) % 4)
	case 3:
		g.dev.Kick(int(op))
	}
	if what%8 == 2 { // what is stopped is started again with the rest
		g.halt()
		g.boot()
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
