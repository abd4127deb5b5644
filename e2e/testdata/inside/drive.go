package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Where vmm/kvm has its virtio devices, and what of their registers is used here
// (virtio 1.2, 4.2.2).
const (
	deviceBase = 0xd000_0000
	deviceSize = 0x1000

	regDriverFeatures = 0x20
	regDriverSel      = 0x24
	regQueueSel       = 0x30
	regQueueNum       = 0x38
	regQueueReady     = 0x44
	regQueueNotify    = 0x50
	regStatus         = 0x70
	regQueueDesc      = 0x80
	regQueueDriver    = 0x90
	regQueueDevice    = 0xa0

	acknowledge, driver, driverOK, featuresOK = 1, 2, 4, 8

	transmit = 1 // the queue
	slots    = 16
)

// drive is an attacker who owns the guest's kernel, as far as the card's device can
// tell: root takes the card numbered args[0] from the kernel's driver and drives it
// himself, registers and rings. He breaks every rule of the rings; writes registers
// at random; changes frames while they are judged, of which args[1] may pass; and sends
// args[2:], which may not. Without any of those he sends args[1], by the rules.
func drive(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: drive CARD HONEST [FORGED], any number of them")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var frames [][]byte
	for _, a := range args[1:] {
		f, err := hex.DecodeString(a)
		if err != nil {
			return err
		}
		frames = append(frames, f)
	}
	d, err := take(n)
	if err != nil {
		return err
	}
	honest, forged := frames[0], frames[1:]
	if len(forged) == 0 {
		d.start(slots)
		d.send(honest)
		return nil
	}
	for _, b := range broken {
		d.start(slots)
		b.do(d, honest)
		fmt.Printf("ring: %s: status %#x\n", b.name, d.get(regStatus))
	}
	d.shuffle(20_000, honest)
	fmt.Println("registers at random")
	if err := d.race(1_000, honest, forged[0]); err != nil {
		return err
	}
	fmt.Println("frames that change")
	d.start(slots)
	for _, f := range forged {
		d.send(f)
	}
	fmt.Printf("frames: %d of %d used\n", binary.LittleEndian.Uint16(d.used.b[2:]), len(forged))
	return nil
}

// A device is a card without a driver.
type device struct {
	regs              []byte
	desc, avail, used page
	data              page // one frame with its header
	next              uint16
}

// A page is memory of this process of which the device can be told.
type page struct {
	b    []byte
	phys uint64
}

// take takes device number n from the kernel's driver.
func take(n int) (*device, error) {
	base := deviceBase + n*deviceSize
	const drivers = "/sys/bus/platform/drivers/virtio-mmio"
	names, err := filepath.Glob(drivers + "/*:*")
	if err != nil {
		return nil, err
	}
	busy, err := os.ReadFile("/proc/iomem")
	if err != nil {
		return nil, err
	}
	_, rest, found := strings.Cut(string(busy), fmt.Sprintf("%x-%x : ", base, base+deviceSize-1))
	owner, _, _ := strings.Cut(rest, "\n")
	for _, name := range names {
		if found && strings.HasSuffix(name, owner) { // else it has been taken before
			if err := os.WriteFile(drivers+"/unbind", []byte(owner), 0); err != nil {
				return nil, err
			}
		}
	}
	mem, err := os.OpenFile("/dev/mem", os.O_RDWR|os.O_SYNC, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := unix.Mknod("/dev/mem", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))); err != nil {
			return nil, fmt.Errorf("mknod /dev/mem: %w", err)
		}
		mem, err = os.OpenFile("/dev/mem", os.O_RDWR|os.O_SYNC, 0)
	}
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	d := &device{}
	if d.regs, err = unix.Mmap(int(mem.Fd()), int64(base), deviceSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("the registers of %s: %w", owner, err)
	}
	for _, p := range []*page{&d.desc, &d.avail, &d.used, &d.data} {
		if *p, err = newPage(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func newPage() (p page, err error) {
	p.b, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_POPULATE|unix.MAP_LOCKED)
	if err != nil {
		return p, err
	}
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return p, err
	}
	defer f.Close()
	var entry [8]byte
	if _, err := f.ReadAt(entry[:], int64(reflect.ValueOf(p.b).Pointer()/4096*8)); err != nil {
		return p, err
	}
	// Bits 0 to 54 are the number of the page (Documentation/admin-guide/mm/pagemap.rst).
	p.phys = binary.LittleEndian.Uint64(entry[:]) << 9 >> 9 * 4096
	if p.phys == 0 {
		return p, errors.New("the number of a page is not told")
	}
	return p, nil
}

func (d *device) get(reg int) uint32    { return binary.LittleEndian.Uint32(d.regs[reg:]) }
func (d *device) set(reg int, v uint32) { binary.LittleEndian.PutUint32(d.regs[reg:], v) }

func (d *device) set64(reg int, v uint64) {
	d.set(reg, uint32(v))
	d.set(reg+4, uint32(v>>32))
}

// start resets the device and gives it a transmit queue of so many slots.
func (d *device) start(size uint32) {
	d.prepare()
	d.queue(size, d.desc.phys, d.avail.phys, d.used.phys)
	d.set(regStatus, acknowledge|driver|featuresOK|driverOK)
}

// prepare resets the device and begins to set it up.
func (d *device) prepare() {
	d.set(regStatus, 0)
	for _, p := range []page{d.desc, d.avail, d.used} {
		clear(p.b)
	}
	d.next = 0
	d.set(regStatus, acknowledge|driver)
	d.set(regDriverSel, 1)
	d.set(regDriverFeatures, 1) // VIRTIO_F_VERSION_1, and nothing else
	d.set(regDriverSel, 0)
	d.set(regDriverFeatures, 0)
	d.set(regStatus, acknowledge|driver|featuresOK)
}

func (d *device) queue(size uint32, desc, avail, used uint64) {
	d.set(regQueueSel, transmit)
	d.set(regQueueNum, size)
	d.set64(regQueueDesc, desc)
	d.set64(regQueueDriver, avail)
	d.set64(regQueueDevice, used)
	d.set(regQueueReady, 1)
}

// Flags of a descriptor (virtio 1.2, 2.7.5).
const (
	hasNext  = 1
	writable = 2
	indirect = 4
)

// describe writes descriptor i.
func (d *device) describe(i int, addr uint64, n uint32, flags, next uint16) {
	b := d.desc.b[16*i:]
	binary.LittleEndian.PutUint64(b, addr)
	binary.LittleEndian.PutUint32(b[8:], n)
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// offer makes chains available that begin at those descriptors, and kicks.
func (d *device) offer(heads ...uint16) {
	for _, h := range heads {
		binary.LittleEndian.PutUint16(d.avail.b[4+2*(d.next%slots):], h)
		d.next++
	}
	binary.LittleEndian.PutUint16(d.avail.b[2:], d.next)
	d.set(regQueueNotify, transmit)
}

// header is that of virtio-net, of zeroes where nothing is asked of the device.
const header = 12

// fill puts a frame behind a header, and returns how much that is.
func (d *device) fill(frame []byte) uint32 {
	clear(d.data.b[:header])
	return uint32(header + copy(d.data.b[header:], frame))
}

// send sends a frame by the rules.
func (d *device) send(frame []byte) {
	d.describe(0, d.data.phys, d.fill(frame), 0, 0)
	d.offer(0)
}

// shuffle writes registers at random, with rings of random bytes behind them.
func (d *device) shuffle(writes int, honest []byte) {
	random := rand.New(rand.NewPCG(1, 2)) // the same each time
	d.start(slots)
	d.fill(honest)
	pages := []uint64{d.desc.phys, d.avail.phys, d.used.phys, d.data.phys, 0, deviceBase, ^uint64(0xfff)}
	for range writes {
		for _, p := range []page{d.desc, d.avail} {
			p.b[random.IntN(64)] = byte(random.Uint32())
		}
		reg := 4 * random.IntN(0x120/4)
		v := random.Uint32() >> random.IntN(32)
		switch random.IntN(4) {
		case 0:
			reg, v = regQueueNotify, uint32(random.IntN(3))
		case 1:
			reg = []int{regQueueDesc, regQueueDriver, regQueueDevice}[random.IntN(3)]
			v = uint32(pages[random.IntN(len(pages))])
		case 2:
			reg, v = regStatus, uint32(random.IntN(16))
		}
		switch random.IntN(8) {
		case 0:
			d.regs[reg] = byte(v)
		case 1:
			binary.LittleEndian.PutUint16(d.regs[reg:], uint16(v))
		default:
			d.set(reg, v)
		}
	}
	d.set(regStatus, 0)
}

// race sends a frame that another processor turns into one that may not pass, and
// back, and whose length and address it changes, while the device looks at it.
func (d *device) race(kicks int, honest, forged []byte) error {
	if len(honest) < len(forged) {
		honest = append(honest, make([]byte, len(forged)-len(honest))...)
	}
	var over atomic.Bool
	ended := make(chan bool)
	d.start(slots)
	n := d.fill(honest)
	d.describe(0, d.data.phys, n, 0, 0)
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		for i := 0; !over.Load(); i++ {
			copy(d.data.b[header:], forged)
			d.describe(0, d.data.phys, n, hasNext*uint16(i&1), uint16(i))
			d.describe(0, d.data.phys, n, 0, 0)
			copy(d.data.b[header:], honest)
		}
	}()
	for range kicks {
		d.offer(0)
		if d.get(regStatus)&64 != 0 { // DEVICE_NEEDS_RESET: a chain was broken at the time
			d.prepare()
			d.queue(slots, d.desc.phys, d.avail.phys, d.used.phys)
			d.set(regStatus, acknowledge|driver|featuresOK|driverOK)
		}
	}
	over.Store(true)
	<-ended
	return nil
}
