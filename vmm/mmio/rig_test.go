package mmio_test

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/mmio"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq"
	"sekimori/vmm/virtq/virtqtest"
)

// Registers and bits (virtio 1.2, 4.2.2 and 2.1).
const (
	deviceFeatures, deviceSel, driverFeatures, driverSel  = 0x10, 0x14, 0x20, 0x24
	queueSel, queueMax, queueNum, queueReady, queueNotify = 0x30, 0x34, 0x38, 0x44, 0x50
	interruptStatus, interruptACK, deviceStatus           = 0x60, 0x64, 0x70
	queueDesc, queueDriver, queueDevice, config           = 0x80, 0x90, 0xa0, 0x100
	acknowledge, driver, driverOK, featuresOK, needsReset = 1, 2, 4, 8, 64
	rx, tx                                                = 0, 1
	ram, txBuf, rxBuf                                     = 0x50000, 0x20000, 0x40000
	beside                                                = 0x4000 // canary on either side of the RAM
)

// A rig is a card behind registers, the driver's side, and what came of it.
type rig struct {
	t          testing.TB
	regs       *mmio.Registers
	net        *virtio.Net
	mem        *guestmem.Memory
	around     []byte // the RAM and what lies beside it
	drivers    [2]*virtqtest.Driver
	frames     [][]byte
	refused    []virtio.NetFault
	interrupts atomic.Int32
}

func (r *rig) Transmit(frame []byte, _ uint16) { r.frames = append(r.frames, slices.Clone(frame)) }
func (r *rig) Refuse(_ []byte, _ uint16, why virtio.NetFault) {
	r.refused = append(r.refused, why)
}

// newRig makes a card that no driver has touched.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, around: make([]byte, ram+2*beside)}
	for i := range beside {
		r.around[i], r.around[beside+ram+i] = 0xa5, 0xa5
	}
	var err error
	if r.mem, err = guestmem.FromSlices(guestmem.Slice{Bytes: r.around[beside : beside+ram]}); err != nil {
		t.Fatal(err)
	}
	if r.net, err = virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2, 0, 0, 0, 0, 7}, Backend: r}); err != nil {
		t.Fatal(err)
	}
	r.regs = mmio.New(mmio.Config{Device: r.net, Memory: r.mem, Interrupt: func() { r.interrupts.Add(1) }})
	for i := range r.drivers {
		r.drivers[i] = virtqtest.New(r.mem, guestmem.GPA(i*0x8000), 256)
	}
	return r
}

func (r *rig) read(off uint64) uint32 {
	var b [4]byte
	r.regs.Read(off, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// write is a store of the driver's; a notification is served as a hypervisor does.
func (r *rig) write(off uint64, v uint32) {
	if queue, kick := r.regs.Write(off, binary.LittleEndian.AppendUint32(nil, v)); kick {
		r.regs.Kick(queue)
	}
}

// negotiate takes the device to FEATURES_OK, and tells whether it agreed.
func (r *rig) negotiate(features uint64) bool {
	r.write(deviceStatus, 0)
	r.write(deviceStatus, acknowledge)
	r.write(deviceStatus, acknowledge|driver)
	for sel := range uint32(2) {
		r.write(driverSel, sel)
		r.write(driverFeatures, uint32(features>>(32*sel)))
	}
	r.write(deviceStatus, acknowledge|driver|featuresOK)
	return r.read(deviceStatus)&featuresOK != 0
}

// describe says where queue i lies and makes it ready.
func (r *rig) describe(i int, c virtq.Config, num uint32) {
	r.write(queueSel, uint32(i))
	r.write(queueNum, num)
	for reg, at := range map[uint64]guestmem.GPA{queueDesc: c.Desc, queueDriver: c.Avail, queueDevice: c.Used} {
		r.write(reg, uint32(at))
		r.write(reg+4, uint32(at>>32))
	}
	r.write(queueReady, 1)
}

// up brings the card up as an honest driver does.
func (r *rig) up() *rig {
	r.t.Helper()
	if !r.negotiate(virtio.FeatureVersion1) {
		r.t.Fatal("the device does not agree to what it offers")
	}
	for i, d := range r.drivers {
		d.Reset()
		r.describe(i, d.Config, uint32(d.Size))
	}
	r.write(deviceStatus, acknowledge|driver|featuresOK|driverOK)
	if got := r.read(deviceStatus); got != acknowledge|driver|featuresOK|driverOK {
		r.t.Fatalf("status %#x", got)
	}
	return r
}

// intact fails the test if a byte beside the RAM was written.
func (r *rig) intact() {
	r.t.Helper()
	for i := range beside {
		if r.around[i] != 0xa5 || r.around[beside+ram+i] != 0xa5 {
			r.t.Fatalf("a byte beside the RAM was written, at %d", i)
		}
	}
}

// send makes a frame of n bytes available on the transmit queue and kicks it.
func (r *rig) send(n int) {
	head := r.drivers[tx].Add(virtqtest.Desc{Addr: txBuf, Len: uint32(12 + n)})
	r.drivers[tx].Publish(head)
	r.write(queueNotify, tx)
}
