package kvm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"
)

// An array of CPUID entries is as struct kvm_cpuid2 has it: 4 bytes number, 4
// bytes padding, and entries of 40 bytes (struct kvm_cpuid_entry2), each function,
// index, flags, eax, ebx, ecx, edx and padding.
const (
	cpuidHead  = 8
	cpuidEntry = 40
	cpuidMax   = 256
)

// Functions of CPUID, and bits of their registers (Intel SDM 2A, CPUID; AMD APM
// 3, appendix E).
const (
	leafFeatures = 1
	leafPerfMon  = 0x0a
	leafTopology = 0x0b
	leafV2Top    = 0x1f
	leafExtended = 0x8000_0001

	ecxVMX      = 1 << 5
	ecxDeadline = 1 << 24
	ecxGuest    = 1 << 31 // a hypervisor is there
	ecxSVM      = 1 << 2  // of leafExtended
)

// supported is what KVM can give a guest of this host's processor.
func supported(dev int) ([]byte, error) {
	b := make([]byte, cpuidHead+cpuidMax*cpuidEntry)
	binary.LittleEndian.PutUint32(b, cpuidMax)
	// SAFETY: the kernel writes at most as many entries as b begins with saying.
	if _, err := ioctl(dev, ioGetCPUID, unsafe.Pointer(&b[0])); err != nil {
		return nil, fmt.Errorf("KVM_GET_SUPPORTED_CPUID: %w", err)
	}
	n := min(binary.LittleEndian.Uint32(b), cpuidMax)
	return b[:cpuidHead+n*cpuidEntry], nil
}

// processor is what processor number says of itself. It offers no virtualization of
// its own and no performance counters: both are a lot of the host's kernel for a
// guest to play with.
func processor(all []byte, number int) []byte {
	own := slices.Clone(all)
	for e := own[cpuidHead:]; len(e) >= cpuidEntry; e = e[cpuidEntry:] {
		reg := func(i int) []byte { return e[12+4*i:] } // eax, ebx, ecx, edx
		set := func(i int, v uint32) { binary.LittleEndian.PutUint32(reg(i), v) }
		get := func(i int) uint32 { return binary.LittleEndian.Uint32(reg(i)) }
		switch binary.LittleEndian.Uint32(e) {
		case leafFeatures:
			set(1, get(1)&0x0000ffff|uint32(number)<<24|1<<16) // APIC number, one logical processor a package
			set(2, get(2)&^ecxVMX|ecxDeadline|ecxGuest)
		case leafPerfMon:
			clear(e[12:28])
		case leafTopology, leafV2Top:
			// A package of one core: eax is how far to shift the x2APIC number for
			// the next level, ebx how many there are.
			set(0, 0)
			set(1, min(get(1), 1))
			set(3, uint32(number))
		case leafExtended:
			set(2, get(2)&^ecxSVM)
		}
	}
	return own
}
