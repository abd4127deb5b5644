package introspect_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/vmm/guestmem"
)

// A machine is a virtual machine with a card, and a task of member 1 and one of
// nobody; a frame of member 1 waits at descriptor 0, one of the kernel's at 1.
type machine struct {
	*introspecttest.Machine
	tables        *introspecttest.Tables
	card          *introspecttest.Card
	task, other   uint64
	g             *introspect.Guest
	q             *introspect.Queue
	kernel, inUse introspect.Registers // in kernel mode, and from ring 3
}

// perCPULinked is where kernels since v6.15 link the data of a CPU.
const perCPULinked = introspecttest.Linked + 0x60_0000

func newMachine(t testing.TB, slide uint64, isolated bool, perCPU uint64) *machine {
	t.Helper()
	m := &machine{Machine: introspecttest.NewMachine(introspecttest.X86(), slide)}
	net := m.Net(101)
	m.card = m.Card(cardMAC, 256)
	m.Device([6]byte{2, 0, 0, 0, 0, 9})
	m.Post(m.card, 0, introspecttest.Frame{Len: 60, Sk: m.Socket(introspecttest.Socket{Net: net})})
	m.Post(m.card, 1, introspecttest.Frame{Len: 42})
	m.task = m.Task(introspecttest.Task{PID: 42, TGID: 42, PGID: 40, Comm: "ping", Net: net, Cgroup: m.Cgroup(7), PIDNS: 9})
	m.other = m.Task(introspecttest.Task{PID: 43, TGID: 43, PGID: 43, Net: m.Net(999), Cgroup: m.Cgroup(8), PIDNS: 9})
	m.Run(m.task, 0)
	m.start(t, isolated, perCPU)
	return m
}

// start makes RAM of what is there now, and a guest that looks at it.
func (m *machine) start(t testing.TB, isolated bool, perCPU uint64) {
	t.Helper()
	m.tables = m.Tables(isolated)
	ram, err := guestmem.FromSlices(guestmem.Slice{Bytes: m.tables.RAM})
	if err != nil {
		t.Fatal(err)
	}
	members := introspect.NewMembers()
	members.Set([]introspect.Member{{Number: 1, NetNS: 101}, {Number: 3, CgroupID: 203}})
	m.g, err = introspect.New(introspect.Config{
		Memory: introspect.NewPaged(ram), Layout: &m.Layout, Members: members, Current: introspect.PerCPUCurrent(perCPU),
		InitNet: m.Link(m.InitNet), Image: introspect.Image{Banner: []byte(m.Banner), At: introspecttest.Linked + introspecttest.BannerAt},
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.q, err = m.g.Queue(introspect.Ring{MAC: cardMAC, Desc: m.card.Desc, Count: 256}); err != nil {
		t.Fatal(err)
	}
	gs := uint64(introspecttest.Direct + introspecttest.PerCPU)
	if perCPU != 0 {
		gs -= perCPU + m.Slide
	}
	m.kernel = introspect.Registers{CR3: m.tables.Root | 0x5, CR4: 0x20, GSBase: gs, KernelGSBase: 0x7fff_0000_0000}
	m.inUse = introspect.Registers{CR3: m.tables.Root, CR4: 0x20, GSBase: 0x7fff_0000_0000, KernelGSBase: gs, User: true}
	if isolated {
		m.inUse.CR3 |= 0x1000 | 0x800 | 0x5 // the user's tables, and their PCID
	}
}

// put writes to the guest's RAM, as its kernel would at a direct address.
func (m *machine) put(va, v uint64) {
	binary.LittleEndian.PutUint64(m.tables.RAM[va-introspecttest.Direct:], v)
}

func TestX86(t *testing.T) {
	for _, slide := range []uint64{0, 2 << 20, 0x1e00000, 992 << 20} {
		for _, isolated := range []bool{false, true} {
			for _, perCPU := range []uint64{0, perCPULinked} {
				t.Run(fmt.Sprintf("%#x %v %#x", slide, isolated, perCPU), func(t *testing.T) {
					m := newMachine(t, slide, isolated, perCPU)
					for name, r := range map[string]*introspect.Registers{"kernel": &m.kernel, "user": &m.inUse} {
						m.g.Enter(r)
						if got := m.q.Owner(0, 60); got != (introspect.Owner{Member: 1}) {
							t.Errorf("%s: Owner = %+v; want 1", name, got)
						}
						if got := m.q.Owner(1, 42); got != (introspect.Owner{Kernel: true}) {
							t.Errorf("%s: Owner = %+v; want the kernel", name, got)
						}
						got, err := m.g.Running()
						if err != nil || got.PID != 42 || got.PGID != 40 || got.NetNS != 101 || got.CgroupID != 7 || got.Context != introspect.ContextProcess {
							t.Errorf("%s: Running = %+v, %v; want pid 42", name, got, err)
						}
					}
				})
			}
		}
	}
}

// TestX86Kept: an answer holds while the processor stands, and not longer.
func TestX86Kept(t *testing.T) {
	m := newMachine(t, 0, false, 0)
	current := introspecttest.Direct + introspecttest.PerCPU + uint64(m.Layout.PerCPU.Current)
	m.g.Enter(&m.kernel)
	if got, err := m.g.Running(); err != nil || got.PID != 42 {
		t.Fatalf("Running = %+v, %v", got, err)
	}
	m.put(current, m.other)
	if got, err := m.g.Running(); err != nil || got.PID != 42 {
		t.Errorf("Running = %+v, %v; want pid 42, where the processor still stands", got, err)
	}
	m.g.Enter(&m.kernel)
	if got, err := m.g.Running(); err != nil || got.PID != 43 || got.NetNS != 999 {
		t.Errorf("Running = %+v, %v; want pid 43", got, err)
	}
	// The same task, in another namespace: of what is behind it nothing is kept.
	proxy := m.word(m.other + uint64(m.Layout.Task.NSProxy))
	m.put(proxy+uint64(m.Layout.Task.NSProxyNet), m.word(m.word(m.task+uint64(m.Layout.Task.NSProxy))+uint64(m.Layout.Task.NSProxyNet)))
	m.g.Enter(&m.kernel)
	if got, err := m.g.Running(); err != nil || got.PID != 43 || got.NetNS != 101 {
		t.Errorf("Running = %+v, %v; want pid 43 in namespace 101", got, err)
	}
	// What was no answer is asked for again.
	m.put(current, 0)
	m.g.Enter(&m.kernel)
	if got, err := m.g.Running(); err == nil {
		t.Errorf("Running = %+v; want an error", got)
	}
	m.put(current, m.task)
	if got, err := m.g.Running(); err != nil || got.PID != 42 {
		t.Errorf("Running = %+v, %v; want pid 42", got, err)
	}
}

func (m *machine) word(va uint64) uint64 {
	return binary.LittleEndian.Uint64(m.tables.RAM[va-introspecttest.Direct:])
}

// TestX86Placed: the kernel is found once it is there, and again where it moved.
func TestX86Placed(t *testing.T) {
	m := newMachine(t, 64<<20, false, 0)
	banner := m.tables.RAM[introspecttest.BannerAt:]
	banner[14] = '5' // another build
	m.g.Enter(&m.kernel)
	if got := m.q.Owner(0, 60); got.Member != 0 || got.Kernel || !strings.Contains(got.Cause, "not found") {
		t.Errorf("another kernel: Owner = %+v; want nobody", got)
	}
	banner[14] = '6'
	if got := m.q.Owner(0, 60); got.Member != 1 {
		t.Errorf("Owner = %+v; want 1", got)
	}
	// kexec: the same kernel at another place, and another card.
	old := m.card
	m.Slide = 128 << 20
	m.Machine = introspecttest.NewMachine(introspecttest.X86(), m.Slide)
	m.Alloc(64 << 10)
	m.card = m.Card(cardMAC, 256)
	m.Post(m.card, 0, introspecttest.Frame{Len: 60, Sk: m.Socket(introspecttest.Socket{Net: m.Net(101)})})
	if old.Desc == m.card.Desc {
		t.Fatal("the card did not move")
	}
	g := m.g
	ram := m.tables.RAM
	m.tables = m.Tables(false)
	copy(ram, m.tables.RAM)
	q, err := g.Queue(introspect.Ring{MAC: cardMAC, Desc: m.card.Desc, Count: 256})
	if err != nil {
		t.Fatal(err)
	}
	if got := m.q.Owner(0, 60); got.Member != 0 || got.Kernel {
		t.Errorf("the ring of before: Owner = %+v; want nobody", got)
	}
	if got := q.Owner(0, 60); got.Member != 1 {
		t.Errorf("the ring of now: Owner = %+v; want 1", got)
	}
}

// TestX86Lost: without the kernel's page tables there is no answer, whatever is
// mapped in those that are in force.
func TestX86Lost(t *testing.T) {
	m := newMachine(t, 0, true, 0)
	clear(m.tables.RAM[m.tables.Root : m.tables.Root+0x1000])
	m.g.Enter(&m.inUse)
	if got, err := m.g.Running(); !errors.Is(err, introspect.ErrNoKernel) {
		t.Errorf("Running = %+v, %v; want %v", got, err, introspect.ErrNoKernel)
	}
	if got := m.q.Owner(0, 60); got.Member != 0 || got.Kernel || got.Cause == "" {
		t.Errorf("Owner = %+v; want nobody", got)
	}
	if got, err := m.g.Task(m.task); !errors.Is(err, introspect.ErrNoKernel) {
		t.Errorf("Task = %+v, %v; want %v", got, err, introspect.ErrNoKernel)
	}
}

// TestX86Device: what a card in somebody's namespace sends is his, with a socket
// or without.
func TestX86Device(t *testing.T) {
	m := newMachine(t, 0, false, 0)
	m.Put64(m.card.Dev+uint64(m.Layout.Net.DevNet), m.Net(101))
	m.Post(m.card, 2, introspecttest.Frame{Len: 42, Iif: 3})
	m.start(t, false, 0)
	m.g.Enter(&m.kernel)
	for head := range uint16(2) {
		if got := m.q.Owner(1+head, 42); got != (introspect.Owner{Member: 1}) {
			t.Errorf("Owner = %+v; want 1", got)
		}
	}
}

func TestX86Allocates(t *testing.T) {
	m := newMachine(t, 64<<20, true, perCPULinked)
	for _, r := range []*introspect.Registers{&m.kernel, &m.inUse} {
		if n := testing.AllocsPerRun(1000, func() {
			m.g.Enter(r)
			m.q.Owner(0, 60)
			m.q.Owner(1, 42)
			m.g.Running()
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// FuzzX86 asks about a machine whose memory and page tables were written over,
// from a processor whose registers hold anything.
func FuzzX86(f *testing.F) {
	f.Add(uint64(0), uint64(0), uint64(0), uint64(0), byte(0), []byte{})
	f.Add(uint64(0x1000), uint64(1<<12), ^uint64(0), uint64(8), byte(3), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	m := newMachine(f, 64<<20, true, perCPULinked)
	clean := append([]byte(nil), m.tables.RAM...)
	f.Fuzz(func(t *testing.T, cr3, cr4, gs, kernelGS uint64, flags byte, script []byte) {
		r := m.kernel
		if flags&1 != 0 {
			r = m.inUse
		}
		r.CR3, r.CR4, r.GSBase, r.KernelGSBase = r.CR3^cr3, r.CR4^cr4, r.GSBase^gs, r.KernelGSBase^kernelGS
		var dirty []uint64
		for ; len(script) >= 12; script = script[12:] {
			at, v := uint64(binary.LittleEndian.Uint32(script)), binary.LittleEndian.Uint64(script[4:])
			if at%2 != 0 { // in the tables
				at = m.tables.Root + at%0x8000
			}
			at = at % (introspecttest.RAMSize - 8) &^ 7
			dirty = append(dirty, at)
			binary.LittleEndian.PutUint64(m.tables.RAM[at:], v)
		}
		m.g.Enter(&r)
		for head := range uint16(3) {
			o := m.q.Owner(head, 60)
			if o.Member > 3 || o.Kernel && o.Member != 0 || (o.Cause == "") == (o.Member == 0 && !o.Kernel) {
				t.Errorf("Owner = %+v", o)
			}
		}
		if got, err := m.g.Running(); err != nil && got != (introspect.Task{}) {
			t.Errorf("Running = %+v with %v", got, err)
		}
		for _, at := range dirty {
			copy(m.tables.RAM[at:at+8], clean[at:at+8])
		}
	})
}

// BenchmarkX86 is what a kick costs beside its exit: who owns the frame, and who
// runs.
func BenchmarkX86(b *testing.B) {
	for _, isolated := range []bool{false, true} {
		m := newMachine(b, 64<<20, isolated, 0)
		for name, r := range map[string]*introspect.Registers{"kernel": &m.kernel, "user": &m.inUse} {
			b.Run(fmt.Sprintf("owner %s isolated=%v", name, isolated), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					m.g.Enter(r)
					m.q.Owner(0, 60)
				}
			})
			b.Run(fmt.Sprintf("running %s isolated=%v", name, isolated), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					m.g.Enter(r)
					m.g.Running()
				}
			})
		}
	}
}
