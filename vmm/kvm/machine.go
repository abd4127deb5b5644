package kvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"sekimori/vmm/console"
	"sekimori/vmm/guestmem"
)

// A Machine runs. Its methods may be called from any goroutine.
type Machine struct {
	dev *os.File // /dev/kvm
	vm  int
	ram *ram
	// namespaces are those of the threads of cpus.
	namespaces *namespaces
	cpus       []*vcpu
	devices    []*device
	serial     *serial
	uart       *event
	console    *console.Log
	lines      chan []byte // to the console; see print
	line       *line       // nil: nobody answers a doorbell
	watched    bool        // somebody wants registers at a kick

	exits    atomic.Uint64
	stopping atomic.Bool
	stopped  chan struct{} // closed with it
	once     sync.Once     // of stop
	cause    error         // why; to be read after done, like err
	done     chan struct{}
	err      error
}

// Start starts a machine: its processors run when it returns. The machine ends
// with ctx.
func Start(ctx context.Context, c *Config) (*Machine, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cfg := *c
	cfg.CPUs = max(cfg.CPUs, 1)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Machine{vm: -1, console: console.New(cfg.Console), lines: make(chan []byte, consoleQueue), stopped: make(chan struct{}), done: make(chan struct{})}
	if err := m.build(&cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("machine: %w", err), m.release())
	}
	stop := context.AfterFunc(ctx, func() { m.Kill() })
	go func() {
		m.work()
		stop()
	}()
	return m, nil
}

// build makes everything but the threads.
func (m *Machine) build(c *Config) (err error) {
	if m.dev, err = open(); err != nil {
		return err
	}
	vm, err := kvm.CreateVM(m.dev.Fd())
	for errors.Is(err, unix.EINTR) { // by a signal of the Go runtime's, while the kernel takes all locks of our memory (mm_take_all_locks)
		vm, err = kvm.CreateVM(m.dev.Fd())
	}
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	m.vm = int(vm)
	unix.CloseOnExec(m.vm)
	if m.namespaces, err = newNamespaces(); err != nil {
		return err
	}
	if m.ram, err = newRAM(uint64(c.Memory)); err != nil {
		return err
	}
	if err := m.board(); err != nil {
		return err
	}
	if c.Doorbell != nil {
		m.line, m.watched = &line{serve: c.Doorbell}, true
	}
	for _, d := range c.Devices {
		m.watched = m.watched || d.Kicked != nil
	}
	cpuid, err := supported(int(m.dev.Fd()))
	if err != nil {
		return err
	}
	for i := range c.CPUs {
		v, err := newVCPU(m, i, cpuid)
		if err != nil {
			return err
		}
		m.cpus = append(m.cpus, v)
	}
	if err := m.place(c); err != nil {
		return err
	}
	return c.Image.load(&boot{mem: m.ram.mem, low: m.ram.low(), size: m.ram.size, cpus: c.CPUs, devices: len(c.Devices), sregs: m.cpus[0].sregs, set: m.cpus[0].set})
}

// board puts memory, interrupt controllers and the serial port on the machine.
// It has no timer but those of its processors: less of the host's kernel is
// within the guest's reach.
func (m *Machine) board() (err error) {
	if err := kvm.SetTSSAddr(uintptr(m.vm), tssBase); err != nil {
		return fmt.Errorf("KVM_SET_TSS_ADDR: %w", err)
	}
	if err := m.setIdentityMap(); err != nil {
		return err
	}
	if err := m.ram.show(m.vm); err != nil {
		return err
	}
	if err := kvm.CreateIRQChip(uintptr(m.vm)); err != nil {
		return fmt.Errorf("KVM_CREATE_IRQCHIP: %w", err)
	}
	if m.uart, err = newEvent(m.vm, serialGSI); err != nil {
		return err
	}
	m.serial = &serial{out: m.print, interrupt: m.uart.signal}
	return nil
}

// consoleQueue is how many lines wait for the console.
const consoleQueue = 64

// print passes a line of the guest's on to the goroutine of the console: to write a
// log may take what no vCPU's thread may do. A guest that is killed does not wait.
func (m *Machine) print(line []byte) {
	select {
	case m.lines <- line:
	default:
		select {
		case m.lines <- line:
		case <-m.stopped:
		}
	}
}

// setIdentityMap gives VMX the page that it wants for the time without paging.
func (m *Machine) setIdentityMap() error {
	addr := uint64(identityMap)
	// SAFETY: the kernel reads addr.
	if _, err := ioctl(m.vm, ioSetIdentityMap, unsafe.Pointer(&addr)); err != nil {
		return fmt.Errorf("KVM_SET_IDENTITY_MAP_ADDR: %w", err)
	}
	return nil
}

// Memory is the guest's. It stays readable through a late access, which gets an
// error once the machine has ended.
func (m *Machine) Memory() *guestmem.Memory { return m.ram.mem }

// Console returns the last 64 KB of what the guest wrote to its serial port.
func (m *Machine) Console() string { return m.console.String() }

// Exits is how often the processors have left the guest for something that is
// done here.
func (m *Machine) Exits() uint64 { return m.exits.Load() }

// Done is closed when the machine has ended and nothing of it is left.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Running reports whether the machine has not ended.
func (m *Machine) Running() bool {
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

// Wait waits for the machine's end and says why it ended: nil if the guest
// powered off, an [*ExitError] else.
func (m *Machine) Wait() error {
	<-m.done
	return m.err
}

// Kill ends the machine at once, whatever its processors do. It does not wait.
func (m *Machine) Kill() error {
	m.stop(&ExitError{Why: "killed", CPU: -1})
	return nil
}

// Close kills the machine if it runs, and waits until nothing of it is left.
func (m *Machine) Close() error {
	m.Kill()
	<-m.done
	return nil
}

// stop ends the machine for the first reason that is given.
func (m *Machine) stop(cause error) {
	m.once.Do(func() {
		m.cause = cause
		m.stopping.Store(true)
		close(m.stopped)
		for _, v := range m.cpus {
			v.kick()
		}
	})
}

// work runs the processors, from the start to the end of the machine.
func (m *Machine) work() {
	var printed, all sync.WaitGroup
	printed.Go(func() {
		for line := range m.lines {
			m.console.Write(line)
		}
	})
	for _, v := range m.cpus {
		all.Go(func() {
			onOwnThread(func() {
				if err := v.loop(); err != nil {
					m.stop(err)
				}
			})
		})
	}
	all.Wait()
	m.stop(nil) // waits for the one that stopped them, who may still be at it
	m.serial.flush()
	close(m.lines) // no processor prints any more
	printed.Wait()
	m.err = errors.Join(ended(m.cause, m.console.String(), m.console.Last()), m.release())
	close(m.done)
}

// release gives back what build took, in whole or in part. No processor runs.
func (m *Machine) release() error {
	var errs []error
	for _, d := range m.devices {
		d.registers.Close() // from here on nobody interrupts
		errs = append(errs, d.irq.close())
	}
	for _, v := range m.cpus {
		errs = append(errs, v.close())
	}
	if m.uart != nil {
		errs = append(errs, m.uart.close())
	}
	if m.namespaces != nil {
		errs = append(errs, m.namespaces.close())
	}
	if m.vm >= 0 {
		errs = append(errs, unix.Close(m.vm))
	}
	if m.ram != nil {
		errs = append(errs, m.ram.close())
	}
	if m.dev != nil {
		errs = append(errs, m.dev.Close())
	}
	return errors.Join(errs...)
}
