package linux

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// What a container with the host's root gets to see. Nothing else of the host
// is reachable: its root is not below the container's, only these directories
// are, each a mount of its own.
//
//   - Programs: /usr and, where they are directories, /bin, /sbin, /lib*. They
//     are shown with their owners moved into the container's range, so root
//     owns them inside. They hold no secrets: any user of the host may read them.
//   - Configuration: /etc and /opt. Their owners are not moved, and belong to
//     nobody inside: so the kernel itself, at each open, gives the container
//     what it would give a stranger among the host's users. /etc/shadow, the
//     host's keys, everything not readable by all stays closed, whenever it was
//     made. New files can be made and old ones replaced in /etc itself.
//   - Everything else (/root, /home, /var, /run, /tmp, /srv, ...) is fresh and empty.
var (
	hostPrograms = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
	hostConfig   = []string{"etc", "opt"}
)

// freshDirs are the other directories of the root, with their modes.
var freshDirs = []struct {
	name string
	mode uint32
}{
	{"dev", 0o755}, {"home", 0o755}, {"media", 0o755}, {"mnt", 0o755}, {"proc", 0o555}, {"root", 0o700}, {"run", 0o755}, {"run/lock", 0o1777},
	{"srv", 0o755}, {"sys", 0o555}, {"tmp", 0o1777}, {"var", 0o755}, {"var/cache", 0o755}, {"var/lib", 0o755}, {"var/log", 0o755},
	{"var/spool", 0o755}, {"var/tmp", 0o1777},
}

// A hostPart is a directory of the host that waits to be attached.
type hostPart struct {
	name  string
	mount any // slot of an overlay, or hostFD of a bind
}

// makeHostRoot makes a root in memory for the host's directories.
func (b *builder) makeHostRoot() error {
	if !b.cfg.inUserNS() {
		return errors.New("the host's root needs a user namespace: root of the container would be root there, and read everything")
	}
	if b.spec.Root.Overlay {
		b.stage()
	}
	b.step("make root directory")
	b.root = b.makeFS("tmpfs", "root", unix.MOUNT_ATTR_NODEV, [][2]string{{"mode", "755"}, {"size", fmt.Sprint(b.overlayBytes())}})
	for _, d := range freshDirs {
		b.call(unix.SYS_MKDIRAT, b.root, d.name, d.mode)
	}
	b.call(unix.SYS_SYMLINKAT, "/run", b.root, "var/run")
	b.call(unix.SYS_SYMLINKAT, "/run/lock", b.root, "var/lock")
	for _, name := range hostPrograms {
		if err := b.hostDir(name, b.cfg.idmapped()); err != nil {
			return err
		}
	}
	for _, name := range hostConfig {
		if err := b.hostDir(name, false); err != nil {
			return err
		}
	}
	return nil
}

// hostDir puts the host's directory /name into the root: under an overlay, or
// as it is and read-only. A symbolic link (/bin, where /usr is merged) is copied.
func (b *builder) hostDir(name string, idmap bool) error {
	path := "/" + name
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode()&os.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		b.call(unix.SYS_SYMLINKAT, to, b.root, name)
		return nil
	case !st.IsDir():
		return nil
	}
	b.step("take %s from the host", path)
	fd, err := openTree(path, false)
	if err != nil {
		return err
	}
	h := b.own(fd)
	b.attrs = append(b.attrs, pendingAttr{fd: fd, what: path, idmap: idmap, attr: unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | b.rootAttrs(), Propagation: unix.MS_PRIVATE}})
	b.call(unix.SYS_MKDIRAT, b.root, name, 0o755)
	if !b.spec.Root.Overlay {
		b.parts = append(b.parts, hostPart{name, h})
		return nil
	}
	b.layer(name, h)
	b.parts = append(b.parts, hostPart{name, b.overlay(name)})
	return nil
}

// attachParts attaches the host's directories, once their root is the root.
func (b *builder) attachParts() error {
	for _, p := range b.parts {
		b.step("attach /%s", p.name)
		at := b.inRoot(p.name, unix.O_DIRECTORY)
		b.call(unix.SYS_MOVE_MOUNT, p.mount, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		b.call(unix.SYS_CLOSE, at)
	}
	return nil
}

// HostRootDirs are the directories of the host, below its root, that a
// container with the host's root gets to see.
func HostRootDirs() []string { return slices.Concat(hostPrograms, hostConfig) }
