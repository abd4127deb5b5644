package kvm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

// What gokvm has no wrapper for, or one that the garbage collector may pull the
// rug from under: it hands the kernel addresses of variables as numbers, of
// which the runtime does not know when it moves a stack. Numbers and structs are
// those of include/uapi/linux/kvm.h.
var (
	ioCheckExtension  = kvm.IIO(0x03)
	ioSetMemoryRegion = kvm.IIOW(0x46, unsafe.Sizeof(kvm.UserspaceMemoryRegion{}))
	ioSetIdentityMap  = kvm.IIOW(0x48, 8)
	ioIRQFD           = kvm.IIOW(0x76, unsafe.Sizeof(irqfd{}))
	ioRun             = kvm.IIO(0x80)
	ioGetRegs         = kvm.IIOR(0x81, unsafe.Sizeof(kvm.Regs{}))
	ioSetRegs         = kvm.IIOW(0x82, unsafe.Sizeof(kvm.Regs{}))
	ioSetSregs        = kvm.IIOW(0x84, unsafe.Sizeof(kvm.Sregs{}))
	ioGetMSRs         = kvm.IIOWR(0x88, 8)
	ioSetFPU          = kvm.IIOW(0x8d, unsafe.Sizeof(fpu{}))
	ioSetCPUID        = kvm.IIOW(0x90, 8)
	ioGetCPUID        = kvm.IIOWR(0x05, 8)
)

// Capabilities beside those that gokvm names.
const (
	capTSCDeadline   = 72
	capSyncRegs      = 74
	capImmediateExit = 136
)

type irqfd struct {
	fd, gsi, flags, resample uint32
	_                        [16]byte
}

type fpu struct {
	fpr            [8][16]byte
	fcw, fsw       uint16
	ftwx, _        uint8
	lastOpcode     uint16
	lastIP, lastDP uint64
	xmm            [16][16]byte
	mxcsr, _       uint32
}

type msrs struct {
	n, _  uint32
	entry kvm.MSREntry
}

var (
	_ [32]byte  = [unsafe.Sizeof(irqfd{})]byte{}
	_ [416]byte = [unsafe.Sizeof(fpu{})]byte{}
	_ [24]byte  = [unsafe.Sizeof(msrs{})]byte{}
	_ [144]byte = [unsafe.Sizeof(kvm.Regs{})]byte{}
	_ [312]byte = [unsafe.Sizeof(kvm.Sregs{})]byte{}
)

// ioctl makes the call with a pointer that stays one until the kernel has it.
func ioctl(fd int, req uintptr, arg unsafe.Pointer) (uintptr, error) {
	// SAFETY: arg points to what req asks for; each caller says what.
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}

// open opens /dev/kvm and says what of it this package needs and misses.
func open() (*os.File, error) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, hint(err))
	}
	if err := suits(int(f.Fd())); err != nil {
		f.Close()
		return nil, fmt.Errorf("/dev/kvm: %w", err)
	}
	return f, nil
}

func hint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return " (the host's processor has no VMX or SVM, or it is turned off, or modprobe kvm_intel or kvm_amd)"
	case errors.Is(err, fs.ErrPermission):
		return " (it is the group kvm's)"
	default:
		return ""
	}
}

// suits asks for the version that is the only one since 2007, and for what came
// later.
func suits(fd int) error {
	if v, err := kvm.GetAPIVersion(uintptr(fd)); err != nil || v != 12 {
		return fmt.Errorf("version %d, %v: want 12", v, err)
	}
	for _, c := range []struct {
		cap  uintptr
		name string
	}{
		{uintptr(kvm.CapIRQChip), "an interrupt controller"}, {uintptr(kvm.CapUserMemory), "memory"},
		{uintptr(kvm.CapIRQFD), "irqfd"}, {capImmediateExit, "immediate_exit (Linux 4.13)"},
		{capSyncRegs, "SYNC_REGS (Linux 4.17)"}, {capTSCDeadline, "the TSC deadline timer"},
	} {
		if !has(fd, c.cap) {
			return fmt.Errorf("it lacks %s", c.name)
		}
	}
	return nil
}

func has(fd int, cap uintptr) bool {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioCheckExtension, cap)
	return errno == 0 && n > 0
}
