package kvm

import (
	"encoding/binary"
	"fmt"

	"github.com/bobuhiro11/gokvm/kvm"

	"sekimori/vmm/guestmem"
)

// An Image is what a machine begins with: a [Kernel] or a [Program].
type Image interface {
	load(b *boot) error
}

// A boot is what an image is loaded into: a machine whose processors do not run
// yet, the first of which set gives its state.
type boot struct {
	mem       *guestmem.Memory
	low, size uint64 // bytes of RAM below the hole, and in all
	cpus      int
	devices   int
	sregs     func() (*kvm.Sregs, error) // of the first processor, as it comes out of reset
	set       func(*kvm.Regs, *kvm.Sregs) error
}

// Bits of control registers (Intel SDM 3A, 2.5) and of EFER.
const (
	cr0PE, cr0MP, cr0ET, cr0NE, cr0WP, cr0PG = 1 << 0, 1 << 1, 1 << 4, 1 << 5, 1 << 16, 1 << 31
	cr4PAE, cr4OSFXSR                        = 1 << 5, 1 << 9
	eferLME, eferLMA                         = 1 << 8, 1 << 10
)

// Entries of a page table.
const (
	ptePresent, pteWrite, pteUser, pteHuge = 1 << 0, 1 << 1, 1 << 2, 1 << 7
)

// Selectors of the boot protocol's segments, __BOOT_CS and __BOOT_DS
// (Documentation/arch/x86/boot.rst, 64-bit boot protocol).
const (
	bootCS = 0x10
	bootDS = 0x18
)

// longMode is the state of a processor in 64-bit mode, privilege 0, with the
// first 4 GiB mapped as they lie, for every privilege.
func (b *boot) longMode() (*kvm.Sregs, error) {
	s, err := b.sregs()
	if err != nil {
		return nil, err
	}
	var tables [6 * 4096]byte
	put := func(table, i int, v uint64) { binary.LittleEndian.PutUint64(tables[4096*table+8*i:], v) }
	put(0, 0, pageTables+4096|ptePresent|pteWrite|pteUser)
	for dir := range 4 {
		put(1, dir, pageTables+4096*uint64(2+dir)|ptePresent|pteWrite|pteUser)
		for i := range 512 {
			put(2+dir, i, uint64(dir)<<30+uint64(i)<<21|ptePresent|pteWrite|pteUser|pteHuge)
		}
	}
	if err := b.mem.Write(pageTables, tables[:]); err != nil {
		return nil, err
	}
	gdt := [4]uint64{0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff}
	var raw [32]byte
	for i, e := range gdt {
		binary.LittleEndian.PutUint64(raw[8*i:], e)
	}
	if err := b.mem.Write(gdtBase, raw[:]); err != nil {
		return nil, err
	}
	s.GDT = kvm.Descriptor{Base: gdtBase, Limit: uint16(len(raw)) - 1}
	s.IDT = kvm.Descriptor{}
	s.CS = kvm.Segment{Limit: 0xffffffff, Selector: bootCS, Typ: 11, Present: 1, S: 1, L: 1, G: 1}
	data := kvm.Segment{Limit: 0xffffffff, Selector: bootDS, Typ: 3, Present: 1, S: 1, DB: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.CR0, s.CR3, s.CR4 = cr0PE|cr0MP|cr0ET|cr0NE|cr0WP|cr0PG, pageTables, cr4PAE|cr4OSFXSR
	s.EFER = eferLME | eferLMA
	return s, nil
}

// A Program is a guest of machine code, for tests and probes: the first processor
// executes Code in 64-bit mode, privilege 0, interrupts off, with the first 4 GiB
// mapped as they lie, for user mode as well. Other processors wait to be started.
type Program struct {
	At   guestmem.GPA // where Code lies, from 1 MiB on
	Code []byte

	// Init, if not nil, changes the memory and the state that the first processor
	// begins with: RIP is At, RSP is At, everything else as said.
	Init func(mem *guestmem.Memory, r *kvm.Regs, s *kvm.Sregs) error
}

func (p Program) load(b *boot) error {
	if p.At < highStart {
		return fmt.Errorf("program at %#x: below 1 MiB", uint64(p.At))
	}
	if err := b.mem.Write(p.At, p.Code); err != nil {
		return fmt.Errorf("program: %w", err)
	}
	s, err := b.longMode()
	if err != nil {
		return err
	}
	r := &kvm.Regs{RIP: uint64(p.At), RSP: uint64(p.At), RFLAGS: 2}
	if p.Init != nil {
		if err := p.Init(b.mem, r, s); err != nil {
			return fmt.Errorf("program: %w", err)
		}
	}
	return b.set(r, s)
}
