package virtio

import "sekimori/vmm/virtq"

// Feature bits that are the same for all devices (virtio 1.2, 6).
const (
	// FeatureVersion1 is VIRTIO_F_VERSION_1. The devices here are modern only: a
	// transport offers it, and refuses a driver that does not accept it.
	FeatureVersion1 = 1 << 32
)

// Device types (virtio 1.2, 5).
const (
	TypeNet   = 1
	TypeVsock = 19
)

// A Device is a virtio device as a transport drives it.
//
// The transport calls Start, Stop and Kick of one queue one after the other or
// at the same time, as its guest has it; a device locks each queue by itself.
type Device interface {
	// Type is the device type: TypeNet and so on.
	Type() uint32

	// Features are the bits the device offers. What the driver accepts is a
	// subset, which the transport sees to; a device works with each subset.
	Features() uint64

	// Queues are the largest sizes of the queues, as many as there are.
	Queues() []uint16

	// ReadConfig fills b with the configuration space from off on; what lies
	// behind its end reads as zero.
	ReadConfig(off uint32, b []byte)

	// WriteConfig is the driver's write to the configuration space. Writes to
	// what is read-only, or not there, do nothing.
	WriteConfig(off uint32, b []byte)

	// Start hands queue i to the device, until Stop. From then on the device may
	// use it from any goroutine, and interrupt the driver through t.
	Start(i int, q *virtq.Queue, t Transport)

	// Stop takes queue i back. When it returns the device does not touch it any
	// more, and every chain it took is given back; stopping what is not started
	// does nothing.
	Stop(i int)

	// Kick does what queue i has become available for, on the caller's thread,
	// and returns when it is done. It is bounded by the queue's size, whatever
	// the driver does meanwhile. A kick of a queue that is not started, or not
	// there, does nothing: "The device MUST handle spurious notifications from
	// the driver" (virtio 1.2, 2.7.10.2).
	Kick(i int)
}

// A Transport is what a device needs of the way it is attached. Its methods
// are called from any goroutine, with a queue locked: they never wait for the
// guest and never call the device.
type Transport interface {
	// Interrupt tells the driver that queue i has something for it.
	Interrupt(i int)

	// Broken tells that the driver broke queue i, once. The device ignores the
	// queue from then on; the transport sets DEVICE_NEEDS_RESET where there is a
	// status to set it in (virtio 1.2, 2.1.2).
	Broken(i int, err error)
}
