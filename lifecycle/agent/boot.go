package agent

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Boot makes a machine's bare kernel a place for containers; process 1 calls it
// first. The file systems that the kernel itself offers are mounted, cgroups
// given their controllers, and the root moved away from the initramfs: the
// kernel lets nobody pivot off that one (pivot_root(2)).
func Boot() error {
	if err := newRoot(); err != nil {
		return err
	}
	for _, m := range kernelMounts {
		if err := m.mount(); err != nil {
			return err
		}
	}
	if err := calmMonitor(); err != nil {
		return err
	}
	return enableControllers()
}

// monitorSlack is how late the kernel may wake the runtime's monitor. The
// monitor itself sleeps up to 10 ms when it finds nothing to do. usualSlack is what
// every other process has (init/init_task.c).
const (
	monitorSlack = time.Millisecond
	usualSlack   = 50 * time.Microsecond
)

// calmMonitor makes the Go runtime's monitor look less often whether a system
// call blocks its thread. It would every 20 us, and in a guest of User-Mode
// Linux, where that takes 60, it is a third of all that the agent does while it
// starts. The monitor is the first thread that the runtime starts (runtime.main
// in runtime/proc.go).
func calmMonitor() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	self, monitor := os.Getpid(), 0
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err == nil && tid != self && (monitor == 0 || tid < monitor) {
			monitor = tid
		}
	}
	if monitor == 0 {
		return nil
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", monitor), strconv.AppendInt(nil, monitorSlack.Nanoseconds(), 10), 0)
}

// newRoot puts a file system in memory in the initramfs' place.
func newRoot() error {
	const at = "/newroot"
	if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Mount("root", at, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=755"); err != nil {
		return os.NewSyscallError("mount root", err)
	}
	if err := unix.Chdir(at); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return os.NewSyscallError("move root", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}

type kernelMount struct {
	at, kind, options string
	flags             uintptr
}

var kernelMounts = []kernelMount{
	{"/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"/dev", "devtmpfs", "mode=755", unix.MS_NOSUID},
	{"/dev/pts", "devpts", "mode=620,ptmxmode=666", unix.MS_NOSUID | unix.MS_NOEXEC},
	{"/sys/fs/cgroup", "cgroup2", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"/tmp", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
	{"/run", "tmpfs", "mode=755", unix.MS_NOSUID | unix.MS_NODEV},
}

func (m kernelMount) mount() error {
	if err := os.MkdirAll(m.at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.kind, m.at, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s: %w", m.at, err)
	}
	return nil
}

// enableControllers hands the kernel's controllers to the containers' groups.
func enableControllers() error {
	const root = "/sys/fs/cgroup/"
	b, err := os.ReadFile(root + "cgroup.controllers")
	if err != nil {
		return err
	}
	var enable []string
	for _, c := range strings.Fields(string(b)) {
		enable = append(enable, "+"+c)
	}
	return os.WriteFile(root+"cgroup.subtree_control", []byte(strings.Join(enable, " ")), 0)
}
