package introspecttest

import "sekimori/introspect/layout"

// A Machine is the memory of a virtual machine of x86-64 with a kernel in it:
// RAM is mapped twice, directly and, slid by some megabytes, where a kernel's
// image was linked to.
type Machine struct {
	*Kernel
	Banner string // lies in the image
	Slide  uint64 // of the image
}

// Addresses of a Machine.
const (
	Direct    = 0xffff_8880_0000_0000 // of RAM
	Linked    = 0xffff_ffff_8100_0000 // of the image, which is RAM from its beginning
	BannerAt  = 0x8000                // behind Linked
	PerCPU    = 0xa000                // behind Direct: what is of the only CPU
	RAMSize   = 32 << 20
	tablesAt  = 24 << 20
	twoMiB    = 2 << 20
	writable  = 1 << 1
	global    = 1 << 8
	pageShift = 21
)

// NewMachine returns a machine whose kernel has nothing but a banner.
func NewMachine(l layout.Layout, slide uint64) *Machine {
	m := &Machine{Kernel: NewKernel(l, Direct), Banner: "Linux version 6.12.0-seki (test) #1 SMP\n", Slide: slide}
	m.Write(Direct+BannerAt, append([]byte(m.Banner), 0))
	m.Map(Direct+PerCPU, 0x5000)
	// The list of devices ends where it begins: in the image.
	m.Put64(m.last, m.InImage(m.InitNet+uint64(l.Net.NetDevices)))
	m.ends = func(va uint64) uint64 { return m.InImage(va) }
	return m
}

// InImage is the address in the kernel's image of what lies at a direct address.
func (m *Machine) InImage(va uint64) uint64 { return va - Direct + Linked + m.Slide }

// Link is what the kernel's symbols say: without the slide.
func (m *Machine) Link(va uint64) uint64 { return va - Direct + Linked }

// Run makes a task the one that the only CPU runs, with that count.
func (m *Machine) Run(task uint64, preempt uint32) {
	m.Put64(Direct+PerCPU+uint64(m.Layout.PerCPU.Current), task)
	m.Put32(Direct+PerCPU+uint64(m.Layout.PerCPU.Preempt), preempt)
}

// Tables returns the RAM and its page tables. With isolation there are two, in
// two pages: the kernel's and, behind it, the user's, which has nothing of the
// kernel but the first page of its image.
func (m *Machine) Tables(isolated bool) *Tables {
	p := &Tables{RAM: m.RAM(RAMSize), Root: tablesAt, Next: tablesAt + 0x2000, Levels: 4}
	for pa := uint64(0); pa < RAMSize; pa += twoMiB {
		p.Put(Direct+pa, pa, pageShift, writable|global)
		p.Put(Linked+m.Slide+pa, pa, pageShift, writable|global)
	}
	if isolated {
		p.Root += 0x1000
		p.Put(Linked+m.Slide+BannerAt, BannerAt, 12, global)
		p.Root -= 0x1000
	}
	return p
}
