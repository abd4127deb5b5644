package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// exportsDir is where exports are mounted in the guest, before their parts are
// bound to their places. No container sees it.
const exportsDir = "/run/seki/export"

// msize is the most that one 9P message carries, in bytes.
const msize = 512 << 10

// setup mounts the exports, then tells the caller of the pod.
func (a *Agent) setup(ctx context.Context, s Setup) error {
	for _, e := range s.Exports {
		if err := a.mount(ctx, e); err != nil {
			return err
		}
	}
	return a.cfg.Setup(ctx, s)
}

// mount mounts one export, and binds its parts to the places they have on the
// host: so the specifications of containers mean the same in the guest.
func (a *Agent) mount(ctx context.Context, e Export) error {
	if e.Name == "" || strings.ContainsAny(e.Name, "/,\x00") {
		return fmt.Errorf("export %q: no valid name", e.Name)
	}
	conn, err := a.open(ctx, kindFile, e.Name)
	if err != nil {
		return err
	}
	defer conn.Close() // the mount has the socket
	dir := path.Join(exportsDir, e.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := mount9P(conn, e.Name, dir, e.Write); err != nil {
		return fmt.Errorf("export %q: %w", e.Name, err)
	}
	for _, m := range e.Mounts {
		if err := m.bind(dir); err != nil {
			return fmt.Errorf("export %q: %s: %w", e.Name, m.To, err)
		}
	}
	return nil
}

// mount9P mounts the export that is served on conn at dir. The kernel keeps
// the socket.
//
// What is read-only is cached without asking again; what the container may
// write is cached only as far as mmap needs (Linux 6.12,
// Documentation/filesystems/9p.rst). Each user of the guest is one to the
// server (access=user), and no device of the host is one here.
func mount9P(conn net.Conn, name, dir string, write bool) error {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return errors.New("the connection is no socket of the kernel")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	flags, cache := uintptr(unix.MS_NODEV|unix.MS_RDONLY), "loose"
	if write {
		flags, cache = unix.MS_NODEV, "mmap"
	}
	var merr error
	err = raw.Control(func(fd uintptr) {
		opts := fmt.Sprintf("trans=fd,rfdno=%d,wfdno=%d,version=9p2000.L,msize=%d,cache=%s,access=user,aname=%s", fd, fd, msize, cache, name)
		merr = unix.Mount("seki", dir, "9p", flags, opts)
	})
	if err == nil && merr != nil {
		err = os.NewSyscallError("mount 9p", merr)
	}
	return err
}

// bind binds a part of the export mounted at dir to its place.
func (m Mount) bind(dir string) error {
	if !filepath.IsLocal(m.From) || !path.IsAbs(m.To) || path.Clean(m.To) != m.To || m.To == "/" {
		return fmt.Errorf("no valid mount of %q", m.From)
	}
	from := path.Join(dir, m.From)
	if err := os.MkdirAll(path.Dir(m.To), 0o755); err != nil {
		return err
	}
	if m.Link {
		to, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(to, m.To)
	}
	if err := makePlace(m.To, m.Dir); err != nil {
		return err
	}
	return os.NewSyscallError("mount", unix.Mount(from, m.To, "", unix.MS_BIND, ""))
}

// makePlace makes what to mount on, if it is not there.
func makePlace(at string, dir bool) error {
	if dir {
		if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return nil
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o644)
	if errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrPermission) {
		_, err := os.Lstat(at) // it is there, in what was mounted before
		return err
	}
	if err != nil {
		return err
	}
	return f.Close()
}
