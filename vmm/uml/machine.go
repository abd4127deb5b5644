package uml

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"sekimori/vmm/uml/kernel"
)

// A Machine runs. Its methods may be called from any goroutine.
type Machine struct {
	process *os.Process
	console *reader
	cgroup  *cgroup
	sockets []net.Listener // by device; each gives one connection

	done chan struct{} // closed when the kernel has ended and all is cleaned up
	err  error         // why it ended; to be read after done
}

// Start starts a machine: the kernel is running when it returns, though it may
// have got no further than waiting for a device to be served. The machine ends
// with ctx.
func Start(ctx context.Context, c *Config) (*Machine, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	info := c.Info
	if info == nil || info.Release == "" {
		i, err := kernel.Describe(c.Kernel)
		if err != nil {
			return nil, fmt.Errorf("machine: %w", err)
		}
		info = &i
	}
	l := &launch{c: c}
	defer l.release()
	var a *affinity
	if c.OneCPU {
		a = pinned()
	}
	m, err := l.start(ctx, info)
	if err != nil {
		if a != nil {
			a.unpin()
		}
		return nil, fmt.Errorf("machine: %w", err)
	}
	if a != nil {
		go a.follow(m.PID(), m.done)
	}
	stop := context.AfterFunc(ctx, func() { m.Kill() })
	go func() {
		m.wait()
		stop()
	}()
	return m, nil
}

// PID is the host's number of the kernel's process, whose memory holds the
// guest kernel's data. It stays this machine's until Wait has returned.
func (m *Machine) PID() int { return m.process.Pid }

// Accept waits for the kernel to connect to device i of the Config, which it
// does once, during its boot, in the order of the devices; it boots on when the
// device has been set up. Its error is net.ErrClosed if the machine has ended.
func (m *Machine) Accept(i int) (*net.UnixConn, error) {
	if i < 0 || i >= len(m.sockets) {
		return nil, fmt.Errorf("machine: no device %d", i)
	}
	conn, err := m.sockets[i].Accept()
	if err != nil {
		return nil, err
	}
	m.sockets[i].Close() // once
	return conn.(*net.UnixConn), nil
}

// Booted removes the archive that the guest was booted from, which it has
// unpacked, from the host's memory. To be called when the guest's first
// process has been heard of.
func (m *Machine) Booted() error {
	select {
	case <-m.done:
		return os.ErrProcessDone
	default:
	}
	err := os.Remove(fmt.Sprintf("/proc/%d/root%s", m.process.Pid, initrdPath))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Console returns the last 64 KB of what the guest wrote to its console.
func (m *Machine) Console() string { return m.console.String() }

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

// Kill ends the machine at once, with all its processes.
func (m *Machine) Kill() error {
	err := m.process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Close kills the machine if it runs, and waits until nothing of it is left.
func (m *Machine) Close() error {
	err := m.Kill()
	<-m.done
	return err
}

// wait is run by one goroutine, from the start to the end of the machine.
func (m *Machine) wait() {
	state, err := m.process.Wait()
	// The kernel's death is that of its whole pid namespace, and with the last
	// process the console ends.
	<-m.console.done
	for _, f := range m.sockets {
		f.Close()
	}
	cleanup := m.cgroup.remove()
	switch {
	case err != nil:
		m.err = fmt.Errorf("machine: wait: %w", err)
	default:
		m.err = exitError(state.Sys().(syscall.WaitStatus), m.console)
	}
	m.err = errors.Join(m.err, cleanup)
	close(m.done)
}
