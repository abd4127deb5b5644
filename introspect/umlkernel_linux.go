package introspect

import (
	"fmt"
	"io"

	"sekimori/introspect/layout"
	"sekimori/vmm/guestmem"
)

// A UMLKernel is what the image of a User-Mode Linux kernel says of itself.
type UMLKernel struct {
	layout    *layout.Layout
	base, end uint64 // of the image
	cpuTasks  uint64
	initNet   uint64
}

// ReadUML reads an image, an ELF file with BTF and symbols. It takes 10 ms,
// which a boot has while it waits for its devices.
func ReadUML(image io.ReaderAt) (*UMLKernel, error) {
	l, err := layout.Read(image)
	if err != nil {
		return nil, err
	}
	names := []string{"__binary_start", "_end", "cpu_tasks", "init_net"}
	syms, err := layout.Symbols(image, names...)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if syms[n] == 0 {
			return nil, fmt.Errorf("kernel symbols: no %s: the symbol table was stripped", n)
		}
	}
	return &UMLKernel{layout: l, base: syms[names[0]], end: syms[names[1]], cpuTasks: syms[names[2]], initNet: syms[names[3]]}, nil
}

// Guest is the kernel as it runs, in RAM that it shares with its devices and in
// its main process: see [NewUML].
func (k *UMLKernel) Guest(ram *guestmem.Memory, pid int, m *Members) (*Guest, error) {
	return New(Config{Memory: NewUML(ram, pid, k.base, k.end), Layout: k.layout, Current: UMLCurrent(k.cpuTasks), InitNet: k.initNet, Members: m})
}
