package kvm

// Where things lie in the guest's physical address space.
const (
	gdtBase     = 0x500
	pvhInfo     = 0x6000 // start info, module list, memory map
	pvhModules  = 0x6040
	pvhMemory   = 0x7000
	bootParams  = 0x8000
	pageTables  = 0x9000  // a PML4, a PDPT, four page directories
	commandLine = 0x20000 // up to 64 KiB
	lowEnd      = 0xa0000 // of RAM below the hole that a PC has there
	acpiBase    = 0xe0000 // tables, the RSDP first, where a kernel looks for it
	acpiEnd     = 0x100000
	highStart   = 0x100000

	ramEnd      = 0xc000_0000 // of low RAM; what is more lies from 4 GiB on
	deviceBase  = 0xd000_0000 // registers of virtio devices
	ioapicBase  = 0xfec0_0000
	lapicBase   = 0xfee0_0000
	tssBase     = 0xfeff_c000 // three pages that VMX wants for itself, and one more
	identityMap = 0xfeff_b000
	ram64Start  = 0x1_0000_0000
)

// Ports.
const (
	portSerial      = 0x3f8
	portKeyboard    = 0x64
	portReset       = 0xcf9
	PortPower       = 0x600 // ACPI sleep control register: a write with PowerOff set ends the machine
	portPowerStatus = 0x601
	portACPIReset   = 0x602
)

// PowerOff is SLP_EN of the sleep control register (ACPI 6.5, 4.8.3.7).
const PowerOff = 1 << 5

// Interrupts.
const (
	serialGSI   = 4
	firstGSI    = 5 // of virtio devices, which share what there is
	ioapicPins  = 24
	keyboardRST = 0xfe // command of the keyboard controller that pulses reset
)

func deviceGSI(i int) uint32 { return firstGSI + uint32(i)%(ioapicPins-firstGSI) }
