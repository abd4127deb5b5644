package linux

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultDevices are the nodes that every container has (OCI runtime-spec 1.3,
// config-linux, default devices).
var defaultDevices = []specs.LinuxDevice{
	{Path: "null", Type: "c", Major: 1, Minor: 3}, {Path: "zero", Type: "c", Major: 1, Minor: 5}, {Path: "full", Type: "c", Major: 1, Minor: 7},
	{Path: "random", Type: "c", Major: 1, Minor: 8}, {Path: "urandom", Type: "c", Major: 1, Minor: 9}, {Path: "tty", Type: "c", Major: 5, Minor: 0},
}

// deviceLinks are the symbolic links of /dev.
var deviceLinks = [][2]string{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
}

// devices fills dev, a fresh file system, with nodes and links.
func (b *builder) devices(dev slot) error {
	b.step("fill /dev")
	for _, d := range defaultDevices {
		if err := b.device(d, func() slot {
			return b.open(unix.SYS_OPENAT, dev, d.Path, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0o666)
		}, func() (any, string) { return dev, d.Path }, "/dev/"+d.Path); err != nil {
			return err
		}
	}
	for _, l := range deviceLinks {
		b.call(unix.SYS_SYMLINKAT, l[1], dev, l[0])
	}
	for _, d := range b.cfg.linux().Devices {
		b.step("make device %s", d.Path)
		if err := b.device(d, func() slot { return b.target(d.Path, false) }, nil, d.Path); err != nil {
			return err
		}
	}
	return nil
}

// device makes one device node: in a user namespace, where mknod is refused, by
// attaching the host's node to a file; else a node of its own, for the host's
// would be chmod'ed with it.
func (b *builder) device(d specs.LinuxDevice, target func() slot, place func() (any, string), hostPath string) error {
	var mode uint32
	switch d.Type {
	case "c", "u":
		mode = unix.S_IFCHR
	case "b":
		mode = unix.S_IFBLK
	default:
		return fmt.Errorf("device %s: unsupported type %q", d.Path, d.Type)
	}
	rdev := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	if !b.cfg.inUserNS() {
		perm := uint32(0o666)
		if d.FileMode != nil {
			perm = uint32(*d.FileMode) & 0o777
		}
		var dir any = b.root
		name := relative(d.Path)
		if place != nil {
			dir, name = place()
		}
		b.call(unix.SYS_MKNODAT, dir, name, mode|perm, rdev)
		b.ignore(unix.EEXIST)
		if d.UID != nil && d.GID != nil {
			b.call(unix.SYS_FCHOWNAT, dir, name, *d.UID, *d.GID, unix.AT_SYMLINK_NOFOLLOW)
		}
		return nil
	}
	fd, err := openTree(hostPath, false)
	if err != nil {
		return fmt.Errorf("device %s: %w", d.Path, err)
	}
	h := b.own(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != mode || st.Rdev != rdev {
		return fmt.Errorf("device %s: the host's %s is not %s %d:%d, and a user namespace cannot make nodes", d.Path, hostPath, d.Type, d.Major, d.Minor)
	}
	if d.Path == "null" {
		b.nullMount = h
	}
	t := target()
	b.call(unix.SYS_MOVE_MOUNT, h, "", t, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	b.call(unix.SYS_CLOSE, t)
	return nil
}

// console attaches the terminal, which was handed in as a descriptor and is
// never looked up by name (CVE-2025-52565), to /dev/console.
func (b *builder) console() error {
	if !b.spec.OCI.Process.Terminal {
		return nil
	}
	tty := b.cfg.Stdio[0]
	if tty == nil {
		return fmt.Errorf("a terminal is wanted, but standard input is none")
	}
	if err := checkTerminal(int(tty.Fd())); err != nil {
		return err
	}
	b.step("attach terminal to /dev/console")
	fd, err := unix.OpenTree(int(tty.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("attach terminal: %w", err)
	}
	h := b.own(fd)
	t := b.target("/dev/console", false)
	b.call(unix.SYS_MOVE_MOUNT, h, "", t, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	b.call(unix.SYS_CLOSE, t)
	return nil
}

// checkTerminal makes sure that fd is the slave of a pseudo terminal: a
// character device of major 136 to 143 (Documentation/admin-guide/devices.txt).
func checkTerminal(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	if major := unix.Major(st.Rdev); st.Mode&unix.S_IFMT != unix.S_IFCHR || major < 136 || major > 143 {
		return fmt.Errorf("a terminal is wanted, but standard input is not the slave of a pseudo terminal")
	}
	return nil
}
