package miniguest

import (
	"encoding/binary"

	"sekimori/vmm/kvm"
)

// A code is a program in machine code for 64-bit mode.
type code []byte

func (c code) u32(v uint32) code { return binary.LittleEndian.AppendUint32(c, v) }
func (c code) u64(v uint64) code { return binary.LittleEndian.AppendUint64(c, v) }

// store is mov rbx, addr; mov dword ptr [rbx], v.
func (c code) store(addr uint64, v uint32) code {
	return append(append(c, 0x48, 0xbb).u64(addr), 0xc7, 0x03).u32(v)
}

// Registers of a virtio device in memory (virtio 1.2, 4.2.2), and the bits of
// its status.
const (
	driverFeatures, driverSel = 0x20, 0x24
	queueSel, queueNum        = 0x30, 0x38
	queueReady, queueNotify   = 0x44, 0x50
	status                    = 0x70
	queueDesc                 = 0x80
	queueDriver, queueDevice  = 0x90, 0xa0

	acknowledge, driver, driverOK, featuresOK = 1, 2, 4, 8

	transmit = 1 // its number
)

// handshake brings the card up with its transmit queue (virtio 1.2, 3.1.1), and
// of the features with VIRTIO_F_VERSION_1 alone.
func handshake(desc, avail, used uint64) (c code) {
	for _, w := range [][2]uint32{
		{status, acknowledge}, {status, acknowledge | driver}, {driverSel, 1}, {driverFeatures, 1}, {driverSel, 0}, {driverFeatures, 0},
		{status, acknowledge | driver | featuresOK}, {queueSel, transmit}, {queueNum, Slots},
		{queueDesc, uint32(desc)}, {queueDriver, uint32(avail)}, {queueDevice, uint32(used)}, {queueReady, 1},
		{status, acknowledge | driver | featuresOK | driverOK},
	} {
		c = c.store(registers+uint64(w[0]), w[1])
	}
	return c
}

// A loop is what the guest does.
type loop struct {
	table, avail     uint64 // addresses
	current, preempt uint32 // behind GS
	n                uint32
}

// loop appends it. A row of the table is 8 bytes task, 4 bytes count, 4 bytes
// nothing. The first word of the available ring is its flags, no interrupts, and
// its index.
func (c code) loop(l loop) code {
	c = append(c, 0x48, 0xbe).u64(l.table)                 // mov rsi, table
	c = append(c, 0x48, 0xbf).u64(l.avail)                 // mov rdi, avail
	c = append(c, 0x48, 0xbb).u64(registers + queueNotify) // mov rbx, notify
	c = append(c, 0xb9).u32(l.n)                           // mov ecx, n
	c = append(c, 0xbd).u32(1)                             // mov ebp, VIRTQ_AVAIL_F_NO_INTERRUPT
	c = append(c, 0x31, 0xd2)                              // xor edx, edx
	top := len(c)
	c = append(c, 0x48, 0x8b, 0x04, 0x16)                         // mov rax, [rsi+rdx]
	c = append(c, 0x65, 0x48, 0x89, 0x04, 0x25).u32(l.current)    // mov gs:[current], rax
	c = append(c, 0x8b, 0x44, 0x16, 0x08)                         // mov eax, [rsi+rdx+8]
	c = append(c, 0x65, 0x89, 0x04, 0x25).u32(l.preempt)          // mov gs:[preempt], eax
	c = append(c, 0x81, 0xc5).u32(1 << 16)                        // add ebp, 1<<16
	c = append(c, 0x89, 0x2f)                                     // mov [rdi], ebp
	c = append(c, 0xc7, 0x03).u32(transmit)                       // mov dword ptr [rbx], 1
	c = append(c, 0x83, 0xc2, 16)                                 // add edx, 16
	c = append(c, 0x81, 0xe2).u32(16*Slots - 1)                   // and edx, 16*256-1
	c = append(c, 0xff, 0xc9)                                     // dec ecx
	c = append(c, 0x0f, 0x85).u32(uint32(top - (len(c) + 2 + 4))) // jnz top
	c = append(c, 0x66, 0xba).u16(kvm.PortPower)                  // mov dx, power
	return append(c, 0xb0, kvm.PowerOff, 0xee, 0xf4)              // mov al, off; out dx, al; hlt
}

func (c code) u16(v uint16) code { return binary.LittleEndian.AppendUint16(c, v) }
