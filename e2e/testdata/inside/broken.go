package main

import "encoding/binary"

// broken are ways to break the rules of a transmit queue (virtio 1.2, 2.7 and 4.2.2).
// Each gets a device that has just been started, and honest, a frame that would pass.
var broken = []struct {
	name string
	do   func(d *device, honest []byte)
}{
	{"head beyond the table", func(d *device, honest []byte) { d.fill(honest); d.offer(slots, 0xffff) }},
	{"more available than slots", func(d *device, honest []byte) {
		d.describe(0, d.data.phys, d.fill(honest), 0, 0)
		d.next = slots + 1
		d.offer(0)
	}},
	{"available goes back", func(d *device, honest []byte) {
		d.describe(0, d.data.phys, d.fill(honest), 0, 0)
		d.next = 0xfffe
		d.offer(0)
	}},
	{"next beyond the table", func(d *device, honest []byte) {
		d.describe(0, d.data.phys, d.fill(honest), hasNext, slots)
		d.offer(0)
	}},
	{"a chain that bites its tail", func(d *device, honest []byte) {
		for i := range slots {
			d.describe(i, d.data.phys, 1, hasNext, uint16(i+1)%slots)
		}
		d.offer(0)
	}},
	{"a chain of one that is its own next", func(d *device, honest []byte) {
		d.describe(0, d.data.phys, d.fill(honest), hasNext, 0)
		d.offer(0)
	}},
	{"an indirect table that was not agreed on", func(d *device, honest []byte) {
		d.describe(0, d.data.phys, 16, indirect, 0)
		d.offer(0)
	}},
	{"a buffer to write to", func(d *device, honest []byte) {
		d.describe(0, d.data.phys, d.fill(honest), writable, 0)
		d.offer(0)
	}},
	{"a buffer without bytes", func(d *device, honest []byte) { d.describe(0, d.data.phys, 0, 0, 0); d.offer(0) }},
	{"a buffer of 4 GiB", func(d *device, honest []byte) { d.describe(0, d.data.phys, ^uint32(0), 0, 0); d.offer(0) }},
	{"a buffer beyond memory", func(d *device, honest []byte) { d.describe(0, 1<<50, 100, 0, 0); d.offer(0) }},
	{"a buffer that wraps", func(d *device, honest []byte) { d.describe(0, ^uint64(15), 100, 0, 0); d.offer(0) }},
	{"a buffer of registers", func(d *device, honest []byte) { d.describe(0, deviceBase, 100, 0, 0); d.offer(0) }},
	{"a header that is cut", func(d *device, honest []byte) { d.describe(0, d.data.phys, header-1, 0, 0); d.offer(0) }},
	{"a header alone", func(d *device, honest []byte) { d.describe(0, d.data.phys, header, 0, 0); d.offer(0) }},
	{"a frame that is cut", func(d *device, honest []byte) {
		d.fill(honest)
		d.describe(0, d.data.phys, header+13, 0, 0)
		d.offer(0)
	}},
	{"a frame of sixteen pages", func(d *device, honest []byte) {
		d.fill(honest)
		for i := range slots {
			d.describe(i, d.data.phys, 4096, hasNext, uint16(i+1))
		}
		d.describe(slots-1, d.data.phys, 4096, 0, 0)
		d.offer(0)
	}},
	{"a checksum to be written anywhere", func(d *device, honest []byte) {
		n := d.fill(honest)
		d.data.b[0] = 1                                        // VIRTIO_NET_HDR_F_NEEDS_CSUM
		binary.LittleEndian.PutUint16(d.data.b[8:], uint16(6)) // csum_offset: the source address
		d.describe(0, d.data.phys, n, 0, 0)
		d.offer(0)
	}},
	{"segments to be made of it", func(d *device, honest []byte) {
		n := d.fill(honest)
		d.data.b[1] = 1 // VIRTIO_NET_HDR_GSO_TCPV4
		binary.LittleEndian.PutUint16(d.data.b[4:], 1)
		d.describe(0, d.data.phys, n, 0, 0)
		d.offer(0)
	}},
	{"rings in one page", func(d *device, honest []byte) {
		d.prepare()
		d.queue(slots, d.desc.phys, d.desc.phys, d.desc.phys)
		d.set(regStatus, acknowledge|driver|featuresOK|driverOK)
		d.describe(0, d.data.phys, d.fill(honest), 0, 0)
		d.set(regQueueNotify, transmit)
	}},
	{"rings beyond memory", func(d *device, honest []byte) { d.misplaced(1<<50, 1<<50, 1<<50) }},
	{"rings of registers", func(d *device, honest []byte) { d.misplaced(deviceBase, deviceBase, deviceBase) }},
	{"rings that wrap", func(d *device, honest []byte) { d.misplaced(^uint64(15), ^uint64(1), ^uint64(3)) }},
	{"rings out of step", func(d *device, honest []byte) { d.misplaced(d.desc.phys+1, d.avail.phys+1, d.used.phys+1) }},
	{"a queue of no slots", func(d *device, honest []byte) { d.sized(0) }},
	{"a queue of three", func(d *device, honest []byte) { d.sized(3) }},
	{"a queue of too many", func(d *device, honest []byte) { d.sized(1 << 15) }},
	{"a kick of no queue", func(d *device, honest []byte) { d.set(regQueueNotify, 7); d.set(regQueueNotify, ^uint32(0)) }},
	{"a kick before it is ready", func(d *device, honest []byte) {
		d.prepare()
		d.describe(0, d.data.phys, d.fill(honest), 0, 0)
		d.offer(0)
	}},
	{"a kick after the reset", func(d *device, honest []byte) {
		d.describe(0, d.data.phys, d.fill(honest), 0, 0)
		d.set(regStatus, 0)
		d.offer(0)
	}},
}

// misplaced starts a queue that lies there.
func (d *device) misplaced(desc, avail, used uint64) {
	d.prepare()
	d.queue(slots, desc, avail, used)
	d.set(regStatus, acknowledge|driver|featuresOK|driverOK)
	d.set(regQueueNotify, transmit)
}

// sized starts a queue of that many slots.
func (d *device) sized(n uint32) {
	d.start(n)
	d.offer(0)
}
