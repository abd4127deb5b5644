package introspecttest

import (
	"sekimori/introspect/layout"
	"sekimori/vmm/guestmem"
)

// A Kernel puts structs into an image.
type Kernel struct {
	*Image
	Layout layout.Layout
	next   uint64

	InitNet uint64              // struct net, with the list of devices
	last    uint64              // list_head of the last device
	ends    func(uint64) uint64 // how an address in the image is written; nil: as it is
}

// NewKernel returns a kernel in whose memory nothing lies but init_net.
func NewKernel(l layout.Layout, direct uint64) *Kernel {
	k := &Kernel{Image: NewImage(direct), Layout: l, next: direct + 0x10000}
	k.InitNet = k.Net(1)
	k.last = k.InitNet + uint64(l.Net.NetDevices)
	k.Put64(k.last, k.last)
	return k
}

// Alloc returns the address of n zero bytes, aligned as a slab's.
func (k *Kernel) Alloc(n uint64) uint64 {
	at := k.next
	k.next += (n + 63) &^ 63
	k.Map(at, n)
	return at
}

// set64 and set32 write fields that the layout has.
func (k *Kernel) set64(base uint64, o layout.Offset, v uint64) {
	if o != layout.None {
		k.Put64(base+uint64(o), v)
	}
}

func (k *Kernel) set32(base uint64, o layout.Offset, v uint32) {
	if o != layout.None {
		k.Put32(base+uint64(o), v)
	}
}

// structSize is more than the largest offset of the layouts in tests.
const structSize = 8192

// Net makes a network namespace.
func (k *Kernel) Net(inode uint32) uint64 {
	at := k.Alloc(structSize)
	k.set32(at, k.Layout.Net.NetInum, inode)
	return at
}

// Cgroup makes a cgroup.
func (k *Kernel) Cgroup(id uint64) uint64 {
	at, node := k.Alloc(structSize), k.Alloc(structSize)
	k.set64(at, k.Layout.Task.CgroupKN, node)
	k.set64(node, k.Layout.Task.KNID, id)
	return at
}

// A Task is what [Kernel.Task] makes a task of.
type Task struct {
	PID, TGID, PGID uint32
	Comm            string
	Flags           uint32
	Net, Cgroup     uint64 // addresses; 0: none
	PIDNS           uint32 // inode
	Level           uint32 // of the pid namespace
	Preempt         uint32
	Leader          uint64 // address; 0: itself, or a task made for it
}

// pid makes a struct pid of a number in each of the levels.
func (k *Kernel) pid(number, level, inode uint32) uint64 {
	o := &k.Layout.Task
	at, ns := k.Alloc(structSize), k.Alloc(structSize)
	k.set32(ns, o.PIDNSInum, inode)
	k.set32(at, o.PIDLevel, level)
	for i := range level + 1 {
		upid := at + uint64(o.PIDNumbers) + uint64(i)*uint64(o.UpidSize)
		k.set32(upid, o.UpidNr, number-i)
		k.set64(upid, o.UpidNS, ns)
	}
	return at
}

// Task makes a task and all behind it, and returns its address.
func (k *Kernel) Task(t Task) uint64 {
	o := &k.Layout.Task
	at, signal := k.Alloc(structSize), k.Alloc(structSize)
	k.set32(at, o.PID, t.PID)
	k.set32(at, o.TGID, t.TGID)
	k.set32(at, o.Flags, t.Flags)
	k.Write(at+uint64(o.Comm), []byte(t.Comm))
	switch {
	case t.Leader != 0:
	case t.PID == t.TGID:
		t.Leader = at
	default:
		leader := t
		leader.PID = t.TGID
		t.Leader = k.Task(leader)
	}
	k.set64(at, o.GroupLeader, t.Leader)
	k.set64(at, o.Signal, signal)
	k.set64(at, o.ThreadPID, k.pid(t.PID, t.Level, t.PIDNS))
	group := k.pid(t.PGID, t.Level, t.PIDNS)
	if o.SignalPGRP != layout.None {
		k.set64(signal, o.SignalPGRP, group)
	}
	k.set64(at, o.PGRP, group)
	if t.Net != 0 {
		proxy := k.Alloc(structSize)
		k.set64(proxy, o.NSProxyNet, t.Net)
		k.set64(at, o.NSProxy, proxy)
	}
	set := k.Alloc(structSize)
	k.set64(set, o.CSSDefault, t.Cgroup)
	k.set64(at, o.Cgroups, set)
	stack := k.Alloc(structSize)
	k.set64(at, o.Stack, stack)
	k.set64(stack, o.ThreadInfoTask, at)
	if o.ThreadInfo == layout.None {
		k.set32(stack, o.ThreadInfoPreempt, t.Preempt)
	} else if o.ThreadInfoPreempt != layout.None {
		k.set32(at, o.ThreadInfo+o.ThreadInfoPreempt, t.Preempt)
	}
	return at
}

// A Socket is what [Kernel.Socket] makes a socket of.
type Socket struct {
	Net, Cgroup uint64
	State       byte
	Kern        bool
}

// Socket makes a socket.
func (k *Kernel) Socket(s Socket) uint64 {
	o := &k.Layout.Net
	at := k.Alloc(structSize)
	k.set64(at, o.SockNet, s.Net)
	k.set64(at, o.SockCgroup, s.Cgroup)
	k.Write(at+uint64(o.SockState), []byte{s.State})
	if s.Kern {
		k.Write(at+uint64(o.SockKern.Off), []byte{o.SockKern.Mask})
	}
	return at
}

// A Card is a network device of virtio_net.
type Card struct {
	Dev, Info, SendQueues uint64
	VQ                    uint64 // struct vring_virtqueue of the first queue
	Desc                  guestmem.GPA
	state                 uint64
}

// Device adds a network device to the list. Its private part is not virtio_net's.
func (k *Kernel) Device(mac [6]byte) uint64 {
	o := &k.Layout.Net
	dev, addr := k.Alloc(structSize), k.Alloc(64)
	k.Write(addr, mac[:])
	k.set64(dev, o.DevAddr, addr)
	k.set64(dev, o.DevNet, k.InitNet)
	node := dev + uint64(o.DevList)
	k.Put64(k.last, node)
	end := k.InitNet + uint64(o.NetDevices)
	if k.ends != nil {
		end = k.ends(end)
	}
	k.Put64(node, end)
	k.last = node
	return dev
}

// Card adds a card with one pair of queues of so many descriptors.
func (k *Kernel) Card(mac [6]byte, count uint32) *Card {
	o := &k.Layout.Net
	c := &Card{Dev: k.Device(mac), SendQueues: k.Alloc(structSize), VQ: k.Alloc(structSize)}
	c.Info = c.Dev + uint64(o.DevPriv)
	k.set64(c.Info, o.InfoDev, c.Dev)
	k.set64(c.Info, o.InfoSendQueues, c.SendQueues)
	k.Write(c.Info+uint64(o.InfoPairs), []byte{1, 0})
	k.set64(c.SendQueues, o.SendQueueVQ, c.VQ+uint64(o.VQ))
	k.set32(c.SendQueues, o.SendQueueNAPI, 64)
	desc := k.Alloc(16 * uint64(count))
	c.state = k.Alloc(uint64(o.DescSize) * uint64(count))
	k.set32(c.VQ, o.VQNum, count)
	k.set64(c.VQ, o.VQDesc, desc)
	k.set64(c.VQ, o.VQState, c.state)
	c.Desc = guestmem.GPA(desc - k.Direct)
	return c
}

// A Frame is a sk_buff that waits in a card's queue.
type Frame struct {
	Sk    uint64
	Len   uint32
	Iif   uint32 // of the device that it came in through
	Flags uint64 // in the driver's pointer
}

// Post makes a sk_buff the data of a descriptor, and returns its address.
func (k *Kernel) Post(c *Card, head uint16, f Frame) uint64 {
	o := &k.Layout.Net
	at := k.Alloc(structSize)
	k.set64(at, o.SkbSk, f.Sk)
	k.set32(at, o.SkbLen, f.Len)
	k.set32(at, o.SkbIif, f.Iif)
	k.Put64(c.state+uint64(head)*uint64(o.DescSize)+uint64(o.DescData), at|f.Flags)
	return at
}
