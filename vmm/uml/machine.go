package uml

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sekimori/vmm/uml/jail"
	"sekimori/vmm/uml/kernel"
)

// A Machine runs. Its methods may be called from any goroutine.
type Machine struct {
	process *os.Process
	console *console
	cgroup  *cgroup
	files   []net.Listener // by device; each gives one connection

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
		i, err := kernel.Inspect(c.Kernel)
		if err != nil {
			return nil, fmt.Errorf("machine: %w", err)
		}
		info = &i
	}
	l := &launch{c: c}
	defer l.release()
	m, err := l.start(ctx, info)
	if err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { m.Kill() })
	go func() {
		m.wait()
		stop()
	}()
	return m, nil
}

// A launch holds what a start needs and the machine does not.
type launch struct {
	c     *Config
	close []*os.File
	group *cgroup // until the machine has it
}

func (l *launch) release() {
	for _, f := range l.close {
		f.Close()
	}
	if l.group != nil {
		l.group.remove()
	}
}

func (l *launch) open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err == nil {
		l.close = append(l.close, f)
	}
	return f, err
}

func (l *launch) start(ctx context.Context, info *kernel.Info) (*Machine, error) {
	c := l.c
	spec := &jail.Spec{
		Args: c.commandLine(), Env: environment, UID: c.UID, GID: c.GID, Filter: filterFor(info),
		Files: map[string]*os.File{}, Sockets: map[string]*os.File{},
		Tmp: c.Memory + 4<<20, // UML's own files beside the memory
	}
	if spec.UID == 0 {
		spec.UID = nobody
	}
	if spec.GID == 0 {
		spec.GID = nobody
	}
	var err error
	if spec.Program, err = l.open(c.Kernel); err != nil {
		return nil, err
	}
	if err := l.libraries(info, spec.Files); err != nil {
		return nil, err
	}
	if c.InitRD != nil {
		st, err := c.InitRD.Stat()
		if err != nil {
			return nil, err
		}
		spec.Files[initrdPath] = c.InitRD
		spec.Tmp += st.Size()
	}
	if err := l.cgroupFor(spec); err != nil {
		return nil, err
	}
	sockets, err := l.sockets(spec)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	spec.Stdout = w
	p, err := jail.Start(ctx, spec)
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("jail: %w", err)
	}
	m := &Machine{process: p, console: newConsole(r, c.Console), cgroup: l.group, done: make(chan struct{})}
	l.group = nil
	if m.files, err = listeners(sockets); err != nil {
		m.Kill()
		m.wait()
		return nil, err
	}
	return m, nil
}

// filterFor chooses the list of system calls: what is known to be enough for a
// kernel as ours, and more for what has a loader, is of another age or starts its
// stubs by execve.
func filterFor(info *kernel.Info) jail.Filter {
	if info.Static && info.Before(6, 13) && !info.Before(6, 12) {
		return jail.Narrow
	}
	return jail.Wide
}

// sockets makes one for each device. The stage binds and listens on it in the
// jail, so that the host has no path to it, and accepting on it here works
// because it is the same open file.
func (l *launch) sockets(spec *jail.Spec) ([]*os.File, error) {
	var all []*os.File
	for i := range l.c.Devices {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("socket of device %d: %w", i, err)
		}
		f := os.NewFile(uintptr(fd), socketName(i))
		l.close = append(l.close, f)
		spec.Sockets[socketName(i)] = f
		all = append(all, f)
	}
	return all, nil
}

func listeners(sockets []*os.File) ([]net.Listener, error) {
	var all []net.Listener
	for i, f := range sockets {
		n, err := net.FileListener(f)
		if err != nil {
			for _, a := range all {
				a.Close()
			}
			return nil, fmt.Errorf("socket of device %d: %w", i, err)
		}
		all = append(all, n)
	}
	return all, nil
}

// PID is the host's number of the kernel's process, whose memory holds the
// guest kernel's data. It stays this machine's until Wait has returned.
func (m *Machine) PID() int { return m.process.Pid }

// Accept waits for the kernel to connect to device i of the Config, which it
// does once, during its boot, in the order of the devices; it boots on when the
// device has been set up. Its error is net.ErrClosed if the machine has ended.
func (m *Machine) Accept(i int) (*net.UnixConn, error) {
	if i < 0 || i >= len(m.files) {
		return nil, fmt.Errorf("machine: no device %d", i)
	}
	conn, err := m.files[i].Accept()
	if err != nil {
		return nil, err
	}
	m.files[i].Close() // once
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
	for _, f := range m.files {
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

// An ExitError says how a machine ended other than by its own will.
type ExitError struct {
	Status syscall.WaitStatus // of the kernel's process
	Why    string             // in words
	Last   string             // the last line on the console
}

func (e *ExitError) Error() string {
	if e.Last == "" {
		return "machine: " + e.Why
	}
	return fmt.Sprintf("machine: %s; its last words: %q", e.Why, e.Last)
}

// traps are known causes, by what the kernel prints.
var traps = []struct{ said, why string }{
	{"ptrace set fp regs failed, errno = 14", "xstate trap: the host's CPU has more floating-point state (AMX) than this kernel can restore; kernels from seki machine kernel build and from 7.0 on do"},
	{"must be not mounted noexec", "its memory file cannot be mapped executable"},
	{"Requested init", "there is no init in the initial file system, or it cannot be executed"},
	{"No working init found", "there is no init in the initial file system, or it cannot be executed"},
	{"Out of memory", "the guest is out of memory"},
	{"Attempted to kill init!", "the guest's kernel panicked: its first process ended"},
	{"Kernel panic", "the guest's kernel panicked"},
}

func exitError(ws syscall.WaitStatus, c *console) error {
	if ws.Exited() && ws.ExitStatus() == 0 {
		return nil
	}
	e := &ExitError{Status: ws, Last: c.last()}
	switch {
	case ws.Signaled() && ws.Signal() == unix.SIGSYS:
		e.Why = "killed by the system call filter of its jail"
	case ws.Signaled() && ws.Signal() == unix.SIGKILL:
		e.Why = "killed"
	case ws.Signaled():
		e.Why = "ended by " + ws.Signal().String()
	default:
		e.Why = fmt.Sprintf("exit status %d", ws.ExitStatus())
	}
	said := c.String()
	for _, t := range traps {
		if strings.Contains(said, t.said) {
			e.Why = t.why
			break
		}
	}
	return e
}
