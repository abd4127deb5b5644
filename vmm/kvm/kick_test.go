package kvm_test

import (
	"slices"
	"testing"

	gokvm "github.com/bobuhiro11/gokvm/kvm"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/kvm"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq/virtqtest"
)

// Where the driver of a mini-guest has its things, and the card its registers.
const (
	card   = 0xd000_0000
	txRing = 0x300000
	txBuf  = 0x310000
	mark   = 0x320000 // what the guest stores after its kick
)

// A driver is a guest that brings up the transmit queue of a card and sends
// one frame for each kick.
type driver struct {
	t     testing.TB
	ring  *virtqtest.Driver
	code  code
	setup func(*gokvm.Regs, *gokvm.Sregs)
	kicks int
}

// newDriver begins the program with the sequence of virtio 1.2, 3.1.1.
func newDriver(t testing.TB) *driver {
	d := &driver{t: t}
	lay, err := guestmem.New(4 << 20) // to know where the parts of the ring lie
	if err != nil {
		t.Fatal(err)
	}
	defer lay.Close()
	c := virtqtest.New(lay, txRing, 256).Config
	for _, w := range [][2]uint64{
		{0x70, 1}, {0x70, 3}, {0x24, 1}, {0x20, 1}, {0x24, 0}, {0x20, 0}, {0x70, 11},
		{0x30, 1}, {0x38, 256}, {0x80, uint64(c.Desc)}, {0x90, uint64(c.Avail)}, {0xa0, uint64(c.Used)}, {0x44, 1}, {0x70, 15},
	} {
		d.code = d.code.store(card+w[0], uint32(w[1]))
	}
	return d
}

// kick makes the next frame available, notifies the card and marks that it has
// gone on.
func (d *driver) kick() *driver {
	d.kicks++
	d.code = d.code.store(txRing+16*256, uint32(d.kicks)<<16). // flags and index of the available ring
									store(card+0x50, 1).store(mark, uint32(d.kicks))
	return d
}

// image is the guest, which turns itself off in the end.
func (d *driver) image() kvm.Program {
	p := program(d.code.off())
	p.Init = func(mem *guestmem.Memory, r *gokvm.Regs, s *gokvm.Sregs) error {
		d.ring = virtqtest.New(mem, txRing, 256)
		for i := range d.kicks {
			head := d.ring.Add(virtqtest.Desc{Addr: txBuf, Len: 12 + 60})
			d.ring.SetSlot(uint16(i), head)
		}
		frame := make([]byte, 12+60)
		for i := range 60 {
			frame[12+i] = byte(i)
		}
		if d.setup != nil {
			d.setup(r, s)
		}
		return mem.Write(txBuf, frame)
	}
	return p
}

// A backend takes frames on the thread that kicked.
type backend struct{ transmit func([]byte) }

func (b *backend) Transmit(f []byte, _ uint16)            { b.transmit(f) }
func (b *backend) Refuse([]byte, uint16, virtio.NetFault) {}

// TestKick: the registers are those of the processor that kicked, and what it
// kicked for is done with before it goes on.
func TestKick(t *testing.T) {
	const gs = 0xffff_8880_1234_5000
	d := newDriver(t).kick().kick().kick()
	d.setup = func(r *gokvm.Regs, s *gokvm.Sregs) { r.RSP, s.GS.Base, s.TR.Base = 0x180000, gs, 0x190000 }
	var m *kvm.Machine
	ready := make(chan bool) // m is assigned
	var order []string
	check := func(what string) {
		<-ready
		got, err := m.Memory().Load32(mark)
		if want := uint32(len(order) / 2); err != nil || got != want {
			t.Errorf("%s: the guest went on: %d, %v; want %d", what, got, err, want)
		}
		order = append(order, what)
	}
	var regs []kvm.Regs
	net, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: &backend{func(f []byte) {
		if len(f) != 60 || f[59] != 59 {
			t.Errorf("frame % x", f)
		}
		check("frame")
	}}})
	if err != nil {
		t.Fatal(err)
	}
	m = start(t, kvm.Config{Image: d.image(), Devices: []kvm.Device{{Virtio: net, Kicked: func(r *kvm.Regs, queue int) {
		if queue != 1 {
			t.Errorf("queue %d", queue)
		}
		if _, err := r.KernelGSBase(); err != nil {
			t.Error(err)
		}
		check("kick")
		regs = append(regs, *r)
	}}}})
	close(ready)
	if err := m.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"kick", "frame", "kick", "frame", "kick", "frame"}; !slices.Equal(order, want) {
		t.Errorf("%q; want %q", order, want)
	}
	for _, r := range regs {
		if r.CPU != 0 || r.CPL != 0 || r.GSBase != gs || r.RSP != 0x180000 || r.TRBase != 0x190000 ||
			r.CR3 != 0x9000 || r.RIP < at || r.RIP > at+uint64(len(d.code)) || r.EFER&(1<<10) == 0 || r.CR0&1 == 0 {
			t.Errorf("registers %+v", r)
		}
	}
}
