package introspect

import (
	"errors"
	"fmt"

	"sekimori/introspect/layout"
)

// A Guest reads the structs of one guest's kernel. It is for one goroutine at a
// time: each vCPU, and each thread that serves a queue, has its own.
type Guest struct {
	mem     Memory
	layout  *layout.Layout
	current Current
	initNet uint64
	members *Members

	skb, sock, ring span
	fields          taskFields
	buf             [maxSpan]byte

	// Of a virtual machine: where the kernel lies (place.go) and where the vCPU
	// stands (current.go).
	paged   *Paged
	image   Image
	slide   uint64
	found   bool
	regs    Registers
	stands  bool // Enter was called, and says when the vCPU has run
	settled bool // its page tables are the kernel's
	known   bool // task is what it runs
	task    Task

	// What is asked for within a look, and answered.
	ask  question
	look struct{ task, running, owner func() error } // bound once: it would allocate
}

type question struct {
	at     uint64
	task   Task
	queue  *Queue
	head   uint16
	length int
	owner  Owner
}

// maxSpan bounds what is read of a struct at once.
const maxSpan = 8 << 10

// A Config configures a [Guest].
type Config struct {
	Memory Memory
	Layout *layout.Layout
	// Current says how the running task is found: [UMLCurrent],
	// [PerCPUCurrent] or [StackCurrent]. The zero Current finds none.
	Current Current
	// InitNet is the address of init_net, where the list of network devices
	// begins. 0 where frames are not traced.
	InitNet uint64
	// Image is how a kernel is found that lies elsewhere than it was linked to.
	// The zero Image is one that does not.
	Image Image
	// Members says whose namespaces and cgroups are whose.
	Members *Members
}

// ErrNoMembers says that a Guest was to be made without members.
var ErrNoMembers = errors.New("no members")

// New returns a Guest.
func New(cfg Config) (*Guest, error) {
	g := &Guest{mem: cfg.Memory, layout: cfg.Layout, current: cfg.Current, initNet: cfg.InitNet, members: cfg.Members}
	g.paged, _ = cfg.Memory.(*Paged)
	g.image, g.settled = cfg.Image, true
	if g.members == nil {
		return nil, ErrNoMembers
	}
	g.look.task, g.look.running, g.look.owner = g.askTask, g.askRunning, g.askOwner
	n := &g.layout.Net
	g.fields = newTaskFields(g.layout)
	var err error
	spanOf := func(name string, ends ...layout.Offset) span {
		s, ok := newSpan(ends...)
		if !ok && err == nil {
			err = &layout.Error{Path: name, Why: fmt.Sprintf("its fields lie more than %d bytes apart", maxSpan)}
		}
		return s
	}
	g.skb = spanOf("sk_buff", n.SkbSk, n.SkbSk+8, n.SkbLen, n.SkbLen+4, n.SkbIif, n.SkbIif+4)
	g.sock = spanOf("sock", n.SockState, n.SockState+1, n.SockNet, n.SockNet+8)
	if g.layout.Traces() {
		g.ring = spanOf("vring_virtqueue", n.VQPacked, n.VQPacked+1, n.VQNum, n.VQNum+4, n.VQDesc, n.VQDesc+8, n.VQState, n.VQState+8)
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}
