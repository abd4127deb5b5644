package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/vmm/guestmem"
	"sekimori/vmm/kvm"
)

// ringer is a guest of which one process rings.
func ringer(t *testing.T, task introspecttest.Task, preempt uint32) (*bell, introspect.Registers) {
	t.Helper()
	m := introspecttest.NewMachine(introspecttest.X86(), 0)
	task.Net, task.Cgroup, task.PIDNS = m.Net(101), m.Cgroup(7), 9
	m.Run(m.Task(task), preempt)
	tables := m.Tables(false)
	ram, err := guestmem.FromSlices(guestmem.Slice{Bytes: tables.RAM})
	if err != nil {
		t.Fatal(err)
	}
	g, err := introspect.New(introspect.Config{
		Memory: introspect.NewPaged(ram), Layout: &m.Layout, Members: introspect.NewMembers(), Current: introspect.PerCPUCurrent(0),
		InitNet: m.Link(m.InitNet), Image: introspect.Image{Banner: []byte(m.Banner), At: introspecttest.Linked + introspecttest.BannerAt},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &bell{guest: g, log: slog.New(slog.DiscardHandler)}, introspect.Registers{
		CR3: tables.Root, CR4: 0x20, GSBase: 0x7fff_0000_0000, KernelGSBase: introspecttest.Direct + introspecttest.PerCPU, User: true,
	}
}

// TestBell: the agent's threads are let in, and nobody else, whatever he calls
// himself.
func TestBell(t *testing.T) {
	const kthread, softirq = 0x0020_0000, 0x100 // PF_KTHREAD; see introspect's Context
	for _, tt := range []struct {
		name    string
		task    introspecttest.Task
		preempt uint32
		do      func(*introspect.Registers)
		want    string // the error; "" for the agent
	}{
		{"process 1", introspecttest.Task{PID: 1, TGID: 1, PGID: 0, Comm: "seki"}, 0, nil, ""},
		{"its thread", introspecttest.Task{PID: 17, TGID: 1, PGID: 0, Comm: "seki"}, 0, nil, ""},
		{"a container that says it is", introspecttest.Task{PID: 42, TGID: 42, PGID: 1, Comm: "seki"}, 0, nil, `rung by process 42, "seki"`},
		{"process 1 of a container", introspecttest.Task{PID: 43, TGID: 43, PGID: 43, Comm: "init", Level: 1}, 0, nil, "rung by process 43"},
		{"a thread of the kernel", introspecttest.Task{PID: 1, TGID: 1, Flags: kthread}, 0, nil, "rung by process 1"},
		{"on the agent's back", introspecttest.Task{PID: 1, TGID: 1}, softirq, nil, "rung by process 1"},
		{"the kernel itself", introspecttest.Task{PID: 1, TGID: 1}, 0, func(r *introspect.Registers) { r.User = false }, "rung by the guest's kernel"},
		{"page tables of nobody", introspecttest.Task{PID: 1, TGID: 1}, 0, func(r *introspect.Registers) { r.CR3 = 1 << 40 }, " "},
		{"no per-CPU data", introspecttest.Task{PID: 1, TGID: 1}, 0, func(r *introspect.Registers) { r.KernelGSBase = 0 }, " "},
	} {
		b, regs := ringer(t, tt.task, tt.preempt)
		if tt.do != nil {
			tt.do(&regs)
		}
		err := b.agent(&regs)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

// TestBellUnread: where the guest's memory cannot be read, nobody is let in.
func TestBellUnread(t *testing.T) {
	unread := errors.New("no BTF")
	b := &bell{log: slog.New(slog.DiscardHandler), memory: func() *guestmem.Memory { return nil },
		reader: func(*guestmem.Memory, *introspect.Members) (*introspect.Guest, error) { return nil, unread }}
	for range 2 * maxRefusals {
		if got := b.serve(&kvm.Regs{}, []byte("x")); got != nil {
			t.Fatalf("answered %q", got)
		}
	}
	if b.refused.Load() != 2*maxRefusals || !errors.Is(b.err, unread) {
		t.Errorf("%d refused, %v", b.refused.Load(), b.err)
	}
}
