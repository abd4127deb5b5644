package kvm

import (
	"bytes"
	"encoding/binary"
	"testing"

	"sekimori/vmm/guestmem"
)

// TestACPI: each table sums up to zero and is as long as it says, and they are
// found from the first.
func TestACPI(t *testing.T) {
	mem, err := guestmem.New(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	b := &boot{mem: mem, cpus: MaxCPUs, devices: MaxDevices} // as long as they get
	if _, err := b.writeACPI(); err != nil {
		t.Fatal(err)
	}
	read := func(at uint64, n uint32) []byte {
		b := make([]byte, n)
		if err := mem.Read(guestmem.GPA(at), b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	table := func(at uint64, signature string) []byte {
		t.Helper()
		n := binary.LittleEndian.Uint32(read(at, 8)[4:])
		b := read(at, n)
		if string(b[:4]) != signature || checksum(b) != 0 {
			t.Fatalf("table %q at %#x, sum %d; want %s", b[:4], at, checksum(b), signature)
		}
		return b
	}
	rsdp := read(acpiBase, 36)
	if checksum(rsdp[:20]) != 0 || checksum(rsdp) != 0 {
		t.Error("the RSDP does not sum up")
	}
	xsdt := table(binary.LittleEndian.Uint64(rsdp[24:]), "XSDT")
	fadt := table(binary.LittleEndian.Uint64(xsdt[36:]), "FACP")
	madt := table(binary.LittleEndian.Uint64(xsdt[44:]), "APIC")
	dsdt := table(binary.LittleEndian.Uint64(fadt[140:]), "DSDT")
	if len(fadt) != 276 {
		t.Errorf("FADT of %d bytes", len(fadt))
	}
	if n := bytes.Count(dsdt, []byte("LNRO0005")); n != MaxDevices {
		t.Errorf("%d devices", n)
	}
	if want := 44 + 8*MaxCPUs + 12; len(madt) != want {
		t.Errorf("MADT of %d bytes; want %d", len(madt), want)
	}
}

// TestAMLLength: the encoding of each length is read back as the length with
// itself (ACPI 6.5, 20.2.4).
func TestAMLLength(t *testing.T) {
	for _, n := range []int{0, 1, 61, 62, 63, 64, 4000, 4092, 4093, 4094, 5000, 1 << 20} {
		b := amlLength(n)
		got := int(b[0] & 0x3f)
		if more := int(b[0] >> 6); more > 0 {
			got = int(b[0] & 0xf)
			for i, v := range b[1:] {
				got |= int(v) << (4 + 8*i)
			}
			if len(b) != 1+more {
				t.Errorf("%d: % x", n, b)
			}
		}
		if got != n+len(b) {
			t.Errorf("%d: % x says %d", n, b, got)
		}
	}
}

// TestSerial: the interrupt that the holding register is empty is there once for
// each byte, and identified once.
func TestSerial(t *testing.T) {
	var out bytes.Buffer
	interrupts := 0
	s := &serial{out: func(b []byte) { out.Write(b) }, interrupt: func() { interrupts++ }}
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s = %v; want %v", what, got, want)
		}
	}
	check("IIR of a reset", s.read(uartIIR), byte(iirNone))
	s.write(uartData, 'a')
	check("interrupts while they are off", interrupts, 0)
	s.write(uartIER, ierTHRI)
	check("interrupts", interrupts, 1)
	check("IIR", s.read(uartIIR), byte(iirTHRE))
	check("IIR, again", s.read(uartIIR), byte(iirNone))
	s.write(uartData, 'b')
	check("interrupts", interrupts, 2)
	s.write(uartIER, ierTHRI) // on already
	check("interrupts", interrupts, 2)
	s.write(uartIIR, fcrFIFO)
	check("IIR with FIFOs", s.read(uartIIR), byte(iirTHRE|iirFIFO))
	check("LSR", s.read(uartLSR), byte(lsrReady))
	s.write(uartLCR, lcrDLAB|3)
	s.write(uartData, 1)
	s.write(uartIER, 0)
	check("divisor", s.read(uartData), byte(1))
	s.write(uartLCR, 3)
	check("IER beside the divisor", s.read(uartIER), byte(ierTHRI))
	check("received", s.read(uartData), byte(0))
	// What the 8250 driver's autoconfig looks for.
	s.write(uartMCR, mcrLoop|0x0a)
	check("MSR in loopback", s.read(uartMSR)&0xf0, byte(0x90))
	s.write(uartData, 'x') // comes back, and is no output
	s.write(uartMCR, mcrOUT2)
	check("MSR", s.read(uartMSR), byte(msrLines))
	s.write(uartScratch, 0x5a)
	check("scratch", s.read(uartScratch), byte(0x5a))
	check("passed on before the line's end", out.String(), "")
	s.write(uartData, '\n')
	check("passed on", out.String(), "ab\n")
	for range 3 * lineMax / 2 {
		s.write(uartData, 'y')
	}
	check("passed on of a long line", out.Len(), 3+lineMax)
	s.flush()
	s.flush()
	check("passed on in the end", out.Len(), 3+3*lineMax/2)
}

// TestProcessor: each processor has a number of its own, no virtualization and no
// performance counters to play with.
func TestProcessor(t *testing.T) {
	var all []byte
	entry := func(function, index uint32) {
		e := make([]byte, cpuidEntry)
		for i := range 10 {
			binary.LittleEndian.PutUint32(e[4*i:], ^uint32(0))
		}
		binary.LittleEndian.PutUint32(e, function)
		binary.LittleEndian.PutUint32(e[4:], index)
		all = append(all, e...)
	}
	all = make([]byte, cpuidHead)
	for _, f := range []uint32{0, leafFeatures, leafPerfMon, leafTopology, leafV2Top, leafExtended} {
		entry(f, 0)
	}
	before := bytes.Clone(all)
	own := processor(all, 5)
	if !bytes.Equal(all, before) {
		t.Error("what all have in common was changed")
	}
	reg := func(i, r int) uint32 { return binary.LittleEndian.Uint32(own[cpuidHead+cpuidEntry*i+12+4*r:]) }
	for _, tt := range []struct {
		what      string
		got, want uint32
	}{
		{"leaf 0", reg(0, 0), ^uint32(0)},
		{"APIC number", reg(1, 1) >> 24, 5},
		{"VMX", reg(1, 2) & ecxVMX, 0},
		{"deadline timer", reg(1, 2) & ecxDeadline, ecxDeadline},
		{"hypervisor", reg(1, 2) & ecxGuest, ecxGuest},
		{"performance counters", reg(2, 0), 0},
		{"x2APIC number", reg(3, 3), 5},
		{"x2APIC number, V2", reg(4, 3), 5},
		{"SVM", reg(5, 2) & ecxSVM, 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %#x; want %#x", tt.what, tt.got, tt.want)
		}
	}
}
