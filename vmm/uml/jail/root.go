package jail

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// root puts an empty file system in the place of the host's.
//
// Both are detached mounts until they are complete. The new root is then put
// over the old one and made the root by pivot_root, after which the old one
// lies over it and is detached (pivot_root(2), "pivot_root(".", ".")").
func (m *message) root() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("old root: %w", err)
	}
	devices, err := openDevices()
	if err != nil {
		return err
	}
	shown, err := m.openShown()
	if err != nil {
		return err
	}
	top, err := tmpfs(rootSize, "0755", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return err
	}
	if err := move(top, unix.AT_FDCWD, "/"); err != nil {
		return fmt.Errorf("attach the root: %w", err)
	}
	if err := unix.Fchdir(top); err != nil {
		return err
	}
	if err := m.populate(devices, shown); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Fchdir(old); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	ro := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &ro); err != nil {
		return fmt.Errorf("read-only root: %w", err)
	}
	return nil
}

// rootSize bounds what is copied to the root: a loader and its libraries.
const rootSize = 64 << 20

// deviceNodes of the host are all of it that a jail shows.
var deviceNodes = []string{"dev/null", "dev/random"}

// openDevices clones their mounts, while they are in sight.
func openDevices() (fds []int, err error) {
	for _, name := range deviceNodes {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/"+name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("/%s: %w", name, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// openShown clones the mounts of what is shown, read-only: the program may run
// as the user whose files they are.
func (m *message) openShown() (map[string]int, error) {
	fds := map[string]int{}
	for name, from := range m.Shown {
		fd, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		ro := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &ro); err != nil {
			return nil, fmt.Errorf("%s: read-only: %w", from, err)
		}
		fds[name] = fd
	}
	return fds, nil
}

// populate makes what there is below the working directory.
func (m *message) populate(devices []int, shown map[string]int) error {
	for _, dir := range []string{"dev", "run"} {
		if err := unix.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("mkdir %s: %w", dir, err)
		}
	}
	for i, name := range deviceNodes {
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
		unix.Close(fd)
		if err := move(devices[i], unix.AT_FDCWD, name); err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
	}
	// UML executes from its memory file, so this one is not noexec; execve from
	// it is what Landlock and the filter forbid.
	run, err := tmpfs(m.Tmp, "0700", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return err
	}
	if err := move(run, unix.AT_FDCWD, "run"); err != nil {
		return fmt.Errorf("attach /run: %w", err)
	}
	for name, mount := range shown {
		at := strings.TrimPrefix(name, "/")
		fd, err := unix.Open(at, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
		unix.Close(fd)
		if err := move(mount, unix.AT_FDCWD, at); err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
	}
	for name, fd := range m.Files {
		if err := copyIn(name, fd); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return nil
}

// tmpfs makes a file system in memory of size bytes.
func tmpfs(size int64, mode string, attrs int) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	defer unix.Close(fs)
	// A guest touches some ten thousand pages until its first container runs,
	// and each costs the host a fault: in huge pages a start takes 50 ms of CPU
	// time less, of 300. A kernel without them refuses the option.
	if err := unix.FsconfigSetString(fs, "huge", "always"); err != nil && !errors.Is(err, unix.EINVAL) {
		return -1, fmt.Errorf("tmpfs: huge: %w", err)
	}
	for _, kv := range [][2]string{{"source", "seki-jail"}, {"size", strconv.FormatInt(size, 10)}, {"nr_inodes", "1024"}, {"mode", mode}} {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			return -1, fmt.Errorf("tmpfs: %s=%s: %w", kv[0], kv[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("tmpfs: fsmount: %w", err)
	}
	return fd, nil
}

// move attaches a detached mount.
func move(fd, dir int, name string) error {
	return unix.MoveMount(fd, "", dir, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// copyIn copies an open file to a path of the jail, making its directories.
func copyIn(name string, from int) error {
	rel := strings.TrimPrefix(path.Clean("/"+name), "/")
	for i, r := range rel {
		if r == '/' {
			if err := unix.Mkdir(rel[:i], 0o755); err != nil && err != unix.EEXIST {
				return err
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	to, err := unix.Open(rel, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o555)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	for off := int64(0); off < st.Size; {
		n, err := unix.Sendfile(to, from, &off, int(min(st.Size-off, 1<<30)))
		switch {
		case err != nil && err != unix.EINTR:
			return err
		case err == nil && n == 0:
			return fmt.Errorf("%d of %d bytes", off, st.Size)
		}
	}
	return nil
}

// listen binds the sockets in /run. The caller holds them as well: from now on
// it can accept.
func (m *message) listen() error {
	for name, fd := range m.Sockets {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path.Join("/run", name)}); err != nil {
			return fmt.Errorf("bind %s: %w", name, err)
		}
		if err := unix.Listen(fd, 1); err != nil {
			return fmt.Errorf("listen %s: %w", name, err)
		}
	}
	return nil
}

// dynamic reports whether files were copied that are not in /run: a loader.
func (m *message) dynamic() bool {
	names := make([]string, 0, len(m.Files))
	for name := range m.Files {
		names = append(names, name)
	}
	return slices.ContainsFunc(names, func(n string) bool { return !strings.HasPrefix(n, "/run/") })
}
