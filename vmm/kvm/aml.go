package kvm

import "encoding/binary"

// Encoders of the little of the ACPI machine language that says what is on the
// board (ACPI 6.5, 20.2).

// amlBlock is a package with a length in front: a scope, a device, a buffer.
func amlBlock(op []byte, content ...[]byte) []byte {
	var body []byte
	for _, c := range content {
		body = append(body, c...)
	}
	return append(append(op, amlLength(len(body))...), body...)
}

// amlLength is PkgLength, which counts itself: one byte up to 63, else a byte
// with the number of those that follow and the low four bits.
func amlLength(n int) []byte {
	if n+1 < 1<<6 {
		return []byte{byte(n + 1)}
	}
	for more := 1; ; more++ {
		if total := n + 1 + more; total < 1<<(4+8*more) {
			b := []byte{byte(more<<6 | total&0xf)}
			for i := range more {
				b = append(b, byte(total>>(4+8*i)))
			}
			return b
		}
	}
}

func amlScope(name string, content ...[]byte) []byte {
	return amlBlock([]byte{0x10}, append([][]byte{[]byte(name)}, content...)...)
}

func amlDevice(name string, content ...[]byte) []byte {
	return amlBlock([]byte{0x5b, 0x82}, append([][]byte{[]byte(name)}, content...)...)
}

func amlName(name string, value []byte) []byte {
	return append(append([]byte{0x08}, name...), value...)
}

func amlByte(v byte) []byte { return []byte{0x0a, v} }

func amlDWord(v uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{0x0c}, v) }

func amlString(s string) []byte { return append(append([]byte{0x0d}, s...), 0) }

func amlPackage(elements ...[]byte) []byte {
	return amlBlock([]byte{0x12}, append([][]byte{{byte(len(elements))}}, elements...)...)
}

// amlResources is a resource template (ACPI 6.5, 6.4).
func amlResources(descriptors ...[]byte) []byte {
	var all []byte
	for _, d := range descriptors {
		all = append(all, d...)
	}
	all = append(all, 0x79, 0) // end tag, without a checksum
	return amlBlock([]byte{0x11}, amlDWord(uint32(len(all))), all)
}

// resMemory is a fixed range of memory, writable (6.4.3.4).
func resMemory(base, n uint32) []byte {
	b := []byte{0x86, 9, 0, 1}
	b = binary.LittleEndian.AppendUint32(b, base)
	return binary.LittleEndian.AppendUint32(b, n)
}

// resInterrupt is an interrupt that the device consumes: an edge, active high,
// shared (6.4.3.6).
func resInterrupt(gsi uint32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{0x89, 6, 0, 1<<0 | 1<<1 | 1<<3, 1}, gsi)
}

// resPorts are n ports from base on (6.4.2.5).
func resPorts(base uint16, n byte) []byte {
	b := []byte{0x47, 1}
	b = binary.LittleEndian.AppendUint16(b, base)
	b = binary.LittleEndian.AppendUint16(b, base)
	return append(b, 1, n)
}
