package kvm

import (
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
)

// Regs are the registers of a vCPU that stands in an exit.
type Regs struct {
	CPU int // its number

	// The instruction pointer is that of the instruction that made the exit for a
	// store, and of the next for an OUT.
	RIP, RSP, RFLAGS uint64

	CPL      int // privilege level: 3 is a program of the guest, which a device was mapped for or which may do I/O
	CR0, CR3 uint64
	CR4      uint64 // LA57 says how deep the page tables are
	EFER     uint64

	// GSBase is the base of GS. In kernel mode it is where the kernel has its
	// per-CPU data; in user mode it is the program's, and KernelGSBase the kernel's.
	GSBase uint64
	TRBase uint64 // of the task state segment

	v *vcpu
}

// KernelGSBase is MSR_KERNEL_GS_BASE: what SWAPGS would load.
func (r *Regs) KernelGSBase() (uint64, error) {
	const msrKernelGSBase = 0xc0000102
	m := msrs{n: 1, entry: kvm.MSREntry{Index: msrKernelGSBase}}
	// SAFETY: the kernel writes the one entry that m has room for.
	_, err := ioctl(r.v.fd, ioGetMSRs, unsafe.Pointer(&m))
	return m.entry.Data, err
}

// Where KVM puts the registers beside the reason for an exit (struct kvm_run,
// include/uapi/linux/kvm.h): what it is asked for, and struct kvm_sync_regs.
const (
	offValidRegs = 288
	offSyncRegs  = 304
	syncRegs     = 1 << 0 // KVM_SYNC_X86_REGS
	syncSregs    = 1 << 1
)

// A syncArea is struct kvm_sync_regs as far as it is asked for.
type syncArea struct {
	regs  kvm.Regs
	sregs kvm.Sregs
}

// take reads the registers as the last exit left them.
func (r *Regs) take(v *vcpu) {
	a := (*syncArea)(unsafe.Pointer(&v.page[offSyncRegs])) // SAFETY: the page is longer, and nothing but the kernel writes it, during KVM_RUN
	s := &a.sregs
	*r = Regs{
		CPU: v.number, RIP: a.regs.RIP, RSP: a.regs.RSP, RFLAGS: a.regs.RFLAGS,
		CPL: int(s.SS.DPL), CR0: s.CR0, CR3: s.CR3, CR4: s.CR4, EFER: s.EFER,
		GSBase: s.GS.Base, TRBase: s.TR.Base, v: v,
	}
}
