package kvm

import (
	"fmt"
	"sync"

	"sekimori/vmm/mmio"
)

// A device is one of the machine's, at its place.
type device struct {
	registers *mmio.Registers
	irq       *event
	kicked    func(*Regs, int)
	mu        sync.Mutex // mu is held during a kick, where kicked is to be told of it
}

// kick serves a notification of a queue on the thread of the vCPU that made it.
func (d *device) kick(v *vcpu, queue int) {
	if d.kicked == nil {
		d.registers.Kick(queue)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v.regs.take(v)
	d.kicked(&v.regs, queue)
	d.registers.Kick(queue)
}

// device finds the device whose registers an address is of, nil if there is none.
func (m *Machine) device(addr uint64) (*device, uint64) {
	off := addr - deviceBase // below the base this wraps, and is more than any device's
	if i := off / mmio.Size; i < uint64(len(m.devices)) {
		return m.devices[i], off % mmio.Size
	}
	return nil, 0
}

// in fills b with what the guest reads from a port: all ones where nothing is.
func (m *Machine) in(port uint16, b []byte) {
	for i := range b {
		b[i] = 0xff
	}
	switch {
	case len(b) != 1:
	case port >= portSerial && port < portSerial+8:
		b[0] = m.serial.read(port - portSerial)
	case port == portKeyboard:
		b[0] = 0 // neither full nor a keyboard
	case port == PortPower, port == portPowerStatus:
		b[0] = 0
	}
}

// out takes what the guest writes to a port. It returns the machine's end if it
// is that.
func (m *Machine) out(port uint16, b []byte) error {
	switch {
	case len(b) != 1:
	case port >= portSerial && port < portSerial+8:
		m.serial.write(port-portSerial, b[0])
	case port == PortPower && b[0]&PowerOff != 0:
		return errPowerOff
	case port == portKeyboard && b[0] == keyboardRST, port == portACPIReset, port == portReset && b[0]&4 != 0:
		return &ExitError{Why: restarted, CPU: -1}
	}
	return nil
}

// place makes the machine's devices out of those of its Config.
func (m *Machine) place(c *Config) error {
	for i, d := range c.Devices {
		if d.Memory != nil {
			d.Memory(m.ram.mem)
		}
		irq, err := newEvent(m.vm, deviceGSI(i))
		if err != nil {
			return fmt.Errorf("device %d: interrupt: %w", i, err)
		}
		m.devices = append(m.devices, &device{
			irq: irq, kicked: d.Kicked,
			registers: mmio.New(mmio.Config{Device: d.Virtio, Memory: m.ram.mem, Interrupt: irq.signal, Log: c.Log}),
		})
	}
	return nil
}
