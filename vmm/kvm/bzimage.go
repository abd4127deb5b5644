package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/bobuhiro11/gokvm/bootparam"
	"github.com/bobuhiro11/gokvm/kvm"

	"sekimori/vmm/guestmem"
)

// The 64-bit boot protocol (Documentation/arch/x86/boot.rst, v6.12).
const (
	sector          = 512
	entry64         = 0x200 // of the protected-mode kernel
	xlfKernel64     = 1 << 0
	loaderUndefined = 0xff
	protocolRSDP    = 0x020e
	paramsRSDP      = 0x070 // acpi_rsdp_addr in struct boot_params
	initrdDefault   = 0x37ff_ffff
)

// bzImage loads a kernel that unpacks itself.
func (l *linux) bzImage(initrd []*os.File) error {
	p, err := bootparam.New(l.file)
	switch {
	case errors.Is(err, bootparam.ErrorSignatureNotMatch), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("neither a bzImage nor a vmlinux of x86-64")
	case err != nil:
		return err
	case p.Hdr.XloadFlags&xlfKernel64 == 0 || p.Hdr.LoadFlags&bootparam.LoadedHigh == 0:
		return errors.New("its boot protocol has no 64-bit entry (Linux 3.8)")
	}
	setup := int64(p.Hdr.SetupSects)
	if setup == 0 {
		setup = 4
	}
	setup = (setup + 1) * sector
	base, n := p.Hdr.PrefAddress, l.size-setup
	end := base + uint64(p.Hdr.InitSize) // 64 and 32 bits
	switch {
	case n <= entry64 || uint64(n) > uint64(p.Hdr.InitSize):
		return fmt.Errorf("a kernel of %d bytes that asks for %d", n, p.Hdr.InitSize)
	case base < highStart || base > l.low || end > l.low:
		return fmt.Errorf("it wants the memory from %d to %d MiB, and there are %d", base>>20, end>>20, l.low>>20)
	}
	if err := l.copyIn(guestmem.GPA(base), l.file, setup, n); err != nil {
		return err
	}
	limit := uint64(p.Hdr.InitrdAddrMax)
	if limit == 0 {
		limit = initrdDefault
	}
	at, size, err := l.archive(initrd, end, limit+1)
	if err != nil {
		return err
	}
	if err := l.writeLine(p.Hdr.CmdlineSize); err != nil {
		return err
	}
	p.Hdr.RamdiskImage, p.Hdr.RamdiskSize = uint32(at), uint32(size) // below 4 GiB: see archive
	p.Hdr.CmdlinePtr, p.Hdr.TypeOfLoader = commandLine, loaderUndefined
	for _, s := range l.spans() {
		kind := uint32(bootparam.E820Reserved)
		if s.ram {
			kind = bootparam.E820Ram
		}
		p.AddE820Entry(s.base, s.n, kind)
	}
	raw, err := p.Bytes()
	if err != nil {
		return err
	}
	if p.Hdr.Version >= protocolRSDP {
		binary.LittleEndian.PutUint64(raw[paramsRSDP:], acpiBase)
	}
	if err := l.mem.Write(bootParams, raw[:min(len(raw), 4096)]); err != nil {
		return err
	}
	s, err := l.longMode()
	if err != nil {
		return err
	}
	return l.set(&kvm.Regs{RIP: base + entry64, RSI: bootParams, RSP: bootParams, RFLAGS: 2}, s)
}
