package kvm

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"sekimori/vmm/guestmem"
)

// A ram is a guest's memory: one file, mapped twice. Everything of ours goes
// through mem; the other mapping is what KVM shows to the guest, and nothing
// here touches it.
type ram struct {
	mem   *guestmem.Memory
	size  uint64
	slots []slot
}

// A slot is a run of memory as KVM has it.
type slot struct {
	base uint64
	p    unsafe.Pointer
	n    uintptr
}

// low is how much of the memory lies below the hole of the devices.
func (r *ram) low() uint64 { return min(r.size, ramEnd) }

// newRAM makes size bytes of memory, whose pages are taken from the host when
// they are first touched.
func newRAM(size uint64) (*ram, error) {
	fd, err := unix.MemfdCreate("seki-guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, os.NewSyscallError("ftruncate", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, os.NewSyscallError("seal", err)
	}
	r := &ram{size: size}
	files := []guestmem.File{{Base: 0, Size: r.low(), FD: fd}}
	if size > ramEnd {
		files = append(files, guestmem.File{Base: ram64Start, Size: size - ramEnd, FD: fd, Offset: ramEnd})
	}
	if r.mem, err = guestmem.Map(files...); err != nil {
		return nil, err
	}
	for _, f := range files {
		// SAFETY: a new mapping where the kernel likes.
		p, err := unix.MmapPtr(fd, int64(f.Offset), nil, uintptr(f.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("guest memory: mmap: %w", err), r.close())
		}
		r.slots = append(r.slots, slot{uint64(f.Base), p, uintptr(f.Size)})
	}
	return r, nil
}

// show puts the memory into the guest.
func (r *ram) show(vm int) error {
	for i, s := range r.slots {
		region := kvm.UserspaceMemoryRegion{Slot: uint32(i), GuestPhysAddr: s.base, MemorySize: uint64(s.n), UserspaceAddr: uint64(uintptr(s.p))}
		// SAFETY: the kernel reads region; the mapping lives until close, after the VM's end.
		if _, err := ioctl(vm, ioSetMemoryRegion, unsafe.Pointer(&region)); err != nil {
			return fmt.Errorf("KVM_SET_USER_MEMORY_REGION: %w", err)
		}
	}
	return nil
}

// close gives the memory back; no VM has it any more.
func (r *ram) close() error {
	errs := []error{r.mem.Close()}
	for _, s := range r.slots {
		errs = append(errs, unix.MunmapPtr(s.p, s.n)) // SAFETY: mapped above, and nobody else has it
	}
	r.slots = nil
	return errors.Join(errs...)
}
