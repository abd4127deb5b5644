package introspect

import (
	"errors"

	"sekimori/introspect/layout"
)

// A Current says how a kernel finds the task that a CPU runs. The zero Current
// finds none.
type Current struct {
	how  how
	addr uint64
	size uint64
}

type how uint8

const (
	howNone how = iota
	howUML
	howPerCPU
	howStack
)

// UMLCurrent is that of User-Mode Linux: the first word of cpu_tasks, whose
// address is that symbol's. (It is a struct of one pointer up to v6.12, and a
// pointer since.)
func UMLCurrent(cpuTasks uint64) Current { return Current{how: howUML, addr: cpuTasks} }

// PerCPUCurrent is that of x86: a word behind the base of the CPU's data, which
// GS holds. perCPU is where the data is linked to, symbol __per_cpu_start: 0
// before v6.15, and where the symbol is not known.
func PerCPUCurrent(perCPU uint64) Current { return Current{how: howPerCPU, addr: perCPU} }

// StackCurrent is that of kernels before v4.9: thread_info lies at the base of
// the kernel's stack, of so many bytes, a power of two.
func StackCurrent(stackSize uint64) Current { return Current{how: howStack, size: stackSize} }

// Registers are those of a vCPU that stands still. User-Mode Linux needs none.
type Registers struct {
	GSBase       uint64 // of segment register GS
	KernelGSBase uint64 // MSR_KERNEL_GS_BASE
	RSP          uint64
	TaskState    uint64 // base of the task state segment, TR
	User         bool   // the CPU left from ring 3: GS and RSP are the user's
}

// ErrNoCurrent says that this guest's running task cannot be found.
var ErrNoCurrent = errors.New("no way to the running task is known")

// tssSP0 is where a task state segment of 64 bits keeps the stack of ring 0
// (Intel SDM volume 3, 8.7).
const tssSP0 = 4

// no allocation, no lock, no log below this line

// Running reads the task that the CPU runs, and what the CPU does on its back.
func (g *Guest) Running(r *Registers) (Task, error) {
	g.ask.regs = *r
	if err := g.mem.Look(g.look.running); err != nil {
		return Task{}, err
	}
	return g.ask.task, nil
}

func (g *Guest) askRunning() error {
	t := &g.ask.task
	at, base, err := g.running(&g.ask.regs)
	if err != nil {
		return err
	}
	if err := g.readTask(at, t); err != nil {
		return err
	}
	t.Context, err = g.context(at, base)
	return err
}

// running is the address of the running task, and the base of what its CPU or
// its stack keeps: of the CPU's data, or of thread_info; 0 for neither.
func (g *Guest) running(r *Registers) (task, base uint64, err error) {
	switch g.current.how {
	case howUML:
		task, err = g.pointer(g.current.addr)
		return task, 0, err
	case howPerCPU:
		base = r.GSBase
		if r.User {
			base = r.KernelGSBase
		}
		if g.layout.PerCPU.Current == layout.None {
			return 0, 0, ErrNoCurrent
		}
		base += g.current.addr
		task, err = g.pointer(base + uint64(g.layout.PerCPU.Current))
		return task, base, err
	case howStack:
		top := r.RSP
		if r.User {
			if top, err = g.pointer(r.TaskState + tssSP0); err != nil {
				return 0, 0, err
			}
			top-- // sp0 is the end of the stack
		}
		base = top &^ (g.current.size - 1)
		task, err = g.pointer(base + uint64(g.layout.Task.ThreadInfoTask))
		return task, base, err
	}
	return 0, 0, ErrNoCurrent
}

// context reads the count that says whether the CPU works for its task.
func (g *Guest) context(task, base uint64) (Context, error) {
	o := &g.layout.Task
	var at uint64
	var err error
	switch {
	case g.current.how == howPerCPU && g.layout.PerCPU.Preempt != layout.None:
		at = base + uint64(g.layout.PerCPU.Preempt)
	case o.ThreadInfoPreempt == layout.None:
		return ContextUnknown, nil
	case g.current.how == howStack:
		at = base + uint64(o.ThreadInfoPreempt)
	case o.ThreadInfo != layout.None:
		at = task + uint64(o.ThreadInfo+o.ThreadInfoPreempt)
	default:
		if at, err = g.pointer(task + uint64(o.Stack)); err != nil {
			return ContextUnknown, err
		}
		at += uint64(o.ThreadInfoPreempt)
	}
	count, err := g.half(at)
	if err != nil {
		return ContextUnknown, err
	}
	return contextOf(count), nil
}
