package kvm

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtio"
)

// A Config describes a machine.
type Config struct {
	Image  Image // what it begins with
	Memory int64 // of the guest, in bytes; a multiple of 1 MiB, 64 MiB at least for a kernel
	CPUs   int   // 0 is 1

	Devices []Device

	// Doorbell, if not nil, answers what the guest asks through the ports of package
	// doorbell. It is called by one goroutine at a time, while the vCPU whose registers
	// r are stands in its exit; nil is no answer. r is the callee's until it returns.
	Doorbell func(r *Regs, request []byte) (answer []byte)

	// Console gets what the guest writes to its serial port, line by line, from one
	// goroutine. A Write that blocks stops the guest some lines later, and Wait. May be nil; the end of it is kept in
	// any case ([Machine.Console]).
	Console io.Writer

	// Log takes what the guest did to itself; nil discards it.
	Log *slog.Logger
}

// A Device is one of the machine's virtio devices.
type Device struct {
	Virtio virtio.Device

	// Memory, if not nil, is told of the guest's memory before the machine runs.
	Memory func(*guestmem.Memory)

	// Kicked, if not nil, is told of every notification of a queue before the
	// device is, on the vCPU's thread, while the vCPU stands in its exit. No
	// other kick of this device runs until the device is done with it. r is the
	// callee's until it returns.
	Kicked func(r *Regs, queue int)
}

// Limits of a Config.
const (
	MinMemory  = 1 << 20
	MaxMemory  = 64 << 30
	MaxCPUs    = 64
	MaxDevices = 64
)

// check refuses what would fail later.
func (c *Config) check() error {
	switch {
	case c.Image == nil:
		return errors.New("no kernel")
	case c.Memory < MinMemory || c.Memory > MaxMemory || c.Memory%(1<<20) != 0:
		return fmt.Errorf("memory: %d bytes: want a multiple of 1 MiB up to %d GiB", c.Memory, int64(MaxMemory)>>30)
	case c.CPUs < 0 || c.CPUs > MaxCPUs:
		return fmt.Errorf("%d processors, at most %d", c.CPUs, MaxCPUs)
	case len(c.Devices) > MaxDevices:
		return fmt.Errorf("%d devices, at most %d", len(c.Devices), MaxDevices)
	}
	return nil
}
