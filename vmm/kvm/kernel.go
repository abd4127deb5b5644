package kvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"sekimori/vmm/guestmem"
)

// A Kernel is a Linux kernel as distributions ship it: a bzImage, which is
// entered by the 64-bit boot protocol and unpacks itself
// (Documentation/arch/x86/boot.rst), or a vmlinux, which is entered as Xen does
// (PVH, Documentation/arch/x86/... include/xen/interface/hvm/start_info.h).
type Kernel struct {
	Path string

	// InitRD are the archives that the guest unpacks as its root, one over the other,
	// each from the start of its file; the caller closes them.
	InitRD []*os.File

	// CommandLine is what follows the machine's own parameters.
	CommandLine string
}

// ownParameters are those that fit this machine: there is no PCI bus, one serial
// port, no timer to check; a panic is a restart, which ends the machine; and the first
// file system may take what memory there is, not half of what the archive leaves.
const ownParameters = "rootfstype=ramfs console=ttyS0 8250.nr_uarts=1 pci=off no_timer_check panic=-1 reboot=acpi"

// load puts the kernel and its file system into the guest.
func (k Kernel) load(b *boot) error {
	f, err := os.Open(k.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	// A lie about a size must not have us read for ever.
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", k.Path)
	}
	l := &linux{boot: b, file: f, size: st.Size(), line: ownParameters}
	if k.CommandLine != "" {
		l.line += " " + k.CommandLine
	}
	if _, err := b.writeACPI(); err != nil {
		return err
	}
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", k.Path, err)
	}
	start := l.bzImage
	if bytes.Equal(magic[:], []byte("\x7fELF")) {
		start = l.vmlinux
	}
	if err := start(k.InitRD); err != nil {
		return fmt.Errorf("%s: %w", k.Path, err)
	}
	return nil
}

// A linux is a kernel being loaded.
type linux struct {
	*boot
	file *os.File
	size int64
	line string
}

// copyIn copies n bytes of f from off on to the guest's memory.
func (l *linux) copyIn(at guestmem.GPA, f io.ReaderAt, off, n int64) error {
	buf := make([]byte, min(n, 1<<20))
	for n > 0 {
		b := buf[:min(n, int64(len(buf)))]
		if _, err := f.ReadAt(b, off); err != nil {
			return err
		}
		if err := l.mem.Write(at, b); err != nil {
			return err
		}
		at, off, n = at+guestmem.GPA(len(b)), off+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// archiveAlign is where an archive may begin behind another
// (Documentation/driver-api/early-userspace/buffer-format.rst).
const archiveAlign = 4

// archive puts the archives as high as they may lie, above the kernel, which takes
// memory up to end. It returns where and how long they are.
func (l *linux) archive(files []*os.File, end, limit uint64) (at, n uint64, err error) {
	sizes := make([]uint64, len(files))
	for i, f := range files {
		st, err := f.Stat()
		if err != nil {
			return 0, 0, err
		}
		sizes[i] = uint64(st.Size())
		if n += (sizes[i] + archiveAlign - 1) &^ (archiveAlign - 1); n > MaxMemory {
			break
		}
	}
	if n == 0 {
		return 0, 0, nil
	}
	end, limit = (end+4095)&^4095, min(limit, l.low)&^4095
	if end > limit || n > limit-end {
		return 0, 0, fmt.Errorf("the kernel takes the memory up to %d MiB and its file system %d MiB, and there are %d", end>>20, n>>20+1, limit>>20)
	}
	at = (limit - n) &^ 4095
	here := at
	for i, f := range files {
		if err := l.copyIn(guestmem.GPA(here), f, 0, int64(sizes[i])); err != nil {
			return 0, 0, fmt.Errorf("file system: %w", err)
		}
		here += (sizes[i] + archiveAlign - 1) &^ (archiveAlign - 1)
	}
	return at, n, nil
}

// writeLine puts the command line where the kernel is told it is.
func (l *linux) writeLine(max uint32) error {
	if len(l.line) >= int(max) || len(l.line) >= 1<<16 {
		return fmt.Errorf("command line of %d bytes: the kernel takes %d", len(l.line), max)
	}
	for _, c := range []byte(l.line) {
		if c < ' ' || c == 0x7f {
			return fmt.Errorf("command line %q: one line", l.line)
		}
	}
	return l.mem.Write(commandLine, append([]byte(l.line), 0))
}

// A span is a range of the physical address space.
type span struct {
	base, n uint64
	ram     bool
}

// spans is the memory map: RAM below and above the hole of a PC, and above that
// of the devices; the tables between are nobody's to overwrite.
func (l *linux) spans() []span {
	all := []span{{0, lowEnd, true}, {acpiBase, acpiEnd - acpiBase, false}, {highStart, l.low - highStart, true}}
	if l.boot.size > ramEnd {
		all = append(all, span{ram64Start, l.boot.size - ramEnd, true})
	}
	return all
}

// Release is what the kernel of a bzImage calls itself, as uname -r does; "" if
// the image does not say.
func Release(image io.ReaderAt) string {
	const offVersion, max = 0x20e, 128 // of kernel_version in the setup header
	var at [2]byte
	if _, err := image.ReadAt(at[:], offVersion); err != nil {
		return ""
	}
	b := make([]byte, max)
	n, err := image.ReadAt(b, int64(binary.LittleEndian.Uint16(at[:]))+sector)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	text, _, _ := bytes.Cut(b[:n], []byte{0})
	release, _, _ := bytes.Cut(text, []byte(" "))
	for _, c := range release {
		if c <= ' ' || c >= 0x7f || c == '/' {
			return "" // not a bzImage
		}
	}
	return string(release)
}
