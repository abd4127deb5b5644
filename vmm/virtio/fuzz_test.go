package virtio_test

import (
	"bytes"
	"testing"
	"time"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq"
)

// FuzzNet gives the card two rings of any content, and kicks it and delivers
// to it while the driver writes what it likes where it likes: no panic, no
// more frames from a kick than the queue has descriptors, none of a length that
// was not to pass, every call returns, and the card can always be stopped and
// started.
func FuzzNet(f *testing.F) {
	f.Add([]byte{}, []byte{0, 1, 2, 3})
	f.Add([]byte{0, 8, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{0, 0, 0, 1, 1})
	f.Add(bytes.Repeat([]byte{0, 1, 0, 3}, 512), []byte{0, 1, 0, 1, 3, 0x10, 0x40, 0, 1, 3, 0x80, 0xff, 0, 1, 2, 0, 1})
	f.Fuzz(func(t *testing.T, image, ops []byte) {
		const size, ringLen = 16, 0x200
		around := bytes.Repeat([]byte{0xa5}, 3*0x4000)
		mem := around[0x4000:0x8000]
		clear(mem)
		copy(mem, image)
		m, err := guestmem.FromSlices(guestmem.Slice{Bytes: mem})
		if err != nil {
			t.Fatal(err)
		}
		r := &counted{t: t}
		n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, MTU: mtu, Backend: r})
		if err != nil {
			t.Fatal(err)
		}
		start := func() {
			for i := range 2 {
				at := guestmem.GPA(i * ringLen)
				q, err := virtq.New(m, virtq.Config{Size: size, Desc: at, Avail: at + 16*size, Used: at + 16*size + 64})
				if err != nil {
					t.Fatal(err)
				}
				n.Start(i, q, r)
			}
		}
		start()
		f := frame(60)
		for len(ops) > 0 {
			op := ops[0]
			ops = ops[1:]
			began := time.Now()
			switch op % 4 {
			case 0:
				r.inKick = 0
				n.Kick(tx)
				if r.inKick > size {
					t.Fatalf("%d frames in one kick of %d descriptors", r.inKick, size)
				}
			case 1:
				if err := n.Deliver(f); err == nil && !bytes.Contains(mem, f) {
					t.Fatal("delivered, but it is nowhere")
				}
			case 2:
				n.Stop(rx)
				n.Stop(tx)
				start()
			case 3:
				if len(ops) < 3 {
					return
				}
				mem[(int(ops[0])|int(op)<<8)%len(mem)] = ops[1]
				mem[ringLen*int(op>>7)+16*size+2] += ops[2] % 4 // the driver's index
				ops = ops[3:]
			}
			if took := time.Since(began); took > time.Second {
				t.Fatalf("operation %d took %v", op%4, took)
			}
		}
		if beside := bytes.Repeat([]byte{0xa5}, 0x4000); !bytes.Equal(around[:0x4000], beside) || !bytes.Equal(around[0x8000:], beside) {
			t.Fatal("bytes beside the RAM were written")
		}
	})
}

// counted checks what comes out of a card.
type counted struct {
	t      *testing.T
	inKick int
}

func (c *counted) Transmit(frame []byte, head uint16) {
	c.inKick++
	if len(frame) < 14 || len(frame) > limit {
		c.t.Errorf("a frame of %d bytes", len(frame))
	}
}

func (c *counted) Refuse(frame []byte, head uint16, why virtio.NetFault) {
	c.inKick++
	if why == 0 || len(frame) > limit+1 {
		c.t.Errorf("refused %d bytes for %v", len(frame), why)
	}
}

func (c *counted) Interrupt(int) {}

func (c *counted) Broken(_ int, err error) {
	if err == nil {
		c.t.Error("broken by no error")
	}
}
