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
// before v6.15.
func PerCPUCurrent(perCPU uint64) Current { return Current{how: howPerCPU, addr: perCPU} }

// StackCurrent is that of kernels before v4.9: thread_info lies at the base of
// the kernel's stack, of so many bytes, a power of two.
func StackCurrent(stackSize uint64) Current { return Current{how: howStack, size: stackSize} }

// Registers are those of a vCPU that stands still. User-Mode Linux needs none.
type Registers struct {
	CR3, CR4     uint64 // whose page tables are in force, and how deep they are
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

// Enter takes the registers of the vCPU as it left its guest: all questions are
// about where it stands until the next Enter. A guest of User-Mode Linux is asked
// without.
func (g *Guest) Enter(r *Registers) {
	g.regs, g.stands, g.known = *r, true, false
	if g.paged != nil {
		g.paged.Enter(r.CR3, r.CR4, false)
		g.settled = !r.User || r.CR3&cr3User == 0
	}
}

// Running reads the task that the CPU runs, and what the CPU does on its back.
// The frames of one exit share an answer: the task cannot change while its CPU
// stands still. Beyond that nothing is kept. An address may be another's after a
// microsecond (a task's, a namespace's that was freed), so that a proof that an
// old answer still holds would have to read all that the answer was read from.
func (g *Guest) Running() (Task, error) {
	if g.known {
		return g.task, nil
	}
	if err := g.mem.Look(g.look.running); err != nil {
		return Task{}, err
	}
	g.task, g.known = g.ask.task, g.stands
	return g.task, nil
}

func (g *Guest) askRunning() error {
	if err := g.settle(); err != nil {
		return err
	}
	t := &g.ask.task
	at, base, err := g.running(&g.regs)
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
		if g.current.addr != 0 {
			if err := g.find(); err != nil {
				return 0, 0, err
			}
			base += g.current.addr + g.slide
		}
		task, err = g.pointer(base + uint64(g.layout.PerCPU.Current))
		return task, base, err
	case howStack:
		if base, err = g.stack(r); err != nil {
			return 0, 0, err
		}
		task, err = g.pointer(base + uint64(g.layout.Task.ThreadInfoTask))
		return task, base, err
	}
	return 0, 0, ErrNoCurrent
}

// stack is where the stack of the running task begins. RSP leads there, but from
// ring 3 and from the stack of an interrupt. The end of the task's is where the
// next interrupt from ring 3 would begin, and so it is what the processor knows;
// a machine without it is one that is not running.
func (g *Guest) stack(r *Registers) (uint64, error) {
	mask := g.current.size - 1
	if r.TaskState == 0 {
		if r.User {
			return 0, ErrNoCurrent
		}
		return r.RSP &^ mask, nil
	}
	end, err := g.pointer(r.TaskState + tssSP0)
	return (end - 1) &^ mask, err
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
