package p9

import (
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A fileID tells files of the host apart.
type fileID struct{ dev, ino uint64 }

// A node is a file of the host, held by a descriptor that was opened with
// O_PATH: it can be asked about and walked from, not read. Its fields never
// change. Fids that were cloned from one another share it.
type node struct {
	fd   int
	id   fileID
	kind uint32 // S_IFMT bits
	qid  qid    // with the path of this device alone; see place.qid
	refs atomic.Int32
}

// newNode takes fd over.
func newNode(fd int) (*node, error) {
	var st unix.Statx_t
	if err := statx(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	n := &node{fd: fd, id: idOf(&st), kind: uint32(st.Mode) & unix.S_IFMT}
	n.qid = qid{kind: qidKind(n.kind), version: versionOf(&st), path: st.Ino}
	n.refs.Store(1)
	return n, nil
}

// hold is called by somebody who has n already.
func (n *node) hold() *node {
	n.refs.Add(1)
	return n
}

func (n *node) release() {
	if n.refs.Add(-1) == 0 {
		unix.Close(n.fd)
	}
}

// open returns the entry name of the directory n. It is the one way down.
func (n *node) open(name string) (*node, error) {
	fd, err := openBelow(n.fd, name)
	if err != nil {
		return nil, err
	}
	return newNode(fd)
}

func (n *node) isDir() bool { return n.kind == unix.S_IFDIR }

// path is a name for system calls that take no O_PATH descriptor. The kernel
// goes from it to the file itself, not to any path the file has.
func (n *node) path() string { return procPath(n.fd) }

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openBelow opens one name below a directory, not following it.
func openBelow(dir int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

func statx(fd int, st *unix.Statx_t) error {
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_BTIME, st)
}

func idOf(st *unix.Statx_t) fileID {
	return fileID{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
}

func qidKind(mode uint32) uint8 {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return qidDir
	case unix.S_IFLNK:
		return qidSymlink
	}
	return 0
}

// versionOf is not the version of the data: the Linux client takes two inodes
// with different versions for different files, so that one which grew would no
// longer be the one it has cached. The birth time stays, and tells a new file
// from the old one whose inode number it got.
func versionOf(st *unix.Statx_t) uint32 {
	if st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return uint32(st.Btime.Sec) ^ st.Btime.Nsec
}

// devKey is zero for the device of the root, so that its inode numbers are
// those of the host. Those of other devices below are set apart by a number
// that depends on the device alone: the client takes equal paths for equal
// files. (The finalizer of splitmix64.)
func devKey(root, dev uint64) uint64 {
	x := root ^ dev
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return x
}

// ofKernel says whether the file is on a file system that is an interface of
// the host's kernel: what is there has nothing to do in a guest, and opening
// it may have effects.
func ofKernel(fd int) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return true
	}
	switch int64(fs.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC,
		unix.BPF_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.NSFS_MAGIC,
		unix.BINFMTFS_MAGIC, unix.BINDERFS_SUPER_MAGIC, unix.RDTGROUP_SUPER_MAGIC, unix.AUTOFS_SUPER_MAGIC,
		mqueueMagic, configfsMagic, fusectlMagic:
		return true
	}
	return false
}

// Numbers that x/sys does not have: ipc/mqueue.c, fs/configfs/mount.c,
// fs/fuse/control.c.
const (
	mqueueMagic   = 0x19800202
	configfsMagic = 0x62656570
	fusectlMagic  = 0x65735543
)
