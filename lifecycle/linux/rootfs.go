package linux

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/bundle"
)

// overlaySize bounds the private layer in memory if no memory limit does.
const overlaySize = 256 << 20

// makeRoot makes the container's root mount, not attached anywhere.
func (b *builder) makeRoot() error {
	b.step("make root file system")
	if b.spec.Root.Kind == bundle.RootHost {
		return b.makeHostRoot()
	}
	dir := b.spec.Root.Path
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("root file system: %s is not a directory", dir)
	}
	// Recursive: what is mounted below a root directory belongs to it.
	fd, err := openTree(dir, !b.spec.Root.Overlay)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	h := b.own(fd)
	p := pendingAttr{fd: fd, what: dir, idmap: b.cfg.shows(dir), recursive: true, attr: unix.MountAttr{Attr_set: b.rootAttrs()}}
	if b.spec.Root.Overlay {
		p.attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	} else {
		p.attr.Propagation = unix.MS_PRIVATE
	}
	b.attrs = append(b.attrs, p)
	if !b.spec.Root.Overlay {
		b.root = b.open(unix.SYS_FCNTL, h, unix.F_DUPFD_CLOEXEC, 3)
		return nil
	}
	b.stage()
	b.layer("root", h)
	b.root = b.overlay("root")
	return nil
}

// rootAttrs are the attributes of the container's root. No device of a file
// system that somebody else packed may be opened. Where a process cannot gain
// privileges by executing a file anyhow, nosuid says so: otherwise the kernel
// refuses to execute a file that asks for a capability outside the bounding
// set, such as Debian's ping, instead of running it without.
func (b *builder) rootAttrs() uint64 {
	if b.spec.OCI.Process.NoNewPrivileges {
		return unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID
	}
	return unix.MOUNT_ATTR_NODEV
}

// staging is where layers lie while overlays are put together: any directory
// that exists everywhere and that nobody needs any more. It is covered in the
// child's mount namespace only, and gone with the host's tree.
const staging = "/proc"

// stage mounts the private memory at staging.
func (b *builder) stage() {
	data := [][2]string{{"mode", "755"}, {"size", strconv.FormatInt(b.overlayBytes(), 10)}}
	m := b.makeFS("tmpfs", "overlay", unix.MOUNT_ATTR_NODEV, data)
	b.call(unix.SYS_MOVE_MOUNT, m, "", unix.AT_FDCWD, staging, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func (b *builder) overlayBytes() int64 {
	size := int64(overlaySize)
	if r := b.cfg.linux().Resources; r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		size = min(size, *r.Memory.Limit)
	}
	return size
}

// layer makes the directories of one overlay at staging, and attaches lower.
func (b *builder) layer(name string, lower hostFD) {
	dir := staging + "/" + name
	b.call(unix.SYS_MKDIRAT, unix.AT_FDCWD, dir, 0o755)
	for _, d := range []string{"/upper", "/work", "/lower"} {
		b.call(unix.SYS_MKDIRAT, unix.AT_FDCWD, dir+d, 0o755)
	}
	b.call(unix.SYS_MOVE_MOUNT, lower, "", unix.AT_FDCWD, dir+"/lower", unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// overlay makes the overlay of the layers at staging. Attributes that overlayfs
// keeps are user attributes in a user namespace, where trusted ones are refused.
func (b *builder) overlay(name string) slot {
	dir := staging + "/" + name
	data := [][2]string{{"lowerdir", dir + "/lower"}, {"upperdir", dir + "/upper"}, {"workdir", dir + "/work"}}
	if b.cfg.inUserNS() {
		data = append(data, [2]string{"userxattr", ""})
	}
	return b.makeFS("overlay", "overlay", b.rootAttrs(), data)
}

// pivot makes the new root the root of the mount namespace, and lets the
// host's go. From here on no path leads to the host.
func (b *builder) pivot() error {
	b.step("pivot to the root file system")
	b.call(unix.SYS_MOVE_MOUNT, b.root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
	b.call(unix.SYS_FCHDIR, b.root)
	b.call(unix.SYS_PIVOT_ROOT, ".", ".")
	// The host's root is on top of ours now: "." is it.
	b.call(unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	b.call(unix.SYS_CHDIR, "/")
	return nil
}

// sealRoot makes the root read-only if it is to be, now that every mount point
// exists, and sets its propagation.
func (b *builder) sealRoot() error {
	if b.spec.OCI.Root != nil && b.spec.OCI.Root.Readonly {
		b.step("make root file system read-only")
		b.setattr(b.root, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if p := b.cfg.linux().RootfsPropagation; p != "" {
		b.step("set propagation of the root file system")
		b.call(unix.SYS_MOUNT, 0, "/", 0, propagations[p], 0)
	}
	return nil
}

// sysctls writes kernel parameters through a proc file system that the child
// made itself and that nothing else can have been mounted on (CVE-2025-52881).
func (b *builder) sysctls() error {
	for k, v := range b.cfg.linux().Sysctl {
		b.step("sysctl %s = %q", k, v)
		name := "sys/" + sysctlPath(k)
		fd := b.open(unix.SYS_OPENAT2, b.proc, name, how(unix.O_WRONLY|unix.O_CLOEXEC, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_SYMLINKS), howSize)
		b.call(unix.SYS_WRITE, fd, []byte(v), len(v))
		b.call(unix.SYS_CLOSE, fd)
	}
	return nil
}
