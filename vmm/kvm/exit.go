package kvm

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"

	"sekimori/vmm/hypercall/doorbell"
)

// Exits that gokvm does not name.
const exitSystemEvent = 24

// exit does what the processor left the guest for. It returns why the machine
// is to end, nil if it goes on.
func (v *vcpu) exit() error {
	v.m.exits.Add(1)
	switch kvm.ExitType(v.run.ExitReason) {
	case kvm.EXITIO:
		return v.port()
	case kvm.EXITMMIO:
		return v.memory()
	case kvm.EXITINTR, kvm.EXITIRQWINDOWOPEN, kvm.EXITSETTPR:
		return nil
	case kvm.EXITHLT:
		return v.fault("the guest halted, and nothing can wake it")
	case kvm.EXITSHUTDOWN:
		return v.fault("triple fault")
	case kvm.EXITFAILENTRY:
		return v.fault(fmt.Sprintf("the processor refused to enter the guest: hardware reason %#x", v.run.Data[0]))
	case kvm.EXITINTERNALERROR:
		return v.internal()
	case exitSystemEvent:
		return v.fault(fmt.Sprintf("system event %d", uint32(v.run.Data[0])))
	default:
		return v.fault(fmt.Sprintf("unexpected exit %d", v.run.ExitReason))
	}
}

// port serves an access to a port, or as many as a string instruction made of it.
func (v *vcpu) port() error {
	direction, size, port, count, off := v.run.IO()
	page := uint64(len(v.page))
	if size == 0 || size > 8 || off > page || count > (page-off)/size {
		return v.fault(fmt.Sprintf("exit for %d accesses of %d bytes at %d", count, size, off)) // the host's kernel has a bug
	}
	data := v.page[off : off+size*count]
	if l := v.m.line; l != nil && size == 4 && count > 0 && (port == doorbell.Port || port == doorbell.Data) {
		if v.regs.take(v); direction == kvm.EXITIOIN {
			l.in(&v.regs, uint16(port), data)
		} else {
			l.out(&v.regs, uint16(port), data)
		}
		return nil
	}
	for ; len(data) > 0; data = data[size:] {
		b := data[:size]
		if direction == kvm.EXITIOIN {
			v.m.in(uint16(port), b)
		} else if err := v.m.out(uint16(port), b); err != nil {
			return err
		}
	}
	return nil
}

// memory serves an access to what is not RAM: struct kvm_run's mmio has 8 bytes
// address, 8 bytes data, 4 bytes length and a byte that says if it is a write.
func (v *vcpu) memory() error {
	addr := v.run.Data[0]
	n := min(uint32(v.run.Data[2]), 8)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&v.run.Data[1])), n) // SAFETY: 8 bytes lie there
	d, off := v.m.device(addr)
	switch write := byte(v.run.Data[2]>>32) != 0; {
	case d == nil && !write:
		for i := range b {
			b[i] = 0xff
		}
	case d == nil:
	case !write:
		d.registers.Read(off, b)
	default:
		if queue, kick := d.registers.Write(off, b); kick {
			d.kick(v, queue)
		}
	}
	return nil
}

// internal says what KVM could not do. Its words are struct kvm_run's internal:
// 4 bytes suberror, 4 bytes number of words, and the words.
func (v *vcpu) internal() error {
	const emulation = 1
	sub, n := uint32(v.run.Data[0]), uint32(v.run.Data[0]>>32)
	if sub != emulation {
		return v.fault(fmt.Sprintf("KVM: internal error %d", sub))
	}
	e := v.fault("KVM cannot carry out an instruction of the guest in its stead")
	// With KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES the second word is
	// their number, and they follow.
	const hasBytes = 1
	if n >= 4 && v.run.Data[1]&hasBytes != 0 {
		var b [24]byte
		for i := range 3 {
			binary.LittleEndian.PutUint64(b[8*i:], v.run.Data[2+i])
		}
		e.Code = append([]byte(nil), b[1:1+min(b[0], 15)]...)
	}
	return e
}

// fault is the end of the machine for a reason that lies with this processor.
func (v *vcpu) fault(why string) *ExitError {
	e := &ExitError{Why: why, CPU: v.number}
	if r, err := kvm.GetRegs(uintptr(v.fd)); err == nil {
		e.RIP = r.RIP
	}
	return e
}
