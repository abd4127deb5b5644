package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func want(err, target error) error {
	if !errors.Is(err, target) {
		return fmt.Errorf("%v; want %v", err, target)
	}
	return nil
}

func writeAndRead(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 40000) // 640 KB: several messages
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		return fmt.Errorf("read back %d bytes, %v", len(got), err)
	}
	if err := f.Truncate(10); err != nil {
		return err
	}
	f.Close()
	if f, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return err
	}
	if _, err := f.WriteString("appended"); err != nil {
		return err
	}
	f.Close()
	if err := os.Rename(path, path+".new"); err != nil {
		return err
	}
	if err := os.Link(path+".new", path+".link"); err != nil {
		return err
	}
	if err := os.Chmod(path+".new", 0o640); err != nil {
		return err
	}
	when := time.Unix(1e9, 0) // the client has no finer times
	if err := os.Chtimes(path+".new", when, when); err != nil {
		return err
	}
	fi, err := os.Stat(path + ".new")
	if err != nil || fi.Size() != 18 || fi.Mode() != 0o640 || !fi.ModTime().Equal(when) {
		return fmt.Errorf("stat: %v, %v", fi, err)
	}
	if got, err := os.ReadFile(path + ".link"); string(got) != "0123456789appended" || err != nil {
		return fmt.Errorf("in the end %q, %v", got, err)
	}
	return nil
}

func directories() (string, error) {
	if err := os.MkdirAll("/rw/d/e/f", 0o755); err != nil {
		return "", err
	}
	names := map[string]bool{}
	for i := range 700 {
		name := fmt.Sprintf("%d%s", i, strings.Repeat("n", i%200))
		if err := os.WriteFile("/rw/d/"+name, nil, 0o600); err != nil {
			return "", err
		}
		names[name] = true
	}
	all, err := os.ReadDir("/rw/d")
	if err != nil || len(all) != 701 {
		return "", fmt.Errorf("%d entries, %v; want 701", len(all), err)
	}
	if err := want(os.Remove("/rw/d"), unix.ENOTEMPTY); err != nil {
		return "", err
	}
	if err := os.RemoveAll("/rw/d"); err != nil {
		return "", err
	}
	_, err = os.Stat("/rw/d")
	return "", want(err, unix.ENOENT)
}

// symlink: the host has the target, the guest does not.
func symlink() (string, error) {
	target, err := os.Readlink("/rw/to-the-secret")
	if err != nil {
		return "", err
	}
	for _, path := range []string{"/rw/to-the-secret/file", "/rw/to-the-root/etc/passwd", "/rw/up/secret/file"} {
		if _, err := os.ReadFile(path); !errors.Is(err, unix.ENOENT) {
			return "", fmt.Errorf("read %s: %v; want ENOENT", path, err)
		}
	}
	if err := os.Symlink(target+"/file", "/rw/mine"); err != nil {
		return "", err
	}
	if _, err = os.ReadFile("/rw/mine"); !errors.Is(err, unix.ENOENT) {
		return "", fmt.Errorf("through a link of its own: %v", err)
	}
	return "", os.Remove("/rw/mine")
}

func dots() (string, error) {
	if err := os.WriteFile("/where", []byte("guest"), 0o600); err != nil {
		return "", err
	}
	if got, err := os.ReadFile("/rw/../where"); string(got) != "guest" {
		return "", fmt.Errorf(".. leads to %q, %v", got, err)
	}
	all, err := os.ReadDir("/rw/..")
	if err != nil || !slices.ContainsFunc(all, func(d os.DirEntry) bool { return d.Name() == "where" }) {
		return "", fmt.Errorf(".. lists %v, %v", all, err)
	}
	return "", nil
}

// fifo: the pipe is the guest's, only its name is on the host.
func fifo() (string, error) {
	if err := unix.Mkfifo("/rw/fifo", 0o600); err != nil {
		return "", err
	}
	done := make(chan error, 1)
	go func() {
		done <- os.WriteFile("/rw/fifo", []byte("through"), 0)
	}()
	got, err := os.ReadFile("/rw/fifo")
	if err != nil || string(got) != "through" {
		return "", fmt.Errorf("%q, %v", got, err)
	}
	return "", <-done
}

func socket() (string, error) {
	l, err := net.Listen("unix", "/rw/socket")
	if err != nil {
		return "", err
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Write([]byte("hello"))
			c.Close()
		}
	}()
	c, err := net.Dial("unix", "/rw/socket")
	if err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	if string(got) != "hello" {
		return "", fmt.Errorf("%q, %v", got, err)
	}
	return "", nil
}

func device() (string, error) {
	for _, mode := range []uint32{unix.S_IFCHR, unix.S_IFBLK} {
		if err := want(unix.Mknod("/rw/device", mode|0o666, int(unix.Mkdev(1, 3))), unix.EPERM); err != nil {
			return "", err
		}
	}
	return "", nil
}

// locks: the host holds bytes 0 to 9 of the file, and nothing else.
func locks() (string, error) {
	f, err := os.OpenFile("/rw/locked", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lock := func(kind int16, start, n int64) error {
		return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: kind, Start: start, Len: n})
	}
	if err := want(lock(unix.F_RDLCK, 5, 10), unix.EAGAIN); err != nil {
		return "", fmt.Errorf("beside the host's: %w", err)
	}
	if err := lock(unix.F_WRLCK, 10, 10); err != nil {
		return "", err
	}
	get := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 5}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &get); err != nil || get.Type == unix.F_UNLCK {
		return "", fmt.Errorf("F_GETLK: %v, type %d", err, get.Type)
	}
	return "", lock(unix.F_UNLCK, 0, 0)
}

func xattrs() (string, error) {
	const path = "/rw/file.new"
	if err := unix.Setxattr(path, "user.color", []byte("red"), 0); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	if n, err := unix.Getxattr(path, "user.color", b); err != nil || string(b[:n]) != "red" {
		return "", fmt.Errorf("get: %v", err)
	}
	if n, err := unix.Listxattr(path, b); err != nil || !bytes.Contains(b[:n], []byte("user.color\x00")) {
		return "", fmt.Errorf("list: %q, %v", b[:max(n, 0)], err)
	}
	if err := unix.Removexattr(path, "user.color"); err != nil {
		return "", err
	}
	if _, err := unix.Getxattr(path, "user.color", b); err != unix.ENODATA {
		return "", fmt.Errorf("after removing: %v", err)
	}
	return "", want(unix.Setxattr(path, "trusted.x", []byte("x"), 0), unix.EOPNOTSUPP)
}

func setuid() (string, error) {
	if err := os.WriteFile("/rw/program", []byte("x"), 0o755); err != nil {
		return "", err
	}
	if err := unix.Chmod("/rw/program", 0o6755); err != nil {
		return "", err
	}
	return "", want(unix.Chown("/rw/program", 12345, 12345), unix.EPERM)
}

func removed() (string, error) {
	f, err := os.Create("/rw/gone")
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := os.Remove("/rw/gone"); err != nil {
		return "", err
	}
	if _, err := f.WriteString("still"); err != nil {
		return "", err
	}
	b := make([]byte, 10)
	if n, err := f.ReadAt(b, 0); string(b[:n]) != "still" {
		return "", fmt.Errorf("%q, %v", b[:n], err)
	}
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	if fi.Size() != 5 {
		return "", fmt.Errorf("size %d", fi.Size())
	}
	return "", nil
}

func mmap() (string, error) {
	f, err := os.OpenFile("/loose/mapped", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := f.Truncate(8192); err != nil {
		return "", err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return "", err
	}
	copy(b[5000:], "mapped")
	if err := unix.Msync(b, unix.MS_SYNC); err != nil {
		return "", err
	}
	return "", unix.Munmap(b)
}

func hidden() (string, error) {
	all, err := os.ReadDir("/ro/hidden")
	if err != nil || len(all) != 0 {
		return "", fmt.Errorf("%d entries, %v", len(all), err)
	}
	_, err = os.ReadFile("/ro/hidden/file")
	return "", want(err, unix.ENOENT)
}

func readOnly() (string, error) {
	for what, err := range map[string]error{
		"create": os.WriteFile("/ro/new", nil, 0o644), "write": os.WriteFile("/ro/file", nil, 0o644), "mkdir": os.Mkdir("/ro/d", 0o755),
		"remove": os.Remove("/ro/file"), "rename": os.Rename("/ro/file", "/ro/f"), "chmod": os.Chmod("/ro/file", 0o600),
		"symlink": os.Symlink("x", "/ro/s"), "truncate": os.Truncate("/ro/file", 0),
	} {
		if err := want(err, unix.EROFS); err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
	}
	return "", nil
}

// overlay: containers have a layer of their own over a read-only root.
func overlay() (string, error) {
	for _, d := range []string{"/tmp/upper", "/tmp/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", err
		}
	}
	if err := unix.Mount("overlay", "/merged", "overlay", 0, "lowerdir=/ro,upperdir=/tmp/upper,workdir=/tmp/work"); err != nil {
		return "", err
	}
	if err := os.WriteFile("/merged/new", []byte("new"), 0o644); err != nil {
		return "", err
	}
	f, err := os.OpenFile("/merged/file", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return "", fmt.Errorf("copy up: %w", err)
	}
	if _, err := f.WriteString(" and more"); err != nil {
		return "", err
	}
	f.Close()
	if got, err := os.ReadFile("/merged/file"); string(got) != "exported and more" {
		return "", fmt.Errorf("after the copy up %q, %v", got, err)
	}
	if err := os.Rename("/merged/small/0", "/merged/small/renamed"); err != nil {
		return "", err
	}
	if err := os.Remove("/merged/small/1"); err != nil {
		return "", err
	}
	all, err := os.ReadDir("/merged/small")
	if err != nil || len(all) != 299 {
		return "", fmt.Errorf("%d entries, %v; want 299", len(all), err)
	}
	return "", nil
}

func execute() (string, error) {
	out, err := exec.Command("/ro/program", "exec").CombinedOutput()
	if string(out) != "executed" {
		return "", fmt.Errorf("%q, %v", out, err)
	}
	return "", nil
}
