package nested

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"sekimori/e2e/nested/wire"
)

// A Config is what L1 is made of.
type Config struct {
	Kernel  Kernel
	Modules []string // to load before the first command, with what they stand on
	Files   []File   // for the commands
	Init    string   // path of the program that [BuildInit] built
	Args    string   // more words for the kernel's command line
	Memory  int      // MiB; 0 is 1024
}

// A Machine is an L1 that runs.
type Machine struct {
	dir     string
	qemu    *exec.Cmd
	said    tail          // what QEMU itself wrote
	ended   chan struct{} // closed when QEMU has
	conn    net.Conn
	line    *wire.Line
	Release string // of its kernel, as it says itself
}

// Boot boots L1 and waits until it can run commands. The context ends the wait;
// the machine then is gone.
func Boot(ctx context.Context, cfg Config) (*Machine, error) {
	dir, err := os.MkdirTemp("", "seki-nested")
	if err != nil {
		return nil, err
	}
	m := &Machine{dir: dir, ended: make(chan struct{})}
	if err := m.boot(ctx, cfg); err != nil {
		return nil, errors.Join(m.explain("boot of L1", err), m.kill())
	}
	return m, nil
}

func (m *Machine) boot(ctx context.Context, cfg Config) error {
	if err := writeArchive(m.path("initrd"), cfg); err != nil {
		close(m.ended)
		return err
	}
	control, err := net.Listen("unix", m.path("control"))
	if err != nil {
		close(m.ended)
		return err
	}
	defer control.Close()
	if err := m.start(cfg); err != nil {
		close(m.ended)
		return err
	}
	stop := m.closeWhenOver(ctx, control)
	defer stop()
	switch m.conn, err = control.Accept(); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("QEMU's serial line: %w", err)
	}
	m.line = wire.NewLine(m.conn)
	r, err := m.receive(ctx)
	m.Release = r.Ready
	if err == nil {
		go m.beat()
	}
	return err
}

// closeWhenOver closes c when the context or QEMU ends.
func (m *Machine) closeWhenOver(ctx context.Context, c io.Closer) (stop func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
			c.Close()
		case <-m.ended:
			c.Close()
		case <-done:
		}
	}()
	return func() { close(done) }
}

// start starts QEMU.
func (m *Machine) start(cfg Config) error {
	memory := cfg.Memory
	if memory == 0 {
		memory = 1024
	}
	m.qemu = m.command("qemu-system-x86_64",
		"-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "EPYC,+svm", "-smp", "1", "-m", strconv.Itoa(memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
		"-serial", "file:"+m.path("console"), "-serial", "unix:"+m.path("control"),
		"-qmp", "unix:"+m.path("monitor")+",server=on,wait=off",
		"-kernel", cfg.Kernel.Image, "-initrd", m.path("initrd"),
		// What slows TCG down and hides nothing that the tests look for. On a busy host
		// the kernel's test of its timer times out, and it panics. Its timer is periodic:
		// one that it sets anew each time is lost for good if it is lost once. In a run of
		// TestSeki that stood still L1 said that its own timers were 21, 86 and 346 s late.
		"-append", "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check nohz=off highres=off "+cfg.Args)
	m.qemu.Stdout, m.qemu.Stderr = &m.said, &m.said
	// A test that is killed leaves no QEMU.
	m.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ended, err := startOnOneCPU(m.qemu)
	if err != nil {
		return err
	}
	go func() {
		m.qemu.Wait() // how it ended, its output says
		ended()
		close(m.ended)
	}()
	return nil
}

// command is QEMU, before others where it may: who emulates a processor is slow
// enough, and timers of two kernels do not wait for it.
func (m *Machine) command(name string, args ...string) *exec.Cmd {
	if os.Geteuid() != 0 {
		return exec.Command(name, args...)
	}
	return exec.Command("nice", append([]string{"-n", "-10", name}, args...)...)
}

// beat interrupts L1's processor twenty times a second, until QEMU has ended: should
// it still lose an interrupt (see [startOnOneCPU]), the next of any kind has it look
// again. Without it, and on several processors, once in twenty runs L1 halted for good
// with its timer's vector in the IRR.
func (m *Machine) beat() {
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		select {
		case <-m.ended:
			tick.Stop()
			return
		case <-tick.C:
			m.line.Beat() // an error: it is ending
		}
	}
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// kernelArg is what commands are to give a kernel that they boot, by the variable
// SEKI_TEST_KERNEL_ARG. QEMU's VMRUN does not put the interrupt shadow of the VMCB's
// int_state in force (7.2, target/i386/tcg/sysemu/svm_helper.c): a processor of L2 that
// L1 interrupts between sti and hlt gets its next interrupt there, too, before it halts.
// Of 30,000 interrupts that wake it from a hlt behind sti 78 were taken too early, of
// 3,000 on a real KVM none. What such an interrupt wanted done then waits for the next,
// and if that was to be the tick of an idle processor, for ever: the interrupt has
// stopped the tick, and nobody sends one to a processor that is to look anyway. A tick
// that never stops mends that within milliseconds.
const kernelArg = "nohz=off"

// Run runs a program and returns its exit status; what it writes goes to out. Words
// with an equals sign before its name are for its environment. An error means
// that the machine did not last until the program exited: it is gone.
func (m *Machine) Run(ctx context.Context, out io.Writer, args ...string) (status int, err error) {
	if err := m.line.Send(wire.Command{Args: append([]string{"SEKI_TEST_KERNEL_ARG=" + kernelArg}, args...)}); err != nil {
		return 0, errors.Join(m.explain(fmt.Sprint(args), err), m.kill())
	}
	for {
		r, err := m.receive(ctx)
		switch {
		case err != nil:
			return 0, errors.Join(m.explain(fmt.Sprint(args), err), m.kill())
		case r.Exited:
			return r.Status, nil
		}
		if _, err := out.Write(r.Output); err != nil {
			return 0, err
		}
	}
}

// receive waits for a report.
func (m *Machine) receive(ctx context.Context) (wire.Report, error) {
	stop := m.closeWhenOver(ctx, m.conn)
	defer stop()
	var r wire.Report
	err := m.line.Receive(&r)
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil && r.Error != "":
		err = errors.New(r.Error)
	}
	return r, err
}

// poweroff is what a shutdown may take.
const poweroff = time.Minute

// Close ends the machine as its last command. What it did not do is an error.
func (m *Machine) Close() error {
	err := m.line.Send(wire.Command{})
	select {
	case <-m.ended:
	case <-time.After(poweroff):
		err = errors.Join(err, m.explain("end of L1", errors.New("it does not power off")))
	}
	return errors.Join(err, m.kill())
}

// kill ends QEMU and removes what the machine left.
func (m *Machine) kill() error {
	if m.qemu != nil && m.qemu.Process != nil {
		m.qemu.Process.Kill() // or it has ended
	}
	<-m.ended
	if m.conn != nil {
		m.conn.Close()
	}
	return os.RemoveAll(m.dir)
}

// explain adds the end of what L1 and QEMU said, and where L1's processor stands
// and what it waits for.
func (m *Machine) explain(what string, err error) error {
	var console tail
	if f, oerr := os.Open(m.path("console")); oerr == nil {
		io.Copy(&console, f)
		f.Close()
	}
	return fmt.Errorf("%s: %w\nQEMU: %sconsole of L1, its end:\n%s%s", what, err, m.said.String(), console.String(), m.processor())
}
