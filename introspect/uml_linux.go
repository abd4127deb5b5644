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
	// RAM is what the kernel shares with its devices.
	RAM *guestmem.Memory
	// PID is the kernel's main process. It must be a child of this one that
	// nobody has waited for: its number is not given to another process then.
	PID int
	// Base is where the image begins, symbol __binary_start, and physical
	// memory with it; End is where it ends, symbol _end.
	Base, End uint64
}

var _ Memory = (*UML)(nil)

// no allocation, no lock, no log below this line

// Physical is where va lies in the guest's RAM; the image is not in it.
func (u *UML) Physical(va uint64) (guestmem.GPA, error) {
	at := guestmem.GPA(va - u.Base)
	if va < u.End || !u.RAM.Contains(at, 1) {
		return 0, ErrUnmapped
	}
	return at, nil
}

// Read reads the kernel's memory.
func (u *UML) Read(va uint64, b []byte) error {
	switch {
	case va >= u.End:
		return u.RAM.Read(guestmem.GPA(va-u.Base), b)
	case va < u.Base || len(b) == 0 || uint64(len(b)) > u.End-va:
		return ErrUnmapped
	}
	return u.image(va, b)
}

// image reads the kernel's process.
func (u *UML) image(va uint64, b []byte) error {
	local := [1]unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := [1]unix.RemoteIovec{{Base: uintptr(va), Len: len(b)}}
	n, err := unix.ProcessVMReadv(u.PID, local[:], remote[:], 0)
	switch {
	case err != nil:
		return err
	case n != len(b):
		return ErrUnmapped
	}
	return nil
}
