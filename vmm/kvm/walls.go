package kvm

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"sekimori/vmm/landlock"
)

// What a vCPU's thread may ask the kernel for takes no path and no address
// (contain.go). Behind that list stands a second wall, for the day that it has a
// hole: namespaces in which there is no file, no network and no name of the host's,
// and Landlock, which an ordinary user has, too.

// walled are the namespaces, by the names of /proc/PID/ns. That of mounts is the last
// to be entered: it takes away what leads to the others. Those of processes and users
// cannot be changed by a thread among others (unshare(2), setns(2)).
var walled = []string{"net", "ipc", "uts", "cgroup", "mnt"}

// walls are namespaces for all vCPUs of a machine.
type walls struct{ ns []*os.File }

// newWalls makes them. Who may not make any, and that is everybody without
// CAP_SYS_ADMIN, has none.
func newWalls() (*walls, error) {
	type result struct {
		w   *walls
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		w := &walls{}
		made <- result{w, w.make()}
	}()
	r := <-made
	if r.err != nil {
		return nil, errors.Join(fmt.Errorf("namespaces of the processors: %w", r.err), r.w.close())
	}
	return r.w, nil
}

// make makes them on the calling thread, which stays in them.
func (w *walls) make() error {
	proc, err := unix.Open("/proc/thread-self/ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	err = unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP)
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Sethostname([]byte("vcpu")); err != nil {
		return err
	}
	if err := emptyRoot(); err != nil {
		return err
	}
	for _, name := range walled {
		fd, err := unix.Openat(proc, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		w.ns = append(w.ns, os.NewFile(uintptr(fd), name))
	}
	return nil
}

// emptyRoot puts a file system without files over the root of the thread's mounts:
// who enters the namespace has that for its root (mntns_install, fs/namespace.c), and
// without CAP_SYS_ADMIN and CAP_SYS_CHROOT nothing leads below it.
func emptyRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "nr_inodes", "2"); err != nil {
		return fmt.Errorf("fsconfig: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("fsconfig: %w", err)
	}
	top, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(top)
	if err := unix.MoveMount(top, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the root: %w", err)
	}
	return nil
}

// enter takes the calling thread behind them.
func (w *walls) enter() error {
	if len(w.ns) == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // setns wants root and working directory to be its own
		return fmt.Errorf("unshare: %w", err)
	}
	for _, ns := range w.ns {
		if err := unix.Setns(int(ns.Fd()), 0); err != nil {
			return fmt.Errorf("setns %s: %w", ns.Name(), err)
		}
	}
	return nil
}

func (w *walls) close() error {
	var errs []error
	for _, ns := range w.ns {
		errs = append(errs, ns.Close())
	}
	return errors.Join(errs...)
}

// lockFiles forbids the calling thread every file and TCP, where the kernel has
// Landlock. It is not asked about signals: before Linux 6.15 the threads beside this
// one would count as somebody else's, and the Go runtime sends them some.
func lockFiles() error {
	rules, err := landlock.New(false)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock files: %w", err)
	}
	defer rules.Close()
	if err := rules.Restrict(); err != nil {
		return fmt.Errorf("lock files: %w", err)
	}
	return nil
}
