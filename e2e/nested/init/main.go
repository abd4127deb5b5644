// Init is process 1 of L1: it loads the modules that lie in /modules, says that
// it is there, and runs one command after the other.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/e2e/nested/wire"
)

func main() {
	os.Setenv("PATH", "/bin") // of which exec looks
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: not process 1")
		os.Exit(1)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err) // to the console
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(1) // the kernel panics, and says where
}

func run() error {
	if err := mounts(); err != nil {
		return err
	}
	tty, err := serial("/dev/ttyS1")
	if err != nil {
		return err
	}
	line := wire.NewLine(tty)
	if err := prepare(); err != nil {
		return errors.Join(err, line.Send(wire.Report{Error: err.Error()}))
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	if err := line.Send(wire.Report{Ready: unix.ByteSliceToString(name.Release[:])}); err != nil {
		return err
	}
	commands := make(chan wire.Command)
	ended := make(chan error, 1)
	// The line is read while a command runs, too: there are beats to be taken.
	go func() {
		for {
			var c wire.Command
			if err := line.Receive(&c); err != nil {
				ended <- err
				return
			}
			commands <- c
		}
	}()
	for {
		select {
		case err := <-ended:
			return err
		case c := <-commands:
			if len(c.Args) == 0 {
				return nil
			}
			if err := line.Send(wire.Report{Exited: true, Status: command(c, line)}); err != nil {
				return err
			}
		}
	}
}

// mounts makes the file systems that programs expect.
func mounts() error {
	// pivot_root(2) does not work where the root is the first file system of
	// all, which has nothing below it. So the root becomes a mount of itself.
	if err := again(); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	for _, m := range []struct{ at, kind, data string }{
		{"/proc", "proc", ""}, {"/sys", "sysfs", ""}, {"/dev", "devtmpfs", ""}, {"/dev/pts", "devpts", ""}, {"/dev/shm", "tmpfs", "mode=1777"},
		{"/tmp", "tmpfs", "mode=1777"}, {"/run", "tmpfs", "mode=755"}, {"/sys/fs/cgroup", "cgroup2", ""},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return nil
}

func again() error {
	const at = "/again"
	for _, step := range []func() error{
		func() error { return os.Mkdir(at, 0o755) },
		func() error { return unix.Mount("/", at, "", unix.MS_BIND, "") },
		func() error { return unix.Chdir(at) },
		func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") },
		func() error { return unix.Chroot(".") },
		func() error { return unix.Chdir("/") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// prepare loads modules, in the order of their names, and gives busybox its
// names.
func prepare() error {
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	slices.Sort(modules)
	for _, m := range modules {
		f, err := os.Open(m)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("load %s: %w", m, err)
		}
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		return nil
	}
	if out, err := exec.Command("/bin/busybox", "--install", "-s", "/bin").CombinedOutput(); err != nil {
		return fmt.Errorf("busybox --install: %w: %s", err, out)
	}
	return nil
}

// serial opens a serial line that carries bytes as they are.
func serial(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag |= unix.CLOCAL | unix.CREAD
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return f, unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

// command runs a program and returns its status, 127 if there is none.
func command(c wire.Command, line *wire.Line) int {
	out := output{line}
	env, args := []string{"PATH=/bin", "HOME=/tmp"}, c.Args
	for len(args) > 1 && strings.Contains(args[0], "=") { // as env(1) has it
		env, args = append(env, args[0]), args[1:]
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
	cmd.WaitDelay = 5 * time.Second // for who still holds its output
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			return 128 + int(w.Signal())
		}
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(out, "init:", err)
		return 127
	}
	return 0
}

// output sends what is written. One goroutine of exec writes, where standard
// output and error are the same.
type output struct{ line *wire.Line }

func (o output) Write(b []byte) (int, error) {
	if err := o.line.Send(wire.Report{Output: b}); err != nil {
		return 0, err
	}
	return len(b), nil
}
