package linux

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

func sysctlPath(k string) string {
	if strings.Contains(k, "/") {
		return k
	}
	return strings.ReplaceAll(k, ".", "/")
}

// maskPaths hides files behind /dev/null and directories behind an
// empty read-only file system, and makes other paths read-only. The null device is
// the host's, opened and checked before the container existed, never the one
// that the container's file system shows at that name (CVE-2025-31133).
func (b *builder) maskPaths() error {
	l := b.cfg.linux()
	for _, p := range l.MaskedPaths {
		if err := b.mask(p); err != nil {
			return err
		}
	}
	for _, p := range l.ReadonlyPaths {
		b.step("make %s read-only", p)
		done := b.label()
		at := b.inRoot(p, 0)
		b.on(done, unix.ENOENT, unix.ENOTDIR)
		m := b.open(unix.SYS_OPEN_TREE, at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
		b.setattr(m, unix.AT_RECURSIVE, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		b.call(unix.SYS_MOVE_MOUNT, m, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		b.call(unix.SYS_CLOSE, at)
		b.call(unix.SYS_CLOSE, m)
		b.bind(done)
	}
	return nil
}

// mask hides p, whatever it is, if it exists.
func (b *builder) mask(p string) error {
	b.step("mask %s", p)
	file, done := b.label(), b.label()
	dir := b.inRoot(p, unix.O_DIRECTORY)
	b.on(done, unix.ENOENT)
	b.on(file, unix.ENOTDIR)
	m := b.emptyFS()
	b.call(unix.SYS_MOVE_MOUNT, m, "", dir, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	b.call(unix.SYS_CLOSE, dir)
	b.call(unix.SYS_CLOSE, m)
	b.jump(done)

	b.bind(file)
	null, err := b.nullCopy()
	if err != nil {
		return fmt.Errorf("mask %s: %w", p, err)
	}
	at := b.inRoot(p, 0)
	b.on(done, unix.ENOENT, unix.ENOTDIR)
	b.call(unix.SYS_MOVE_MOUNT, null, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	b.call(unix.SYS_CLOSE, at)
	b.bind(done)
	return nil
}

// nullCopy is one more mount of the null device. If one is attached already,
// the child clones that when it needs to; of a detached one older kernels make
// no clones, so then the parent does, at 24 us for each path, existing or not.
func (b *builder) nullCopy() (any, error) {
	if b.nullMount != 0 {
		return b.open(unix.SYS_OPEN_TREE, b.nullMount, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH), nil
	}
	fd, err := unix.OpenTree(b.null, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, err
	}
	return b.own(fd), nil
}

// emptyFS makes an empty read-only file system. One could be cloned for all
// paths, but kernels before 6.15 do not clone detached mounts.
func (b *builder) emptyFS() slot {
	return b.makeFS("tmpfs", "masked", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, [][2]string{{"size", "4k"}, {"nr_inodes", "2"}, {"mode", "755"}})
}
