package kvm

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An event is an interrupt line of the guest, raised as an edge by writing to an
// eventfd: one system call of any thread, which needs no right to the VM.
type event struct{ fd int }

// newEvent connects a new event to line gsi of the interrupt controller.
func newEvent(vm int, gsi uint32) (*event, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	req := irqfd{fd: uint32(fd), gsi: gsi}
	// SAFETY: the kernel reads req.
	if _, err := ioctl(vm, ioIRQFD, unsafe.Pointer(&req)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("KVM_IRQFD: %w", err)
	}
	return &event{fd}, nil
}

var one = [8]byte{1}

// signal raises the interrupt. It does not wait: an eventfd that is full has
// edges enough in it.
func (e *event) signal() { _, _ = unix.Write(e.fd, one[:]) }

func (e *event) close() error { return unix.Close(e.fd) }
