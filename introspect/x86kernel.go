package introspect

import (
	"debug/elf"
	"fmt"
	"io"

	"sekimori/introspect/layout"
	"sekimori/vmm/guestmem"
)

// An X86Kernel is what the image of a kernel of x86-64 says of itself.
type X86Kernel struct {
	layout  *layout.Layout
	image   Image
	initNet uint64
	perCPU  uint64
}

// ReadX86 reads an image, the uncompressed vmlinux with its BTF, as it lies in a
// bzImage too, and the modules that drive the network card where they are not
// part of it: virtio_net and, before some distributions built it in, virtio_ring.
// Its symbol table may be stripped: what is needed is exported to modules. It
// takes 50 ms.
func ReadX86(vmlinux io.ReaderAt, modules ...io.ReaderAt) (*X86Kernel, error) {
	l, err := layout.Read(vmlinux, modules...)
	if err != nil {
		return nil, err
	}
	if l.PerCPU.Current == layout.None {
		return nil, &layout.Error{Path: ".data..percpu", Why: "no current_task and no pcpu_hot: not a kernel of x86-64 since v2.6.30"}
	}
	syms, err := layout.Symbols(vmlinux, "init_net")
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(vmlinux)
	if err != nil {
		return nil, fmt.Errorf("kernel image: %w", err)
	}
	k := &X86Kernel{layout: l, initNet: syms["init_net"]}
	if k.image, err = readImage(f); err != nil {
		return nil, err
	}
	// Linked to 0 before v6.15 (CONFIG_X86_64_SMP: zero-based), and so the base in
	// GS is the address; since then it is a distance (Debian 7.3.4, in L2 of e2e/nested).
	if s := f.Section(".data..percpu"); s != nil {
		k.perCPU = s.Addr
	}
	return k, nil
}

// Guest is the kernel as it runs on one vCPU: each has a Guest of its own.
func (k *X86Kernel) Guest(ram *guestmem.Memory, m *Members) (*Guest, error) {
	return New(Config{Memory: NewPaged(ram), Layout: k.layout, Current: PerCPUCurrent(k.perCPU), InitNet: k.initNet, Image: k.image, Members: m})
}
