package kvm

import (
	"encoding/binary"
	"fmt"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/mmio"
)

// The tables tell the guest of its processors, its devices and how to turn
// itself off. The board is a hardware-reduced one (ACPI 6.5, 4.1): no BIOS, no
// timer but the processors', no event registers.

// writeACPI puts the tables where a kernel looks for them, and returns where the
// first is.
func (b *boot) writeACPI() (guestmem.GPA, error) {
	at := uint64(acpiBase + 64) // behind the RSDP
	var all []byte
	place := func(table []byte) uint64 {
		here := at + uint64(len(all))
		all = append(all, table...)
		all = append(all, make([]byte, -len(all)&15)...)
		return here
	}
	dsdt := place(acpiTable("DSDT", 2, b.dsdt()))
	tables := []uint64{place(acpiTable("FACP", 6, fadt(dsdt))), place(acpiTable("APIC", 4, b.madt()))}
	var list []byte
	for _, t := range tables {
		list = binary.LittleEndian.AppendUint64(list, t)
	}
	xsdt := place(acpiTable("XSDT", 1, list))
	if uint64(len(all)) > acpiEnd-at {
		return 0, fmt.Errorf("ACPI tables of %d bytes", len(all))
	}
	if err := b.mem.Write(guestmem.GPA(at), all); err != nil {
		return 0, err
	}
	return acpiBase, b.mem.Write(acpiBase, rsdp(xsdt))
}

// rsdp is the table that points to the others (ACPI 6.5, 5.2.5.3).
func rsdp(xsdt uint64) []byte {
	b := append([]byte("RSD PTR "), 0)
	b = append(b, "SEKI  "...)
	b = append(b, 2, 0, 0, 0, 0) // revision; no RSDT
	b = binary.LittleEndian.AppendUint32(b, 36)
	b = binary.LittleEndian.AppendUint64(b, xsdt)
	b = append(b, 0, 0, 0, 0)
	b[8] = checksum(b[:20])
	b[32] = checksum(b)
	return b
}

// acpiTable puts the header in front of a table's content (ACPI 6.5, 5.2.6).
func acpiTable(signature string, revision byte, content []byte) []byte {
	b := []byte(signature)
	b = binary.LittleEndian.AppendUint32(b, uint32(36+len(content)))
	b = append(b, revision, 0)
	b = append(b, "SEKI  SEKIMORI"...)
	b = append(b, 1, 0, 0, 0)
	b = append(b, "SEKI"...)
	b = append(b, 1, 0, 0, 0)
	b = append(b, content...)
	b[9] = checksum(b)
	return b
}

// checksum is what makes the bytes sum up to 0.
func checksum(b []byte) byte {
	var sum byte
	for _, v := range b {
		sum -= v
	}
	return sum
}

// fadt is the fixed description table behind its header (ACPI 6.5, 5.2.9).
func fadt(dsdt uint64) []byte {
	const (
		noVGA, noCMOS        = 1 << 2, 1 << 5
		wbinvd, noPowerBtn   = 1 << 0, 1 << 4
		noSleepBtn, resetReg = 1 << 5, 1 << 10
		hwReduced            = 1 << 20
	)
	b := make([]byte, 276)
	port := func(off int, port uint16) { // a generic address: 8 bits of I/O space
		copy(b[off:], []byte{1, 8, 0, 1})
		binary.LittleEndian.PutUint64(b[off+4:], uint64(port))
	}
	binary.LittleEndian.PutUint32(b[40:], uint32(dsdt))
	binary.LittleEndian.PutUint16(b[109:], noVGA|noCMOS)
	binary.LittleEndian.PutUint32(b[112:], wbinvd|noPowerBtn|noSleepBtn|resetReg|hwReduced)
	port(116, portACPIReset)
	b[128] = 1 // what to write there
	b[131] = 5 // minor version
	binary.LittleEndian.PutUint64(b[140:], dsdt)
	port(244, PortPower)
	port(256, portPowerStatus)
	copy(b[268:], "SEKIMORI")
	return b[36:]
}

// madt lists the interrupt controllers (ACPI 6.5, 5.2.12).
func (b *boot) madt() []byte {
	t := binary.LittleEndian.AppendUint32(nil, lapicBase)
	t = append(t, 0, 0, 0, 0) // no 8259s
	for i := range b.cpus {
		t = append(t, 0, 8, byte(i), byte(i), 1, 0, 0, 0) // a local APIC, enabled
	}
	t = append(t, 1, 12, 0, 0)
	t = binary.LittleEndian.AppendUint32(t, ioapicBase)
	return append(t, 0, 0, 0, 0) // its first interrupt
}

// dsdt names the devices. LNRO0005 is a virtio device in memory
// (drivers/virtio/virtio_mmio.c, v6.12), PNP0501 a 16550.
func (b *boot) dsdt() []byte {
	const pnp0501 = 0x0105d041 // EISAID, ACPI 6.5, 6.1.5
	board := [][]byte{amlDevice("COM1",
		amlName("_HID", amlDWord(pnp0501)), amlName("_UID", amlByte(0)),
		amlName("_CRS", amlResources(resPorts(portSerial, 8), resInterrupt(serialGSI))))}
	for i := range b.devices {
		board = append(board, amlDevice(fmt.Sprintf("V%03d", i),
			amlName("_HID", amlString("LNRO0005")), amlName("_UID", amlByte(byte(i))), amlName("_CCA", amlByte(1)),
			amlName("_CRS", amlResources(resMemory(deviceBase+mmio.Size*uint32(i), mmio.Size), resInterrupt(deviceGSI(i))))))
	}
	s5 := amlName("_S5_", amlPackage(amlByte(5), amlByte(0), amlByte(0), amlByte(0)))
	return append(s5, amlScope("_SB_", board...)...)
}
