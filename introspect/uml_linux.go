package introspect

import (
	"golang.org/x/sys/unix"

	"sekimori/vmm/guestmem"
)

// UML is the memory of a User-Mode Linux kernel. Its virtual addresses are
// those of its process: what it allocates lies in its RAM, in one piece behind
// the image, and is read there; the image itself (.data and .bss, where
// cpu_tasks and init_net are) is not shared, and is read out of the process, at
// 1 µs a call.
type UML struct {
	looker
	pid       int
	base, end uint64
}

var _ Memory = (*UML)(nil)

// NewUML returns the memory of a kernel whose RAM is what it shares with its
// devices, and whose main process is pid: a child of this process that nobody
// has waited for, so that its number is not given to another. The image lies
// from base, symbol __binary_start, where physical memory begins, to end, symbol
// _end.
func NewUML(ram *guestmem.Memory, pid int, base, end uint64) *UML {
	return &UML{looker{ram: ram}, pid, base, end}
}

// no allocation, no lock, no log below this line

// Physical is where va lies in the guest's RAM; the image is not in it.
func (u *UML) Physical(va uint64) (guestmem.GPA, error) {
	at := guestmem.GPA(va - u.base)
	if va < u.end || !u.ram.Contains(at, 1) {
		return 0, ErrUnmapped
	}
	return at, nil
}

// Read reads the kernel's memory.
func (u *UML) Read(va uint64, b []byte) error {
	switch {
	case va >= u.end:
		return u.view.Read(guestmem.GPA(va-u.base), b)
	case va < u.base || len(b) == 0 || uint64(len(b)) > u.end-va:
		return ErrUnmapped
	}
	return u.image(va, b)
}

// image reads the kernel's process.
func (u *UML) image(va uint64, b []byte) error {
	local := [1]unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := [1]unix.RemoteIovec{{Base: uintptr(va), Len: len(b)}}
	n, err := unix.ProcessVMReadv(u.pid, local[:], remote[:], 0)
	switch {
	case err != nil:
		return err
	case n != len(b):
		return ErrUnmapped
	}
	return nil
}
