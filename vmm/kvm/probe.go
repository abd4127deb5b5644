package kvm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/bobuhiro11/gokvm/kvm"

	"sekimori/vmm/guestmem"
)

// A ProbeError says why a /dev/kvm that is there cannot run Linux.
type ProbeError struct {
	Instruction string // that every Linux kernel executes, and this KVM does not
	Hardware    bool   // the processor has VMX or SVM
	Err         error  // what became of the machine that tried
}

func (e *ProbeError) Error() string {
	why := "the processor has neither VMX nor SVM, and KVM emulates the guest's kernel"
	if e.Hardware {
		why = "though the processor has VMX or SVM"
	}
	return fmt.Sprintf("/dev/kvm cannot run Linux: it fails at %s in kernel mode (%s)", e.Instruction, why)
}

func (e *ProbeError) Unwrap() error { return e.Err }

// Where the probe's things lie.
const (
	probeCode    = 0x100000
	probeHandler = 0x101000
	probeIDT     = 0x102000
	probeData    = 0x103000
	probeStack   = 0x110000
)

// probeSteps are instructions that Linux executes in kernel mode during its boot, or
// panics. Where KVM has no hardware below it (KVM_PVM in a cloud's container) the
// guest's kernel mode is emulated instruction by instruction, and Debian's 6.1 died
// of the first after 79 s, of the third after 98 and of the second after 188.
var probeSteps = []struct {
	name string
	code []byte
}{
	{"LOCK CMPXCHG16B", []byte{0xf0, 0x48, 0x0f, 0xc7, 0x0b}}, // of [RBX]: the slab allocator
	{"INT3", []byte{0xcc}},                     // int3_selftest
	{"FXSAVE", []byte{0x48, 0x0f, 0xae, 0x03}}, // to [RBX]: each switch of tasks
	{"POPCNT", []byte{0xf3, 0x48, 0x0f, 0xb8, 0xc1}},
}

// probeTime is a hundred times what the probe takes where all is emulated.
const probeTime = 10 * time.Second

// Probe tells whether this host's /dev/kvm can run Linux, by having a guest of a few
// instructions try those that a KVM without hardware cannot do: nil, a
// [*ProbeError], or why /dev/kvm cannot be used at all.
func Probe(ctx context.Context) error {
	m, err := Start(ctx, &Config{Image: probe(), Memory: 2 << 20})
	if err != nil {
		return err
	}
	late := time.AfterFunc(probeTime, func() { m.Kill() })
	err = m.Wait()
	late.Stop()
	switch done := len(m.Console()); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case done == 0 || done > len(probeSteps):
		return fmt.Errorf("/dev/kvm does not run a program: %w", err)
	default:
		return &ProbeError{probeSteps[done-1].name, virtualizes(), err}
	}
}

// probe prints a letter before each step, and turns itself off behind the last.
func probe() Program {
	code := append([]byte{0x48, 0xbb}, binary.LittleEndian.AppendUint64(nil, probeData)...) // MOV RBX, probeData
	out := func(port uint16, v byte) []byte {                                               // MOV DX, port; MOV AL, v; OUT DX, AL
		return []byte{0x66, 0xba, byte(port), byte(port >> 8), 0xb0, v, 0xee}
	}
	for i, s := range probeSteps {
		code = append(append(code, out(portSerial, 'a'+byte(i))...), s.code...)
	}
	code = append(code, out(PortPower, PowerOff)...)
	return Program{At: probeCode, Code: code, Init: func(mem *guestmem.Memory, r *kvm.Regs, s *kvm.Sregs) error {
		// An interrupt gate for vector 3 (Intel SDM 3A, 6.14.1), whose handler is IRETQ.
		gate := binary.LittleEndian.AppendUint64(nil, probeHandler&0xffff|bootCS<<16|0x8e<<40|probeHandler>>16<<48)
		s.IDT = kvm.Descriptor{Base: probeIDT, Limit: 16*4 - 1}
		r.RSP = probeStack
		return errors.Join(mem.Write(probeIDT+16*3, gate), mem.Write(probeHandler, []byte{0x48, 0xcf}))
	}}
}

// virtualizes tells whether the processor says that it has VMX or SVM.
func virtualizes() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "flags") {
			continue
		}
		for _, f := range strings.Fields(line) {
			if f == "vmx" || f == "svm" {
				return true
			}
		}
		return false
	}
	return false
}
