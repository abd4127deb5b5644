package kvm

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"

	"github.com/bobuhiro11/gokvm/kvm"
	"github.com/bobuhiro11/gokvm/pvh"

	"sekimori/vmm/guestmem"
)

// The PVH entry's own types of memory are those of E820
// (include/xen/interface/hvm/start_info.h).
const (
	pvhRAM      = 1
	pvhReserved = 2
)

// vmlinux loads a kernel that is not packed.
func (l *linux) vmlinux(initrd []*os.File) error {
	e, err := elf.NewFile(l.file)
	switch {
	case err != nil:
		return err
	case e.Class != elf.ELFCLASS64 || e.Machine != elf.EM_X86_64:
		return fmt.Errorf("an ELF file for %v: want one for x86-64", e.Machine)
	}
	end, err := l.segments(e)
	if err != nil {
		return err
	}
	entry, err := l.entry(e)
	if err != nil {
		return err
	}
	at, size, err := l.archive(initrd, end, l.low)
	if err != nil {
		return err
	}
	if err := l.writeLine(1 << 11); err != nil { // COMMAND_LINE_SIZE, arch/x86/include/asm/setup.h
		return err
	}
	if err := l.startInfo(at, size); err != nil {
		return err
	}
	gdt := pvh.CreateGDT()
	if err := l.mem.Write(pvh.BootGDTStart, gdt.Bytes()); err != nil {
		return err
	}
	s, err := l.sregs()
	if err != nil {
		return err
	}
	// 32-bit protected mode without paging, and flat segments (include/xen/
	// interface/hvm/start_info.h says what else is as it likes).
	data := pvh.SegmentFromGDT(gdt[2], 2)
	s.CS, s.TR = pvh.SegmentFromGDT(gdt[1], 1), pvh.SegmentFromGDT(gdt[3], 3)
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.GDT = kvm.Descriptor{Base: pvh.BootGDTStart, Limit: uint16(len(gdt)*8) - 1}
	s.IDT = kvm.Descriptor{Base: pvh.BootIDTStart}
	s.CR0, s.CR4 = cr0PE, 0
	return l.set(&kvm.Regs{RIP: uint64(entry), RBX: pvhInfo, RFLAGS: 2}, s)
}

// segments loads what the file says, and returns the end of it.
func (l *linux) segments(e *elf.File) (end uint64, err error) {
	for _, p := range e.Progs {
		if p.Type != elf.PT_LOAD || p.Memsz == 0 {
			continue
		}
		switch {
		case p.Filesz > p.Memsz || p.Off > uint64(l.size) || p.Filesz > uint64(l.size)-p.Off:
			return 0, fmt.Errorf("segment at %#x: %d bytes, which the file does not have", p.Paddr, p.Filesz)
		case p.Paddr < highStart || p.Paddr > l.low || p.Memsz > l.low-p.Paddr:
			return 0, fmt.Errorf("it wants %d MiB from %d MiB on, and there are %d", p.Memsz>>20, p.Paddr>>20, l.low>>20)
		}
		if err := l.copyIn(guestmem.GPA(p.Paddr), l.file, int64(p.Off), int64(p.Filesz)); err != nil {
			return 0, err
		}
		end = max(end, p.Paddr+p.Memsz)
	}
	if end == 0 {
		return 0, errors.New("nothing in it is to be loaded")
	}
	return end, nil
}

// entry is where PVH enters the kernel, in 32-bit mode.
func (l *linux) entry(e *elf.File) (uint32, error) {
	for _, p := range e.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<20 {
			continue
		}
		if at, err := pvh.ParsePVHEntry(l.file, p); err == nil {
			return at, nil
		}
	}
	return 0, errors.New("it has no PVH entry (CONFIG_PVH): its bzImage has another")
}

// startInfo tells the kernel what is where.
func (l *linux) startInfo(initrd, size uint64) error {
	info := pvh.NewStartInfo(acpiBase, commandLine)
	info.MemMapPAddr = pvhMemory
	if size > 0 {
		module, err := pvh.NewModListEntry(initrd, size, 0).Bytes()
		if err != nil {
			return err
		}
		if err := l.mem.Write(pvhModules, module); err != nil {
			return err
		}
		info.NrModules, info.ModlistPAddr = 1, pvhModules
	}
	var table []byte
	for _, s := range l.spans() {
		kind := uint32(pvhReserved)
		if s.ram {
			kind = pvhRAM
		}
		entry, err := pvh.NewMemMapTableEntry(s.base, s.n, kind).Bytes()
		if err != nil {
			return err
		}
		table = append(table, entry...)
		info.MemMapEntries++
	}
	raw, err := info.Bytes()
	if err != nil {
		return err
	}
	return errors.Join(l.mem.Write(pvhMemory, table), l.mem.Write(pvhInfo, raw))
}
