package linux

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// attachCgroups shows the container its cgroup: on v2 the hierarchy as seen
// from its cgroup namespace, on v1 its own directory of each controller, under
// a file system in memory. Both are read-only if the mount is (CVE-2023-25809:
// a writable one lets a container without a cgroup namespace change the host's).
func (b *builder) attachCgroups(m specs.Mount, o mountOptions) error {
	if unified() && b.cfg.newNS(specs.CgroupNamespace) {
		b.attach(b.makeFS("cgroup2", "cgroup", o.set|o.rset, nil), m.Destination, true)
		return nil
	}
	top := b.makeFS("tmpfs", "cgroup", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, [][2]string{{"mode", "755"}, {"size", "64k"}})
	b.attach(top, m.Destination, true)
	for name, dir := range b.cgroup.dirs {
		// Programs read their limits, and look for nothing else.
		if name == "devices" || name == "cpuacct" {
			continue
		}
		fd, err := openTree(dir, false)
		if err != nil {
			return err
		}
		h := b.own(fd)
		if err := setAttr(fd, false, unix.MountAttr{Attr_set: o.set | o.rset, Propagation: unix.MS_PRIVATE}); err != nil {
			return fmt.Errorf("set options of %s: %w", dir, err)
		}
		if name == "" { // v2 without a cgroup namespace
			name = "unified"
		}
		b.call(unix.SYS_MKDIRAT, top, name, 0o755)
		at := b.open(unix.SYS_OPENAT, top, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		b.call(unix.SYS_MOVE_MOUNT, h, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		b.call(unix.SYS_CLOSE, at)
	}
	b.setattr(top, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	return nil
}
