package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A Feature is something that containers need of the kernel or the user.
type Feature struct {
	Name     string
	OK       bool
	Detail   string // what was found, or why it is not there
	Required bool   // without it no container can be made
}

// Supported tries what containers need on this machine. It changes nothing.
func Supported() []Feature {
	return []Feature{
		root(), userNamespaces(), mounts(), idMappedRoot(), fileSystem("overlay", false), fileSystem("tmpfs", true), paths(), pidFD(), seccomp(), cgroups(), rlimitRaise(),
	}
}

func feature(name string, required bool, err error, found string) Feature {
	f := Feature{Name: name, Required: required, OK: err == nil, Detail: found}
	if err != nil {
		f.Detail = err.Error()
	}
	return f
}

func root() Feature {
	var err error
	if os.Geteuid() != 0 {
		err = fmt.Errorf("effective user id is %d: machine host needs root", os.Geteuid())
	}
	return feature("root", true, err, "effective user id 0")
}

func userNamespaces() Feature {
	max, err := readFile("/proc/sys/user/max_user_namespaces")
	n := strings.TrimSpace(string(max))
	if err == nil && n == "0" {
		err = errors.New("user.max_user_namespaces is 0")
	}
	return feature("user namespaces", true, err, "at most "+n)
}

// mounts tries the mount calls of Linux 5.2 and 5.12.
func mounts() Feature {
	fd, err := openTree("/", false)
	if err == nil {
		err = setAttr(fd, false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}) // of the clone
		unix.Close(fd)
	}
	return feature("detached mounts", true, err, "open_tree, mount_setattr (Linux 5.12)")
}

// idMappedRoot maps the ids of a clone of the root mount, for which it makes a
// user namespace for a moment.
func idMappedRoot() Feature {
	return feature("id-mapped mounts of the root file system", false, probeIDMap(), "owners look right inside")
}

func probeIDMap() error {
	fd, err := openTree("/", false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ctl, err := newControl()
	if err != nil {
		return err
	}
	s, err := newScript()
	if err != nil {
		return err
	}
	s.step("wait")
	s.call(opWait, hostFD(ctl.child.Fd()))
	p, err := start(s, unix.CLONE_NEWUSER, false, ctl, nil)
	if err != nil {
		s.free()
		return err
	}
	defer func() {
		p.signal(unix.SIGKILL)
		p.wait()
		p.release()
		p.pidfd.Close()
	}()
	ids := []specs.LinuxIDMapping{{HostID: 1 << 20, Size: 1}}
	if err := errors.Join(writeMap(p.pid, "uid_map", ids), writeMap(p.pid, "gid_map", ids)); err != nil {
		return err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", p.pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return setAttr(fd, false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
}

func fileSystem(name string, required bool) Feature {
	data, err := readFile("/proc/filesystems")
	if err == nil && !strings.Contains(string(data), "\t"+name+"\n") {
		err = errors.New("not in /proc/filesystems")
	}
	return feature(name, required, err, "in /proc/filesystems")
}

func paths() Feature {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err == nil {
		unix.Close(fd)
	}
	return feature("openat2", true, err, "paths resolved below the container's root (Linux 5.6)")
}

func pidFD() Feature {
	fd, err := unix.PidfdOpen(os.Getpid(), unix.PIDFD_NONBLOCK)
	if err == nil {
		unix.Close(fd)
	}
	return feature("pidfd", true, err, "processes named for good (Linux 5.10)")
}

func seccomp() Feature {
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	// SAFETY: the kernel reads four bytes of a local.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, 2 /* SECCOMP_GET_ACTION_AVAIL */, 0, uintptr(unsafe.Pointer(&action)))
	var err error
	if errno != 0 {
		err = errno
	}
	return feature("system call filter", true, err, "seccomp with SECCOMP_RET_KILL_PROCESS (Linux 4.14)")
}

// cgroups says which version limits containers, and with what.
func cgroups() Feature {
	if unified() {
		data, err := readFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		return feature("cgroups", true, err, "v2: "+strings.TrimSpace(string(data)))
	}
	var err error
	if len(controllers()) == 0 {
		err = fmt.Errorf("no controller below %s", cgroupRoot)
	}
	return feature("cgroups", true, err, "v1: "+strings.Join(controllers(), " "))
}

// rlimitRaise says whether hard limits can be raised.
func rlimitRaise() Feature {
	c := &[2]unix.CapUserData{}
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &c[0])
	if err == nil && c[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		err = errors.New("CAP_SYS_RESOURCE is missing: hard resource limits can be lowered only")
	}
	return feature("raising resource limits", false, err, "CAP_SYS_RESOURCE")
}
