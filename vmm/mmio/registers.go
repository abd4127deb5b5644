package mmio

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtio"
	"sekimori/vmm/virtq"
)

// Size is how much of the guest's address space a device takes, in bytes.
const Size = 0x1000

// Registers (virtio 1.2, 4.2.2), by their offset.
const (
	regMagic           = 0x000
	regVersion         = 0x004
	regDeviceID        = 0x008
	regVendorID        = 0x00c
	regDeviceFeatures  = 0x010
	regDeviceSel       = 0x014
	regDriverFeatures  = 0x020
	regDriverSel       = 0x024
	regQueueSel        = 0x030
	regQueueNumMax     = 0x034
	regQueueNum        = 0x038
	regQueueReady      = 0x044
	regQueueNotify     = 0x050
	regInterruptStatus = 0x060
	regInterruptACK    = 0x064
	regStatus          = 0x070
	regQueueDesc       = 0x080 // and the high half behind it, like the next two
	regQueueDriver     = 0x090
	regQueueDevice     = 0x0a0
	regShmLen          = 0x0b0 // to 0x0bc: no region of shared memory
	regShmEnd          = 0x0c0
	regGeneration      = 0x0fc
	regConfig          = 0x100
)

const (
	magic   = 0x74726976 // "virt"
	version = 2
	vendor  = 0x696b6573 // "seki"
)

// Device status bits (virtio 1.2, 2.1).
const (
	statusAcknowledge = 1
	statusDriver      = 2
	statusDriverOK    = 4
	statusFeaturesOK  = 8
	statusNeedsReset  = 64
	statusFailed      = 128
	statusOfDriver    = statusAcknowledge | statusDriver | statusDriverOK | statusFeaturesOK | statusFailed
)

// Interrupt status bits (virtio 1.2, 4.2.2).
const (
	interruptUsed   = 1
	interruptConfig = 2
)

// A Config is what a device is attached with.
type Config struct {
	Device virtio.Device
	// Memory is the guest's, in which its queues lie.
	Memory *guestmem.Memory
	// Interrupt raises the device's interrupt, as an edge. It is called from any
	// goroutine, with a queue locked, and must not wait.
	Interrupt func()
	// Log takes what the guest did to itself; nil discards it.
	Log *slog.Logger
}

// A Registers is one device's page of registers. Its methods may be called from
// any goroutine.
type Registers struct {
	cfg       Config
	offered   uint64
	status    atomic.Uint32 // written with mu held, but for statusNeedsReset
	interrupt atomic.Uint32
	breaks    atomic.Int32 // how often a queue was broken

	mu        sync.Mutex // mu guards the fields below
	deviceSel uint32
	driverSel uint32
	accepted  uint64
	queueSel  uint32
	queues    []queue
}

// A queue is one as the driver describes it, and, from DRIVER_OK to the next
// reset, the device's.
type queue struct {
	max                  uint16
	size                 uint32
	desc, driver, device uint64
	q                    *virtq.Queue // made by QueueReady
	started              bool
}

// New returns the registers of a device that no driver has touched yet.
func New(cfg Config) *Registers {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registers{cfg: cfg, offered: cfg.Device.Features() | virtio.FeatureVersion1}
	for _, max := range cfg.Device.Queues() {
		r.queues = append(r.queues, queue{max: max})
	}
	return r
}

// Read fills b with what the guest reads at off.
func (r *Registers) Read(off uint64, b []byte) {
	clear(b)
	if off >= regConfig {
		if off < Size {
			r.cfg.Device.ReadConfig(uint32(off-regConfig), b)
		}
		return
	}
	// "For the device-specific registers … the driver MUST use only 32 bit wide
	// and aligned reads and writes" (virtio 1.2, 4.2.2.2).
	if len(b) == 4 && off%4 == 0 {
		binary.LittleEndian.PutUint32(b, r.load(off))
	}
}

func (r *Registers) load(off uint64) uint32 {
	switch off {
	case regMagic:
		return magic
	case regVersion:
		return version
	case regDeviceID:
		return r.cfg.Device.Type()
	case regVendorID:
		return vendor
	case regInterruptStatus:
		return r.interrupt.Load()
	case regStatus:
		return r.status.Load()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch off {
	case regDeviceFeatures:
		return half(r.offered, r.deviceSel)
	case regQueueNumMax:
		if q := r.selected(); q != nil {
			return uint32(q.max)
		}
	case regQueueReady:
		if q := r.selected(); q != nil && q.q != nil {
			return 1
		}
	}
	if off >= regShmLen && off < regShmEnd {
		return ^uint32(0) // a length of -1: there is none (virtio 1.2, 4.2.2)
	}
	return 0 // regGeneration, too: the configuration does not change
}

// half is a 32 bit half of v, or 0 where there is none.
func half(v uint64, sel uint32) uint32 {
	if sel > 1 {
		return 0
	}
	return uint32(v >> (32 * sel))
}

// setHalf replaces a half of v.
func setHalf(v *uint64, sel uint32, to uint32) {
	if sel <= 1 {
		*v = *v&^(0xffffffff<<(32*sel)) | uint64(to)<<(32*sel)
	}
}

// selected is the queue that the driver speaks of, nil if there is no such.
func (r *Registers) selected() *queue {
	if uint64(r.queueSel) >= uint64(len(r.queues)) {
		return nil
	}
	return &r.queues[r.queueSel]
}

// Write is the guest's write of b at off. If it is a notification of a queue,
// Write says of which, and does nothing: the caller has it done with
// [Registers.Kick] before the guest runs on.
func (r *Registers) Write(off uint64, b []byte) (queue int, kick bool) {
	if off >= regConfig {
		if off < Size {
			r.cfg.Device.WriteConfig(uint32(off-regConfig), b)
		}
		return 0, false
	}
	if len(b) != 4 || off%4 != 0 {
		return 0, false
	}
	v := binary.LittleEndian.Uint32(b)
	switch off {
	case regQueueNotify:
		if uint64(v) < uint64(len(r.queues)) && r.status.Load()&statusDriverOK != 0 {
			return int(v), true
		}
	case regInterruptACK:
		r.interrupt.And(^v)
	default:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.store(off, v)
	}
	return 0, false
}

// store is called with mu held.
func (r *Registers) store(off uint64, v uint32) {
	status := r.status.Load()
	switch off {
	case regDeviceSel:
		r.deviceSel = v
	case regDriverSel:
		r.driverSel = v
	case regDriverFeatures:
		if status&statusFeaturesOK == 0 {
			setHalf(&r.accepted, r.driverSel, v)
		}
	case regQueueSel:
		r.queueSel = v
	case regStatus:
		r.setStatus(v)
	default:
		// What a queue is made of changes only before it is handed over: after
		// FEATURES_OK, before DRIVER_OK, and not while it is ready.
		q := r.selected()
		if q == nil || status&statusFeaturesOK == 0 || status&statusDriverOK != 0 {
			return
		}
		if off == regQueueReady {
			r.ready(q, v)
		} else if q.q == nil {
			q.describe(off, v)
		}
	}
}

func (q *queue) describe(off uint64, v uint32) {
	switch off {
	case regQueueNum:
		q.size = v
	case regQueueDesc, regQueueDesc + 4:
		setHalf(&q.desc, uint32(off-regQueueDesc)/4, v)
	case regQueueDriver, regQueueDriver + 4:
		setHalf(&q.driver, uint32(off-regQueueDriver)/4, v)
	case regQueueDevice, regQueueDevice + 4:
		setHalf(&q.device, uint32(off-regQueueDevice)/4, v)
	}
}

// ready makes the selected queue of what the driver said of it, or forgets it.
func (r *Registers) ready(q *queue, v uint32) {
	switch {
	case v == 0:
		q.q = nil
		return
	case v != 1 || q.q != nil:
		return
	}
	var err error
	if q.size == 0 || q.size > uint32(q.max) {
		err = fmt.Errorf("size %d of at most %d", q.size, q.max)
	} else {
		q.q, err = virtq.New(r.cfg.Memory, virtq.Config{
			Name: fmt.Sprint(r.queueSel), Size: uint16(q.size),
			Desc: guestmem.GPA(q.desc), Avail: guestmem.GPA(q.driver), Used: guestmem.GPA(q.device),
		})
	}
	if err != nil {
		q.q = nil
		r.Broken(int(r.queueSel), err)
	}
}

// setStatus takes the driver's word, with mu held: it sets bits one after the
// other, and clears all of them at once, which is a reset.
func (r *Registers) setStatus(v uint32) {
	if v == 0 {
		r.reset()
		return
	}
	old := r.status.Load()
	v = v&statusOfDriver | old // "The driver MUST NOT clear a device status bit" (virtio 1.2, 2.1.1)
	if v&statusFeaturesOK != 0 && old&statusFeaturesOK == 0 && !r.negotiated() {
		v &^= statusFeaturesOK // by which the driver knows (virtio 1.2, 3.1.1, step 6)
	}
	if v&statusFeaturesOK == 0 || v&statusFailed != 0 && old&statusDriverOK == 0 {
		v &^= statusDriverOK
	}
	r.status.Or(v) // Broken may have set its bit meanwhile
	if v&statusDriverOK != 0 && old&statusDriverOK == 0 {
		r.start()
	}
}

// negotiated tells whether the driver accepted what it must and no more than it
// was offered.
func (r *Registers) negotiated() bool {
	return r.accepted&^r.offered == 0 && r.accepted&virtio.FeatureVersion1 != 0
}

// start hands the queues that are ready to the device.
func (r *Registers) start() {
	for i := range r.queues {
		if q := &r.queues[i]; q.q != nil {
			q.started = true
			r.cfg.Device.Start(i, q.q, r)
		}
	}
}

// reset takes the queues back and forgets what the driver said.
func (r *Registers) reset() {
	for i := range r.queues {
		q := &r.queues[i]
		if q.started {
			r.cfg.Device.Stop(i)
		}
		*q = queue{max: q.max}
	}
	r.deviceSel, r.driverSel, r.accepted, r.queueSel = 0, 0, 0, 0
	// Nothing of the device's runs any more that could set a bit.
	r.status.Store(0)
	r.interrupt.Store(0)
}

// Kick has the device do what queue i has become available for, on this thread;
// the device ignores a queue that it does not have.
func (r *Registers) Kick(i int) { r.cfg.Device.Kick(i) }

// Close resets the device: when it returns, the device does not touch the
// guest's memory any more.
func (r *Registers) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reset()
}

// Interrupt implements [virtio.Transport].
func (r *Registers) Interrupt(int) { r.raise(interruptUsed) }

// raise tells the driver why it is interrupted, and then interrupts it.
func (r *Registers) raise(why uint32) {
	r.interrupt.Or(why)
	r.cfg.Interrupt()
}

// maxBreaks is how many broken queues of a device are logged: a guest can
// break one as often as it likes.
const maxBreaks = 10

// Broken implements [virtio.Transport]: "the device MUST set
// DEVICE_NEEDS_RESET … If DRIVER_OK is set, … MUST send a device configuration
// change notification" (virtio 1.2, 2.1.2).
func (r *Registers) Broken(i int, err error) {
	r.status.Or(statusNeedsReset)
	if r.status.Load()&statusDriverOK != 0 {
		r.raise(interruptConfig)
	}
	if r.breaks.Add(1) <= maxBreaks {
		r.cfg.Log.Warn("queue broken", "queue", i, "err", err)
	}
}
