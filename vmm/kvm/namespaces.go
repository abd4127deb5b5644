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

// namespaceNames are the namespaces, by the names of /proc/PID/ns. That of mounts is the last
// to be entered: it takes away what leads to the others. Those of processes and users
// cannot be changed by a thread among others (unshare(2), setns(2)).
var namespaceNames = []string{"net", "ipc", "uts", "cgroup", "mnt"}

// namespaces are those that the threads of all vCPUs of a machine are in.
type namespaces struct{ files []*os.File }

// newNamespaces makes them. Who may not make any, and that is everybody without
// CAP_SYS_ADMIN, has none.
func newNamespaces() (*namespaces, error) {
	n := &namespaces{}
	var err error
	onOwnThread(func() { err = n.make() })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("namespaces of the processors: %w", err), n.close())
	}
	return n, nil
}

// onOwnThread runs f on a thread that nothing else runs on and that ends with it, and
// returns when f has. That is never the process's first: Go lets that one not end, and
// what /proc/PID says of a process's namespaces, root, mounts and capabilities is its.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onOwnThread(f) // another one's: this one is taken
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// make makes them on the calling thread, which stays in them.
func (n *namespaces) make() error {
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
	for _, name := range namespaceNames {
		fd, err := unix.Openat(proc, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n.files = append(n.files, os.NewFile(uintptr(fd), name))
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

// enter takes the calling thread into them.
func (n *namespaces) enter() error {
	if len(n.files) == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // setns wants root and working directory to be its own
		return fmt.Errorf("unshare: %w", err)
	}
	for _, f := range n.files {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("setns %s: %w", f.Name(), err)
		}
	}
	return nil
}

func (n *namespaces) close() error {
	var errs []error
	for _, f := range n.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// restrictFiles forbids the calling thread every file and TCP, where the kernel has
// Landlock. It is not asked about signals: before Linux 6.15 the threads beside this
// one would count as somebody else's, and the Go runtime sends them some.
func restrictFiles() error {
	rules, err := landlock.New(false)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restrict files: %w", err)
	}
	defer rules.Close()
	if err := rules.Restrict(); err != nil {
		return fmt.Errorf("restrict files: %w", err)
	}
	return nil
}
