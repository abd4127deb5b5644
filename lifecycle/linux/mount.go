package linux

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// makeFS appends the making of a new file system, and returns its mount, not
// attached anywhere.
func (b *builder) makeFS(fstype, source string, attrs uint64, data [][2]string) slot {
	fc := b.open(unix.SYS_FSOPEN, fstype, unix.FSOPEN_CLOEXEC)
	b.configFS(fc, "source", source)
	for _, d := range data {
		b.configFS(fc, d[0], d[1])
	}
	b.call(unix.SYS_FSCONFIG, fc, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	m := b.open(unix.SYS_FSMOUNT, fc, unix.FSMOUNT_CLOEXEC, attrs)
	b.call(unix.SYS_CLOSE, fc)
	return m
}

func (b *builder) configFS(fc slot, key, value string) {
	if value == "" {
		b.call(unix.SYS_FSCONFIG, fc, unix.FSCONFIG_SET_FLAG, key, 0, 0)
		return
	}
	b.call(unix.SYS_FSCONFIG, fc, unix.FSCONFIG_SET_STRING, key, value, 0)
}

// makeMounts makes the file systems of the specification's mounts while the
// host's are still in sight: in a user namespace the kernel lets proc and sysfs
// be mounted only where a full view of them exists already.
func (b *builder) makeMounts() error {
	b.step("cut off mount propagation")
	b.call(unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_SLAVE, 0)
	b.step("make /proc")
	procAt := -1
	for i, m := range b.spec.OCI.Mounts {
		b.step("mount %s", m.Destination)
		o := parseOptions(m.Options)
		if o.bind || m.Type == "bind" {
			continue
		}
		switch m.Type {
		case "cgroup", "cgroup2":
			continue // attachCgroups
		case "sysfs":
			if b.cfg.inUserNS() && !b.cfg.newNS(specs.NetworkNamespace) {
				continue // not ours to make: bound in attachMounts
			}
		case "proc":
			procAt = i
		}
		data, err := fsData(o.data)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		source := m.Source
		if source == "" {
			source = m.Type
		}
		b.made[i] = b.makeFS(m.Type, source, o.set|o.rset, data)
	}
	if procAt >= 0 {
		b.proc = b.made[procAt]
	} else if len(b.spec.OCI.Linux.Sysctl) > 0 {
		b.step("make /proc for sysctls")
		b.proc = b.makeFS("proc", "proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, nil)
	}
	return nil
}

// attachMounts attaches the mounts in the order of the specification, and
// fills /dev in as soon as there is one.
func (b *builder) attachMounts() error {
	for i, m := range b.spec.OCI.Mounts {
		b.step("mount %s", m.Destination)
		o := parseOptions(m.Options)
		var err error
		switch {
		case o.bind || m.Type == "bind":
			err = b.attachBind(m, o)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			err = b.attachCgroups(m, o)
		case m.Type == "sysfs" && b.cfg.inUserNS() && !b.cfg.newNS(specs.NetworkNamespace):
			o.rec, o.rset = true, o.rset|o.set|unix.MOUNT_ATTR_RDONLY
			m.Source = "/sys"
			err = b.attachBind(m, o)
		default:
			b.attach(b.made[i], m.Destination, true)
			b.propagate(b.made[i], o.propagation)
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		if path.Clean(m.Destination) == "/dev" && m.Type == "tmpfs" {
			if err := b.devices(b.made[i]); err != nil {
				return err
			}
		}
	}
	return b.console()
}

// attach moves a mount to dest in the container's root, which is made if it
// does not exist.
//
// Nothing of the host's file systems is in the container's mount namespace any
// more when this runs, so a destination that is swapped for a symbolic link at
// the right moment leads to another place in the container at worst
// (CVE-2021-30465, CVE-2024-45310).
func (b *builder) attach(mount slot, dest string, dir bool) slot {
	target := b.target(dest, dir)
	b.call(unix.SYS_MOVE_MOUNT, mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	b.call(unix.SYS_CLOSE, target)
	return mount
}

// mustBePlain are destinations that may not be reached through a symbolic link:
// what is written there later, by us or by tools inside, must arrive
// (CVE-2019-19921, CVE-2023-27561, CVE-2026-41579).
var mustBePlain = []string{"/proc", "/sys", "/dev"}

// target opens dest for mounting on it, making it and its parents if needed.
func (b *builder) target(dest string, dir bool) slot {
	flags, resolve := uint64(unix.O_PATH|unix.O_CLOEXEC), uint64(unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if dir {
		flags |= unix.O_DIRECTORY
	}
	if slices.Contains(mustBePlain, path.Clean(dest)) {
		resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	rel := relative(dest)
	h := how(flags, 0, resolve)
	missing, done := b.label(), b.label()
	t := b.open(unix.SYS_OPENAT2, b.root, rel, h, howSize)
	b.on(missing, unix.ENOENT)
	b.jump(done)
	b.bind(missing)
	b.makeTarget(rel, dir)
	b.call(unix.SYS_OPENAT2, b.root, rel, h, howSize)
	b.result(t)
	b.bind(done)
	return t
}

// makeTarget makes the directories that rel lacks, and rel itself. mkdirat does
// not follow a link in the last place, and each parent is opened below the root.
func (b *builder) makeTarget(rel string, dir bool) {
	parent := b.root
	parts := strings.Split(rel, "/")
	for i, part := range parts {
		last := i == len(parts)-1
		if last && !dir {
			fd := b.open(unix.SYS_OPENAT, parent, part, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
			b.ignore(unix.EEXIST)
			_ = fd // closed with everything else before the program runs
			continue
		}
		b.call(unix.SYS_MKDIRAT, parent, part, 0o755)
		b.ignore(unix.EEXIST, unix.EROFS)
		if !last {
			parent = b.inRoot(strings.Join(parts[:i+1], "/"), unix.O_DIRECTORY)
		}
	}
}

func (b *builder) propagate(mount slot, p uint64) {
	if p == 0 {
		return
	}
	flags := unix.AT_EMPTY_PATH
	if p&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	b.setattr(mount, flags, unix.MountAttr{Propagation: p &^ unix.MS_REC})
}

// setattr appends a mount_setattr of what mount refers to.
func (b *builder) setattr(mount any, flags int, attr unix.MountAttr) {
	at := place(b.script, []unix.MountAttr{attr})
	b.call(unix.SYS_MOUNT_SETATTR, mount, "", flags|unix.AT_EMPTY_PATH, at, int(unsafe.Sizeof(attr))) // SAFETY: a size only
}

// attachBind attaches part of the host's tree, opened now, by this process.
func (b *builder) attachBind(m specs.Mount, o mountOptions) error {
	fd, err := openTree(m.Source, o.rec)
	if err != nil {
		return err
	}
	h := b.own(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: m.Source, Err: err}
	}
	flags := unix.MountAttr{Attr_set: o.set, Attr_clr: o.clear}
	if flags != (unix.MountAttr{}) {
		if err := setAttr(fd, false, flags); err != nil {
			return fmt.Errorf("set options of %s: %w", m.Source, err)
		}
	}
	if rec := (unix.MountAttr{Attr_set: o.rset, Attr_clr: o.rclr}); rec != (unix.MountAttr{}) {
		if err := setAttr(fd, true, rec); err != nil {
			return fmt.Errorf("set options of %s: %w", m.Source, err)
		}
	}
	if b.cfg.shows(m.Source) || o.idmap {
		b.attrs = append(b.attrs, pendingAttr{fd: fd, what: m.Source, idmap: true, recursive: o.rec})
	}
	target := b.target(m.Destination, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	b.call(unix.SYS_MOVE_MOUNT, h, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	b.call(unix.SYS_CLOSE, target)
	if o.propagation != 0 {
		fl := unix.AT_EMPTY_PATH
		if o.propagation&unix.MS_REC != 0 {
			fl |= unix.AT_RECURSIVE
		}
		b.setattr(h, fl, unix.MountAttr{Propagation: o.propagation &^ unix.MS_REC})
	}
	return nil
}

// openTree clones the mount at p, not attached anywhere.
func openTree(p string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, p, flags)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: p, Err: err}
	}
	return fd, nil
}

func setAttr(fd int, recursive bool, attr unix.MountAttr) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(fd, "", flags, &attr)
}

// applyAttrs changes the mounts that wait for the container's user namespace:
// their owners are shown moved into its range. A file system that cannot do so
// is used as it is; its files then belong to nobody inside, which gives the
// container less, never more.
func (b *builder) applyAttrs(pid int) error {
	if len(b.attrs) == 0 {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	for _, p := range b.attrs {
		attr := p.attr
		if p.idmap {
			attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
			attr.Userns_fd = uint64(ns.Fd())
		}
		err := setAttr(p.fd, p.recursive, attr)
		if p.idmap && errors.Is(err, unix.EINVAL) {
			b.cfg.Log.Warn("file system cannot map ids: its files belong to nobody inside", "container", b.cfg.ID, "path", p.what)
			if attr = p.attr; attr == (unix.MountAttr{}) {
				continue
			}
			err = setAttr(p.fd, p.recursive, attr)
		}
		if err != nil {
			return fmt.Errorf("set attributes of %s: %w", p.what, err)
		}
	}
	return nil
}
