// Package miniguest is a guest of KVM that needs no Linux: a loop of some
// instructions in 64-bit mode, in a memory where a kernel's structs lie. For
// each frame it makes a task the running one, says what the CPU does besides,
// makes the frame available to its card and kicks it. What introspection and
// policy then find is known beforehand, so that many thousands of frames can be
// held against it, on any /dev/kvm.
//
//	g := miniguest.New()
//	net := g.Net(101)
//	g.Send(miniguest.Frame{Bytes: frame, Sk: g.Socket(…), Current: g.Task(…)})
//	m, err := kvm.Start(ctx, &kvm.Config{Image: g.Program(20_000), Memory: miniguest.Memory, Devices: …})
package miniguest

import (
	"encoding/binary"
	"errors"
	"fmt"

	gokvm "github.com/bobuhiro11/gokvm/kvm"

	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/vmm/guestmem"
	"sekimori/vmm/kvm"
)

// Memory is what the guest needs, in bytes.
const Memory = 64 << 20

// Slots is how many different frames there can be: the size of the queue.
const Slots = 256

// MAC is the address of the card.
var MAC = [6]byte{2, 0, 0, 0, 0, 1}

// A Frame is what is sent, and from where.
type Frame struct {
	Bytes   []byte
	Sk      uint64 // address of its socket; 0: none
	Iif     uint32 // of the device that it came in through
	Current uint64 // address of the task that runs when it is sent
	Preempt uint32 // preempt_count then
}

// A Guest is one in the making.
type Guest struct {
	*introspecttest.Machine
	card   *introspecttest.Card
	frames []Frame
}

// New returns a guest that sends nothing.
func New() *Guest {
	m := introspecttest.NewMachine(introspecttest.X86(), 64<<20)
	return &Guest{Machine: m, card: m.Card(MAC, Slots)}
}

// Send adds a frame.
func (g *Guest) Send(f Frame) { g.frames = append(g.frames, f) }

// Frames are those that it sends: the first, the second, and so on until they
// begin again after as many as there are slots.
func (g *Guest) Frames() int { return len(g.frames) }

// At is the n-th frame that is sent.
func (g *Guest) At(n int) Frame { return g.frames[n%Slots%len(g.frames)] }

// Introspect returns what looks into the guest's memory, and follows its card.
func (g *Guest) Introspect(ram *guestmem.Memory, members *introspect.Members) (*introspect.Guest, *introspect.Queue, error) {
	in, err := introspect.New(introspect.Config{
		Memory: introspect.NewPaged(ram), Layout: &g.Layout, Members: members, Current: introspect.PerCPUCurrent(0),
		InitNet: g.Link(g.InitNet), Image: introspect.Image{Banner: []byte(g.Banner), At: introspecttest.Linked + introspecttest.BannerAt},
	})
	if err != nil {
		return nil, nil, err
	}
	q, err := in.Queue(introspect.Ring{MAC: MAC, Desc: g.card.Desc, Count: Slots})
	return in, q, err
}

// Where the guest's program lies, and its card: the first of the machine's.
const (
	codeAt    = 20 << 20
	registers = 0xd000_0000
)

// headerLen is that of struct virtio_net_hdr.
const headerLen = 12

// Program returns the guest as it sends n frames and turns itself off.
func (g *Guest) Program(n uint32) kvm.Program {
	direct := func(va uint64) uint64 { return va - introspecttest.Direct }
	table := g.Alloc(16 * Slots)
	avail, used := g.Alloc(6+2*Slots), g.Alloc(6+8*Slots)
	for i := range Slots {
		f := g.At(i)
		buf := g.Alloc(uint64(headerLen + len(f.Bytes)))
		g.Write(buf+headerLen, f.Bytes)
		desc := introspecttest.Direct + uint64(g.card.Desc) + 16*uint64(i)
		g.Put64(desc, direct(buf))
		g.Put64(desc+8, uint64(headerLen+len(f.Bytes)))
		g.Write(avail+4+2*uint64(i), binary.LittleEndian.AppendUint16(nil, uint16(i)))
		g.Post(g.card, uint16(i), introspecttest.Frame{Sk: f.Sk, Len: uint32(len(f.Bytes)), Iif: f.Iif})
		g.Put64(table+16*uint64(i), f.Current)
		g.Put32(table+16*uint64(i)+8, f.Preempt)
	}
	c := handshake(uint64(g.card.Desc), direct(avail), direct(used))
	c = c.loop(loop{table: table, avail: avail, current: uint32(g.Layout.PerCPU.Current), preempt: uint32(g.Layout.PerCPU.Preempt), n: n})
	return kvm.Program{At: codeAt, Code: c, Init: g.init}
}

// init lays the guest's memory over what the machine has put there, all but the
// program itself.
func (g *Guest) init(mem *guestmem.Memory, r *gokvm.Regs, s *gokvm.Sregs) error {
	tables := g.Tables(false)
	tables.Put(registers, registers, 21, 2) // writable
	if end := g.Alloc(0) - introspecttest.Direct; end > codeAt {
		return fmt.Errorf("the kernel's structs take %d MiB", end>>20)
	}
	s.CR3 = tables.Root
	s.GS.Base = introspecttest.Direct + introspecttest.PerCPU
	r.RIP = introspecttest.Direct + codeAt
	return errors.Join(mem.Write(0, tables.RAM[:codeAt]), mem.Write(guestmem.GPA(tables.Root), tables.RAM[tables.Root:tables.Next]))
}
