package introspect

import (
	"bytes"
	"errors"

	"sekimori/introspect/layout"
)

// A Task is a thread of the guest. Numbers of processes are those of the
// guest's first pid namespace.
type Task struct {
	PID, TGID, PGID int32
	// Comm is the name that the task gave itself: anything.
	Comm Comm
	// CgroupID is the inode of its cgroup's directory. NetNS and PIDNS are the
	// inodes of its namespaces; PIDNS is that which it was born into.
	CgroupID     uint64
	NetNS, PIDNS uint64
	// Kernel says that it is a thread of the kernel: it works for others.
	Kernel bool
	// Context is what the CPU does besides, where the Task is the running one.
	Context Context
}

// A Comm is the name of a task, padded with zeros.
type Comm [16]byte

// String is the name.
func (c Comm) String() string {
	name, _, _ := bytes.Cut(c[:], []byte{0})
	return string(name)
}

// A Context is what a CPU does on the back of the task that is current. The
// zero Context is not known: nobody can be held to account.
type Context uint8

// The contexts.
const (
	ContextUnknown Context = iota
	ContextProcess         // what is done is done for the task
	ContextSoftirq         // deferred work, of anybody's
	ContextHardirq         // an interrupt, or an NMI
)

var contextNames = [...]string{"unknown", "process", "softirq", "hardirq"}

// String is the name of the context.
func (c Context) String() string {
	if int(c) < len(contextNames) {
		return contextNames[c]
	}
	return "invalid"
}

// Bits of preempt_count (include/linux/preempt.h). The bits above 0x100 count
// how often bottom halves are disabled, which is no softirq. Hard interrupts
// have 4 bits today and had 10 before v3.16, NMIs one above.
const (
	countSoftirq = 0x0000_0100
	countHardirq = 0x07ff_0000
)

func contextOf(count uint32) Context {
	switch {
	case count&countHardirq != 0:
		return ContextHardirq
	case count&countSoftirq != 0:
		return ContextSoftirq
	}
	return ContextProcess
}

// flagKThread is PF_KTHREAD (include/linux/sched.h), the same since v2.6.27.
const flagKThread = 0x0020_0000

// maxPIDLevel is MAX_PID_NS_LEVEL (include/linux/pid_namespace.h).
const maxPIDLevel = 32

// Errors of a task that is not one.
var (
	errNotATask  = errors.New("not a task")
	errPIDNested = errors.New("pid namespaces nested too deep")
)

// no allocation, no lock, no log below this line

// Task reads the task at an address. A thread of the kernel, and a task that is
// ending, have no namespaces: 0.
func (g *Guest) Task(at uint64) (Task, error) {
	g.ask.at = at
	if err := g.mem.Look(g.look.task); err != nil {
		return Task{}, err
	}
	return g.ask.task, nil
}

func (g *Guest) askTask() error {
	if err := g.settle(); err != nil {
		return err
	}
	return g.readTask(g.ask.at, &g.ask.task)
}

func (g *Guest) readTask(at uint64, t *Task) error {
	*t = Task{}
	o := &g.layout.Task
	b, err := g.gather(at)
	if err != nil {
		return err
	}
	f := &g.fields
	t.PID, t.TGID = int32(le.Uint32(b[f.pid:])), int32(le.Uint32(b[f.tgid:]))
	t.Comm = Comm(b[f.comm:])
	t.Kernel = le.Uint32(b[f.flags:])&flagKThread != 0
	leader, signal, threadPID := le.Uint64(b[f.leader:]), le.Uint64(b[f.signal:]), le.Uint64(b[f.threadPID:])
	nsproxy, cgroups := le.Uint64(b[f.ns:]), le.Uint64(b[f.cgroup:])

	// What is no task does not have a leader whose number is that of the group.
	if number, err := g.half(leader + uint64(o.PID)); err != nil || int32(number) != t.TGID {
		return errNotATask
	}
	if err := g.group(at, signal, t); err != nil {
		return err
	}
	if err := g.pidNS(threadPID, t); err != nil {
		return err
	}
	if nsproxy != 0 {
		net, err := g.pointer(nsproxy + uint64(o.NSProxyNet))
		if err != nil {
			return err
		}
		if t.NetNS, err = g.inode(net, g.layout.Net.NetInum); err != nil {
			return err
		}
	}
	if o.CSSDefault == layout.None { // only v1 hierarchies: each has its own
		return nil
	}
	cgroup, err := g.pointer(cgroups + uint64(o.CSSDefault))
	if err != nil {
		return err
	}
	t.CgroupID, err = g.cgroup(cgroup)
	return err
}

// group reads the process group: the number of a struct pid.
func (g *Guest) group(task, signal uint64, t *Task) error {
	o := &g.layout.Task
	at := signal + uint64(o.SignalPGRP)
	if o.SignalPGRP == layout.None {
		at = task + uint64(o.PGRP)
	}
	pid, err := g.word(at)
	if err != nil || pid == 0 { // the first task has none
		return err
	}
	number, err := g.half(pid + uint64(o.PIDNumbers+o.UpidNr))
	t.PGID = int32(number)
	return err
}

// pidNS reads the namespace of a struct pid: that of its innermost number.
func (g *Guest) pidNS(pid uint64, t *Task) error {
	o := &g.layout.Task
	if pid == 0 {
		return nil
	}
	level, err := g.half(pid + uint64(o.PIDLevel))
	if err != nil {
		return err
	}
	if level > maxPIDLevel {
		return errPIDNested
	}
	ns, err := g.pointer(pid + uint64(o.PIDNumbers) + uint64(level)*uint64(o.UpidSize) + uint64(o.UpidNS))
	if err != nil {
		return err
	}
	t.PIDNS, err = g.inode(ns, o.PIDNSInum)
	return err
}

// inode is the number of a namespace.
func (g *Guest) inode(ns uint64, at layout.Offset) (uint64, error) {
	n, err := g.half(ns + uint64(at))
	return uint64(n), err
}

// cgroup is the inode of a cgroup's directory.
func (g *Guest) cgroup(at uint64) (uint64, error) {
	node, err := g.pointer(at + uint64(g.layout.Task.CgroupKN))
	if err != nil {
		return 0, err
	}
	return g.word(node + uint64(g.layout.Task.KNID))
}
