package introspect_test

import (
	"fmt"
	"testing"

	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/introspect/layout"
)

const direct = 0x6000_0000

// newGuest returns a guest of a kernel, with members: 1 of namespace 101, 2 of
// namespace 102 and cgroup 202, 3 of cgroup 203.
func newGuest(t testing.TB, k *introspecttest.Kernel, mem introspect.Memory, c introspect.Current) *introspect.Guest {
	t.Helper()
	m := introspect.NewMembers()
	m.Set([]introspect.Member{{Number: 1, NetNS: 101}, {Number: 2, NetNS: 102, CgroupID: 202}, {Number: 3, CgroupID: 203}})
	if mem == nil {
		mem = k
	}
	g, err := introspect.New(introspect.Config{Memory: mem, Layout: &k.Layout, Current: c, InitNet: k.InitNet, Members: m})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

var layouts = map[string]func() layout.Layout{"uml": introspecttest.UML, "x86": introspecttest.X86, "3.10": introspecttest.Old}

func TestTask(t *testing.T) {
	for name, l := range layouts {
		k := introspecttest.NewKernel(l(), direct)
		g := newGuest(t, k, nil, introspect.Current{})
		net, cgroup := k.Net(101), k.Cgroup(7)
		id := uint64(7)
		if name == "3.10" {
			id = 0
		}
		tests := []struct {
			name string
			task introspecttest.Task
			want introspect.Task
		}{
			{"process", introspecttest.Task{PID: 42, TGID: 42, PGID: 40, Comm: "ping", Net: net, Cgroup: cgroup, PIDNS: 9},
				introspect.Task{PID: 42, TGID: 42, PGID: 40, Comm: introspect.Comm([]byte("ping\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")), CgroupID: id, NetNS: 101, PIDNS: 9}},
			{"thread", introspecttest.Task{PID: 43, TGID: 42, PGID: 40, Net: net, Cgroup: cgroup, PIDNS: 9},
				introspect.Task{PID: 43, TGID: 42, PGID: 40, CgroupID: id, NetNS: 101, PIDNS: 9}},
			{"in a nested pid namespace", introspecttest.Task{PID: 42, TGID: 42, PGID: 40, Net: net, Cgroup: cgroup, PIDNS: 11, Level: 3},
				introspect.Task{PID: 42, TGID: 42, PGID: 40, CgroupID: id, NetNS: 101, PIDNS: 11}},
			{"kernel thread", introspecttest.Task{PID: 12, TGID: 12, Flags: 0x00208040, Cgroup: cgroup, PIDNS: 1},
				introspect.Task{PID: 12, TGID: 12, CgroupID: id, PIDNS: 1, Kernel: true}},
		}
		for _, tt := range tests {
			got, err := g.Task(k.Task(tt.task))
			if err != nil || got != tt.want {
				t.Errorf("%s: %s: Task = %+v, %v; want %+v", name, tt.name, got, err, tt.want)
			}
		}
		gone := k.Task(introspecttest.Task{PID: 5, TGID: 5, PGID: 5, Cgroup: cgroup, PIDNS: 1})
		k.Put64(gone+uint64(k.Layout.Task.ThreadPID), 0)
		if name != "3.10" {
			if got, err := g.Task(gone); err != nil || got.NetNS != 0 || got.PIDNS != 0 || got.PID != 5 {
				t.Errorf("%s: a task that ends: %+v, %v", name, got, err)
			}
		}
	}
	if s := introspect.Comm([]byte("a\x00b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")).String(); s != "a" {
		t.Errorf("String = %q; want %q", s, "a")
	}
}

// TestTaskBroken makes each pointer of a task in turn one that leads nowhere.
func TestTaskBroken(t *testing.T) {
	l := introspecttest.UML()
	o := &l.Task
	k := introspecttest.NewKernel(l, direct)
	g := newGuest(t, k, nil, introspect.Current{})
	fields := map[string]layout.Offset{
		"group_leader": o.GroupLeader, "signal": o.Signal, "thread_pid": o.ThreadPID, "nsproxy": o.NSProxy, "cgroups": o.Cgroups,
	}
	for name, off := range fields {
		for _, bad := range []uint64{0, 1, 0xdead0000, direct - 8, ^uint64(0), ^uint64(0) - 4096, 0x8000_0000_0000} {
			if bad == 0 && (name == "nsproxy" || name == "thread_pid") {
				continue // of a task that ends
			}
			at := k.Task(introspecttest.Task{PID: 42, TGID: 42, PGID: 40, Net: k.Net(101), Cgroup: k.Cgroup(7), PIDNS: 9})
			k.Put64(at+uint64(off), bad)
			if got, err := g.Task(at); err == nil {
				t.Errorf("%s = %#x: Task = %+v; want an error", name, bad, got)
			}
		}
	}
	at := k.Task(introspecttest.Task{PID: 42, TGID: 42, Cgroup: k.Cgroup(7), PIDNS: 9, Level: 33})
	if _, err := g.Task(at); err == nil {
		t.Error("a task 33 pid namespaces deep was read")
	}
	other := k.Task(introspecttest.Task{PID: 41, TGID: 41, Cgroup: k.Cgroup(7)})
	at = k.Task(introspecttest.Task{PID: 42, TGID: 42, Cgroup: k.Cgroup(7), Leader: other})
	if _, err := g.Task(at); err == nil {
		t.Error("what has another's leader was taken for a task")
	}
	if _, err := g.Task(0); err == nil {
		t.Error("a task at NULL was read")
	}
}

func TestRunning(t *testing.T) {
	const gs, user = 0xffff_8880_0000_0000, 0x7fff_0000_1000
	perCPU := func(k *introspecttest.Kernel, task uint64, preempt uint32) {
		k.Put64(gs+uint64(k.Layout.PerCPU.Current), task)
		k.Put32(gs+uint64(k.Layout.PerCPU.Preempt), preempt)
	}
	stack := func(k *introspecttest.Kernel, task uint64, preempt uint32) uint64 {
		base := (k.Alloc(16<<10) + 8191) &^ 8191
		k.Put64(base+uint64(k.Layout.Task.ThreadInfoTask), task)
		k.Put32(base+uint64(k.Layout.Task.ThreadInfoPreempt), preempt)
		return base
	}
	kernels := []struct {
		name    string
		layout  func() layout.Layout
		current func(*introspecttest.Kernel) introspect.Current
		run     func(k *introspecttest.Kernel, task uint64, preempt uint32) introspect.Registers
	}{
		{"uml", introspecttest.UML,
			func(k *introspecttest.Kernel) introspect.Current { return introspect.UMLCurrent(direct + 0x100) },
			func(k *introspecttest.Kernel, task uint64, preempt uint32) introspect.Registers {
				k.Put64(direct+0x100, task)
				return introspect.Registers{}
			}},
		{"x86 from the kernel", introspecttest.X86,
			func(*introspecttest.Kernel) introspect.Current { return introspect.PerCPUCurrent(0) },
			func(k *introspecttest.Kernel, task uint64, preempt uint32) introspect.Registers {
				perCPU(k, task, preempt)
				return introspect.Registers{GSBase: gs, KernelGSBase: user}
			}},
		{"x86 from ring 3", introspecttest.X86,
			func(*introspecttest.Kernel) introspect.Current { return introspect.PerCPUCurrent(0) },
			func(k *introspecttest.Kernel, task uint64, preempt uint32) introspect.Registers {
				perCPU(k, task, preempt)
				return introspect.Registers{GSBase: user, KernelGSBase: gs, User: true}
			}},
		{"3.10 from the kernel", introspecttest.Old,
			func(*introspecttest.Kernel) introspect.Current { return introspect.StackCurrent(8192) },
			func(k *introspecttest.Kernel, task uint64, preempt uint32) introspect.Registers {
				return introspect.Registers{RSP: stack(k, task, preempt) + 0x1234}
			}},
		{"3.10 from an interrupt's stack", introspecttest.Old,
			func(*introspecttest.Kernel) introspect.Current { return introspect.StackCurrent(8192) },
			func(k *introspecttest.Kernel, task uint64, preempt uint32) introspect.Registers {
				tss, irq := k.Alloc(128), k.Alloc(32<<10)
				k.Put64(tss+4, stack(k, task, preempt)+8192)
				return introspect.Registers{RSP: irq + 16<<10, TaskState: tss}
			}},
		{"3.10 from ring 3", introspecttest.Old,
			func(*introspecttest.Kernel) introspect.Current { return introspect.StackCurrent(8192) },
			func(k *introspecttest.Kernel, task uint64, preempt uint32) introspect.Registers {
				tss := k.Alloc(128)
				k.Put64(tss+4, stack(k, task, preempt)+8192)
				return introspect.Registers{RSP: user, TaskState: tss, User: true}
			}},
	}
	contexts := []struct {
		count uint32
		want  introspect.Context
	}{
		{0, introspect.ContextProcess}, {0x401, introspect.ContextProcess}, {0x601, introspect.ContextProcess}, {0x8000_0000, introspect.ContextProcess},
		{0x502, introspect.ContextSoftirq}, {0x100, introspect.ContextSoftirq},
		{0x1_0000, introspect.ContextHardirq}, {0x1_0100, introspect.ContextHardirq}, {0x10_0000, introspect.ContextHardirq},
	}
	for _, kn := range kernels {
		for _, c := range contexts {
			t.Run(fmt.Sprintf("%s %#x", kn.name, c.count), func(t *testing.T) {
				k := introspecttest.NewKernel(kn.layout(), direct)
				g := newGuest(t, k, nil, kn.current(k))
				task := k.Task(introspecttest.Task{PID: 42, TGID: 42, PGID: 40, Net: k.Net(101), Cgroup: k.Cgroup(7), PIDNS: 9, Preempt: c.count})
				r := kn.run(k, task, c.count)
				g.Enter(&r)
				got, err := g.Running()
				if err != nil || got.PID != 42 || got.Context != c.want {
					t.Errorf("Running = %+v, %v; want pid 42 in %v", got, err, c.want)
				}
			})
		}
	}
}

func TestRunningUnknown(t *testing.T) {
	k := introspecttest.NewKernel(introspecttest.UML(), direct)
	for _, c := range []introspect.Current{{}, introspect.PerCPUCurrent(0), introspect.StackCurrent(8192), introspect.UMLCurrent(8), introspect.UMLCurrent(k.Alloc(8))} {
		g := newGuest(t, k, nil, c)
		if got, err := g.Running(); err == nil {
			t.Errorf("%+v: Running = %+v; want an error", c, got)
		}
	}
}

func TestOfTask(t *testing.T) {
	m := introspect.NewMembers()
	if m.OfTask(&introspect.Task{}) != 0 {
		t.Error("of nobody a task is somebody's")
	}
	m.Set([]introspect.Member{{Number: 1, NetNS: 101}, {Number: 2, NetNS: 102, CgroupID: 202}, {Number: 3, CgroupID: 203}, {Number: 4, NetNS: 104}, {Number: 5, NetNS: 104}, {Number: 6}})
	tests := []struct {
		name string
		task introspect.Task
		want uint32
	}{
		{"by namespace", introspect.Task{NetNS: 101, CgroupID: 9}, 1},
		{"by cgroup", introspect.Task{NetNS: 9, CgroupID: 203}, 3},
		{"by both", introspect.Task{NetNS: 102, CgroupID: 202}, 2},
		{"they contradict", introspect.Task{NetNS: 101, CgroupID: 202}, 0},
		{"by neither", introspect.Task{NetNS: 9, CgroupID: 9}, 0},
		{"claimed twice", introspect.Task{NetNS: 104}, 0},
		{"no namespace", introspect.Task{}, 0},
		{"a kernel thread", introspect.Task{NetNS: 101, Kernel: true}, 0},
	}
	for _, tt := range tests {
		if got := m.OfTask(&tt.task); got != tt.want {
			t.Errorf("%s: OfTask = %d; want %d", tt.name, got, tt.want)
		}
	}
}
