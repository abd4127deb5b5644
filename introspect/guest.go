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

	task, skb, sock, ring span
	buf                   [maxSpan]byte

	// What is asked for within a look, and answered.
	ask  question
	look struct{ task, running, owner func() error } // bound once: it would allocate
}

type question struct {
	at     uint64
	regs   Registers
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
	// Members says whose namespaces and cgroups are whose.
	Members *Members
}

// ErrNoMembers says that a Guest was to be made without members.
var ErrNoMembers = errors.New("no members")

// New returns a Guest.
func New(cfg Config) (*Guest, error) {
	g := &Guest{mem: cfg.Memory, layout: cfg.Layout, current: cfg.Current, initNet: cfg.InitNet, members: cfg.Members}
	if g.members == nil {
		return nil, ErrNoMembers
	}
	g.look.task, g.look.running, g.look.owner = g.askTask, g.askRunning, g.askOwner
	t, n := &g.layout.Task, &g.layout.Net
	var err error
	spanOf := func(name string, ends ...layout.Offset) span {
		s, ok := newSpan(ends...)
		if !ok && err == nil {
			err = &layout.Error{Path: name, Why: fmt.Sprintf("its fields lie more than %d bytes apart", maxSpan)}
		}
		return s
	}
	g.task = spanOf("task_struct", t.PID, t.PID+4, t.TGID+4, t.Comm+16, t.Flags, t.Flags+4, t.GroupLeader+8, t.StartTime+8,
		t.Signal, t.Signal+8, t.NSProxy+8, t.Cgroups+8, t.Stack, t.Stack+8, t.ThreadPID, t.ThreadPID+8)
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

// A span is the part of a struct that is read at once.
type span struct{ from, to layout.Offset }

// newSpan is the span over the ends of fields.
func newSpan(ends ...layout.Offset) (span, bool) {
	s := span{from: ends[0], to: ends[0]}
	for _, e := range ends {
		s.from, s.to = min(s.from, e), max(s.to, e)
	}
	return s, s.to-s.from <= maxSpan
}

// no allocation, no lock, no log below this line

// A part is what was read of a struct. It is valid until the next read.
type part struct {
	b    []byte
	from layout.Offset
}

// read reads a span of the struct at va.
func (g *Guest) read(va uint64, s span) (part, error) {
	p := part{g.buf[:s.to-s.from], s.from}
	return p, g.mem.Read(va+uint64(s.from), p.b)
}

func (p part) byte(o layout.Offset) byte     { return p.b[o-p.from] }
func (p part) uint32(o layout.Offset) uint32 { return le.Uint32(p.b[o-p.from:]) }
func (p part) uint64(o layout.Offset) uint64 { return le.Uint64(p.b[o-p.from:]) }
