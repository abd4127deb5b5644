package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

// A vcpu is one processor of the guest, and the thread that runs it.
type vcpu struct {
	m      *Machine
	number int
	fd     int
	page   []byte // struct kvm_run and what belongs to it; the kernel's and ours, not the guest's
	run    *kvm.RunData
	tid    atomic.Int32 // of the thread, once it runs; 0 when it has ended
	regs   Regs         // of the kick being served
}

// newVCPU makes processor number of vm.
func newVCPU(m *Machine, number int, cpuid []byte) (*vcpu, error) {
	fd, err := kvm.CreateVCPU(uintptr(m.vm), number)
	if err != nil {
		return nil, fmt.Errorf("KVM_CREATE_VCPU %d: %w", number, err)
	}
	v := &vcpu{m: m, number: number, fd: int(fd)}
	size, err := kvm.GetVCPUMMmapSize(m.dev.Fd())
	if err == nil && size < offSyncRegs+unsafe.Sizeof(syncArea{}) {
		err = fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %d bytes", size)
	}
	if err == nil {
		v.page, err = unix.Mmap(v.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		unix.Close(v.fd)
		return nil, fmt.Errorf("vCPU %d: %w", number, err)
	}
	v.run = (*kvm.RunData)(unsafe.Pointer(&v.page[0])) // SAFETY: the page is longer, and mapped until close
	own := processor(cpuid, number)
	// SAFETY: the kernel reads as many entries as own begins with saying.
	if _, err := ioctl(v.fd, ioSetCPUID, unsafe.Pointer(&own[0])); err != nil {
		return nil, errors.Join(fmt.Errorf("KVM_SET_CPUID2: %w", err), v.close())
	}
	if m.watched {
		binary.LittleEndian.PutUint64(v.page[offValidRegs:], syncRegs|syncSregs)
	}
	return v, nil
}

// sregs are the special registers as they are.
func (v *vcpu) sregs() (*kvm.Sregs, error) {
	s, err := kvm.GetSregs(uintptr(v.fd))
	if err != nil {
		return nil, fmt.Errorf("KVM_GET_SREGS: %w", err)
	}
	return s, nil
}

// set puts the state that the processor begins with in force.
func (v *vcpu) set(r *kvm.Regs, s *kvm.Sregs) error {
	// The floating-point state of a reset (Intel SDM 3A, 10.1.1) has every
	// exception masked, which a 64-bit kernel counts on before it sets its own.
	f := fpu{fcw: 0x37f, mxcsr: 0x1f80}
	for _, c := range []struct {
		name string
		req  uintptr
		arg  unsafe.Pointer // SAFETY: the kernel reads the struct whose size the request has
	}{
		{"KVM_SET_SREGS", ioSetSregs, unsafe.Pointer(s)},
		{"KVM_SET_REGS", ioSetRegs, unsafe.Pointer(r)},
		{"KVM_SET_FPU", ioSetFPU, unsafe.Pointer(&f)},
	} {
		if _, err := ioctl(v.fd, c.req, c.arg); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// loop runs the processor until the machine ends. Its thread is not used again: what
// bounds it cannot be undone. It returns why the machine is to end, nil if it does
// already.
func (v *vcpu) loop() error {
	v.tid.Store(int32(unix.Gettid()))
	defer v.tid.Store(0)
	if err := contain(v.m.namespaces); err != nil {
		return err
	}
	for !v.m.stopping.Load() {
		_, err := ioctl(v.fd, ioRun, nil)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			// A signal, of ours or of the Go runtime, or a processor that was just
			// started by another: the reason for the exit is of an earlier one.
			continue
		case err != nil:
			return v.fault(fmt.Sprintf("KVM_RUN: %v", err))
		}
		if err := v.exit(); err != nil {
			return err
		}
	}
	return nil
}

// immediateExit is the byte immediate_exit of struct kvm_run, as part of the
// first word, of which nothing else is used here.
const immediateExit = 1 << 8

// kick has the processor leave the guest, now or before it enters it, for good.
func (v *vcpu) kick() {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&v.page[0])), immediateExit) // SAFETY: the page is mapped until close
	if tid := v.tid.Load(); tid != 0 {
		// The runtime handles this signal on every thread, and lives with one that
		// it did not send. Errors: the thread has ended.
		_ = unix.Tgkill(unix.Getpid(), int(tid), unix.SIGURG)
	}
}

func (v *vcpu) close() error {
	return errors.Join(unix.Munmap(v.page), unix.Close(v.fd))
}
