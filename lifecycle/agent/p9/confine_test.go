package p9_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent/p9"
)

const canary = "the host's own"

// yard makes an export with a secret beside it, and returns both paths.
func yard(t testing.TB) (dir, secret string) {
	t.Helper()
	top := t.TempDir()
	dir, secret = top+"/export", top+"/secret"
	write(t, dir+"/file", "exported")
	write(t, dir+"/sub/file", "exported")
	write(t, secret+"/file", canary)
	return dir, secret
}

// TestSymlinks: the server follows none, wherever it leads.
func TestSymlinks(t *testing.T) {
	dir, secret := yard(t)
	for name, target := range map[string]string{
		"absolute": secret, "relative": "../secret", "within": "sub", "proc": "/proc/self/root", "loop": "loop", "dots": "sub/../../secret",
	} {
		if err := os.Symlink(target, dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	c := dial(t, dir, writable)
	for _, name := range []string{"absolute", "relative", "within", "proc", "loop", "dots"} {
		t.Run(name, func(t *testing.T) {
			fid := c.at(name)
			if st := c.stat(fid); st.mode&unix.S_IFMT != unix.S_IFLNK {
				t.Fatalf("mode %o; want a symbolic link", st.mode)
			}
			c.refused(unix.ENOTDIR, tWalk, fid, 50, uint16(1), "file")
			if _, err := c.walk(name + "/file"); err == nil {
				t.Error("the walk went through it")
			}
			c.refused(unix.ENOTDIR, tMkdir, fid, "made", 0o755, 0)
			c.refused(unix.ENOTDIR, tLCreate, fid, "made", unix.O_RDWR, 0o644, 0)
			c.refused(unix.EPERM, tLOpen, fid, 0)
			c.refused(unix.EPERM, tLCreate, c.at("/"), name, unix.O_RDWR|unix.O_CREAT, 0o644, 0)
			c.refused(unix.EOPNOTSUPP, tXattrWalk, fid, 50, "user.x")
			if err := c.setattr(fid, 0x8, 0, 0, 0, 0); err != unix.EINVAL {
				t.Errorf("truncate: %v; want EINVAL", err)
			}
			// chown and the times are of the link itself.
			if err := c.setattr(fid, 0x20|0x100, 0, 0, 0, 0, 0, 0, 5, 0); err != nil {
				t.Errorf("times: %v", err)
			}
			// A hard link to it is a link to it.
			c.must(tLink, root, fid, "again")
			if fi, err := os.Lstat(dir + "/again"); err != nil || fi.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the hard link: %v, %v", fi, err)
			}
			c.must(tUnlinkAt, root, "again", 0)
		})
	}
	if fi, err := os.Stat(secret + "/file"); err != nil || contains(t, secret+"/file") != canary || fi.ModTime().Unix() < 1e9 {
		t.Errorf("the secret has been changed: %v, %v", fi, err)
	}
}

// TestSpecialFiles: a FIFO of the host would block whoever opens it, a device
// does what devices do.
func TestSpecialFiles(t *testing.T) {
	dir, _ := yard(t)
	if err := unix.Mkfifo(dir+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	names := []string{"fifo", "socket"}
	if unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) == nil {
		names = append(names, "null")
	}
	c := dial(t, dir, writable)
	for _, name := range names {
		for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR | unix.O_TRUNC, unix.O_RDONLY | unix.O_NONBLOCK} {
			c.refused(unix.EPERM, tLOpen, c.at(name), flags)
			c.refused(unix.EPERM, tLCreate, c.at("/"), name, flags|unix.O_CREAT, 0o644, 0)
		}
		truncate, chmod := error(unix.EINVAL), error(nil)
		if name == "null" {
			truncate, chmod = unix.EPERM, unix.EPERM
		}
		if err := c.setattr(c.at(name), 0x8, 0, 0, 0, 0); err != truncate {
			t.Errorf("truncate %s: %v; want %v", name, err, truncate)
		}
		if err := c.setattr(c.at(name), 0x1, 0o777, 0, 0, 0); err != chmod {
			t.Errorf("chmod %s: %v; want %v", name, err, chmod)
		}
		c.must(tGetattr, c.at(name), uint64(0x7ff))
	}
}

// TestReadOnly: nothing at all is changed.
func TestReadOnly(t *testing.T) {
	dir, _ := yard(t)
	before := snapshot(t, dir)
	c := dial(t, dir, p9.Options{})
	file, sub := c.at("file"), c.at("sub")
	for _, m := range []struct {
		kind   uint8
		fields []any
	}{
		{tLCreate, []any{c.at("/"), "new", unix.O_RDWR, 0o644, 0}},
		{tLCreate, []any{c.at("/"), "new", unix.O_RDONLY, 0o644, 0}},
		{tLCreate, []any{c.at("/"), "file", unix.O_RDWR, 0o644, 0}},
		{tLOpen, []any{c.at("file"), unix.O_WRONLY}},
		{tLOpen, []any{c.at("file"), unix.O_RDWR}},
		{tLOpen, []any{c.at("file"), unix.O_RDONLY | unix.O_TRUNC}},
		{tMkdir, []any{root, "new", 0o755, 0}},
		{tMknod, []any{root, "new", unix.S_IFREG | 0o644, 0, 0, 0}},
		{tSymlink, []any{root, "new", "t", 0}},
		{tLink, []any{root, file, "new"}},
		{tUnlinkAt, []any{root, "file", 0}},
		{tUnlinkAt, []any{root, "sub", 0x200}},
		{tRenameAt, []any{root, "file", sub, "new"}},
		{tRename, []any{file, sub, "new"}},
		{tRemove, []any{c.at("sub/file")}},
		{tXattrCreate, []any{c.at("file"), "user.x", uint64(1), 0}},
	} {
		c.refused(unix.EROFS, m.kind, m.fields...)
	}
	for valid := 1; valid < 0x200; valid <<= 1 {
		if err := c.setattr(file, valid, 0o777, 0, 0, 0); err != unix.EROFS {
			t.Errorf("setattr %#x: %v; want EROFS", valid, err)
		}
	}
	fid, err := c.open("file", 0)
	if err != nil {
		t.Fatal(err)
	}
	c.refused(unix.EBADF, tWrite, fid, uint64(0), 1, []byte("x"))
	c.must(tFsync, fid, 0)
	if after := snapshot(t, dir); !maps.Equal(before, after) {
		t.Errorf("before %v\nafter  %v", before, after)
	}
}

// snapshot is all there is below dir, in words.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		word := fmt.Sprint(fi.Mode(), fi.ModTime(), fi.Size())
		if fi.Mode().IsRegular() {
			b, _ := os.ReadFile(path)
			word += string(b)
		}
		m[path] = word
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestTwoExports: what is read-only cannot be linked into what is not.
func TestTwoExports(t *testing.T) {
	dir, secret := yard(t)
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{
		"rw": export(t, dir, writable), "ro": export(t, secret, p9.Options{}), "alias": export(t, dir, p9.Options{}),
	}})
	c, _ := connect(t, s)
	c.version(msize)
	c.refused(unix.ENOENT, tAttach, 1, uint32(noFid), "root", "", 0)
	c.refused(unix.EINVAL, tAttach, 1, 2, "root", "rw", 0)
	c.refused(unix.EOPNOTSUPP, tAuth, 1, "root", "rw", 0)
	c.must(tAttach, 1, uint32(noFid), "root", "rw", 0)
	c.must(tAttach, 2, uint32(noFid), "root", "ro", 0)
	c.must(tAttach, 3, uint32(noFid), "root", "alias", 0)
	c.refused(unix.EINVAL, tAttach, 3, uint32(noFid), "root", "alias", 0)
	for _, id := range []int{2, 3} {
		c.must(tWalk, id, 10, uint16(1), "file")
		c.refused(unix.EXDEV, tLink, 1, 10, "stolen")
		c.refused(unix.EROFS, tRenameAt, id, "file", 1, "stolen")
		c.refused(unix.EROFS, tRenameAt, 1, "file", id, "given")
		c.must(tClunk, 10)
	}
}

// TestOutside: a fid whose directory the host has moved out stays usable, as a
// working directory would, but has no way up; names that come from the kernel
// for it do not either.
func TestOutside(t *testing.T) {
	dir, secret := yard(t)
	c := dial(t, dir, writable)
	sub, file := c.at("sub"), c.at("sub/file")
	if err := os.Rename(dir+"/sub", secret+"/sub"); err != nil {
		t.Fatal(err)
	}
	c.refused(unix.EINVAL, tWalk, sub, 50, uint16(1), "..")
	c.refused(unix.EINVAL, tWalk, sub, 50, uint16(2), "..", "file")
	c.refused(unix.EBUSY, tRename, file, root, "back")
	c.refused(unix.EBUSY, tRemove, file)
	if got := contains(t, secret+"/sub/file"); got != "exported" {
		t.Errorf("the moved file is %q", got)
	}
	if got := contains(t, secret+"/file"); got != canary {
		t.Errorf("the secret is %q", got)
	}
}

// swap exchanges a and b until stop, as fast as it can.
func swap(t testing.TB, a, b string) (stop func() int) {
	t.Helper()
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		require(t, "renameat2", false)
	}
	var ended atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for !ended.Load() {
			unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			n++
		}
		done <- n
	}()
	return func() int { ended.Store(true); return <-done }
}

// TestRacer: a directory becomes a link to the secret and a directory again, a
// file becomes a link, a FIFO; whatever the client does meanwhile, the secret is
// neither read nor changed, and nothing blocks.
func TestRacer(t *testing.T) {
	link := func(to string) func(string, string) error {
		return func(trap, secret string) error { return os.Symlink(strings.ReplaceAll(to, "SECRET", secret), trap) }
	}
	fifo := func(trap, _ string) error { return unix.Mkfifo(trap, 0o666) }
	for _, tt := range []struct {
		name, place string
		trap        func(trap, secret string) error
	}{
		{"directory and link", "sub", link("SECRET")},
		{"directory and relative link", "sub", link("../secret")},
		{"directory and the root of the host", "sub", link("/proc/self/root")},
		{"directory and FIFO", "sub", fifo},
		{"file and link", "sub/file", link("SECRET/file")},
		{"file and FIFO", "sub/file", fifo},
		{"file and a link to our own descriptors", "sub/file", link("/proc/self/fd/0")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, secret := yard(t)
			if err := tt.trap(dir+"/trap", secret); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, secret)
			c := dial(t, dir, writable)
			stop := swap(t, dir+"/"+tt.place, dir+"/trap")
			// At least for a while, and until the client came through, which
			// shows that it was a race; a busy machine may take long.
			read := 0
			for start, i := time.Now(), 0; time.Since(start) < 300*time.Millisecond || read == 0 && time.Since(start) < 20*time.Second; i++ {
				if got, err := c.readFile("sub/file"); err == nil {
					read++
					if got != "exported" {
						t.Fatalf("read %q", got)
					}
				}
				c.attack("sub", i, tt.place == "sub")
			}
			n := stop()
			t.Logf("%d swaps, %d reads", n, read)
			if n < 10 || read == 0 {
				t.Errorf("%d swaps, %d reads: no race", n, read)
			}
			if after := snapshot(t, secret); !maps.Equal(before, after) {
				t.Errorf("the secret before %v\nafter %v", before, after)
			}
		})
	}
}

// attack tries to change what is behind a name, in every way that takes one.
// Every fid it makes is clunked. With move it renames the file by its fid, which
// may move the trap.
func (c *client) attack(name string, i int, move bool) {
	dir, err := c.walk(name)
	if err != nil {
		return
	}
	made := fmt.Sprintf("made%d", i)
	c.call(tMkdir, dir, made, 0o755, 0)
	c.call(tUnlinkAt, dir, made, 0x200)
	c.call(tSymlink, dir, made, "x", 0)
	c.call(tRenameAt, dir, made, dir, made+"x")
	c.call(tUnlinkAt, dir, made+"x", 0)
	c.call(tMknod, dir, made, unix.S_IFREG|0o644, 0, 0, 0)
	c.call(tUnlinkAt, dir, made, 0)
	c.setattr(dir, 0x1, 0o755, 0, 0, 0)
	c.setattr(dir, 0x120, 0, 0, 0, 0, 0, 0, 1, 1)
	if file, err := c.walkFrom(dir, "file"); err == nil {
		c.setattr(file, 0x1, 0o644, 0, 0, 0)
		if _, err := c.call(tLOpen, file, unix.O_RDWR); err == nil {
			c.call(tWrite, file, uint64(0), 8, []byte("exported"))
		}
		if move {
			c.call(tRename, file, dir, "file")
		}
		c.call(tClunk, file)
	}
	if _, err := c.call(tLCreate, dir, "file", unix.O_RDWR|unix.O_CREAT, 0o644, 0); err == nil {
		c.call(tWrite, dir, uint64(0), 8, []byte("exported"))
	}
	c.call(tClunk, dir)
}

// TestMagicLinks: /proc/self/fd and /proc/self/root would be ways out for a
// server that resolved them.
func TestMagicLinks(t *testing.T) {
	if _, err := p9.Open("/proc", p9.Options{}); err == nil || !strings.Contains(err.Error(), "file system of the kernel") {
		t.Errorf("exporting /proc: %v; want it refused", err)
	}
	c := dial(t, "/", p9.Options{})
	if got := c.names("proc"); len(got) != 0 {
		t.Errorf("/proc of the host shows %d entries, unlisted as it is", len(got))
	}
	for _, path := range []string{"proc/self", "proc/1/root", "sys/kernel"} {
		if _, err := c.walk(path); !errors.Is(err, unix.ENOENT) {
			t.Errorf("walk %s: %v; want ENOENT", path, err)
		}
	}
	got := c.names("/")
	if !got["proc"] || !got["etc"] {
		t.Errorf("/ shows %v; want proc and etc among it", got)
	}
}

// TestDescriptors: what a connection has open is closed with it, whatever was
// left.
func TestDescriptors(t *testing.T) {
	dir, _ := yard(t)
	count := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	e := export(t, dir, writable)
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": e}, MaxFids: 200, MaxConns: 2})
	before := count()
	for range 3 {
		c, ended := connect(t, s)
		c.version(msize)
		c.must(tAttach, root, uint32(noFid), "root", "", 0)
		n := 0
		for ; ; n++ {
			fid, err := c.open([]string{"/", "file", "sub/file", "sub"}[n%4], 0)
			if err == unix.ENFILE {
				break
			} else if err != nil || n > 1000 {
				t.Fatalf("open %d: %v", n, err)
			}
			if n%4 == 1 {
				c.must(tLock, fid, uint8(0), 0, uint64(n), uint64(1), 1, "guest")
			}
		}
		if n < 190 || n > 200 {
			t.Errorf("%d files before ENFILE; MaxFids is 200", n)
		}
		// Tversion gives all of it up, too.
		c.version(msize)
		if got := count(); got > before+4 {
			t.Errorf("%d descriptors after Tversion; %d before all", got, before)
		}
		c.must(tAttach, root, uint32(noFid), "root", "", 0)
		c.at("sub/file")
		if err := ended(); err != nil {
			t.Error(err)
		}
		// Fewer there may be: an earlier test's end is still going on.
		if got := count(); got > before {
			t.Errorf("%d descriptors after the connection; %d before", got, before)
		}
	}
}

// TestDeep: a tree far deeper than PATH_MAX is walked, and a file in it removed
// by its fid is an error, not a surprise.
func TestDeep(t *testing.T) {
	dir := t.TempDir()
	c := dial(t, dir, writable)
	name := strings.Repeat("d", 200)
	fid := c.at("/")
	for i := range 40 {
		c.must(tMkdir, fid, name, 0o755, 0)
		c.must(tWalk, fid, 500+i, uint16(1), name)
		fid = uint32(500 + i)
	}
	c.must(tSymlink, fid, "leaf", "x", 0)
	c.must(tWalk, fid, 600, uint16(1), "leaf")
	if _, err := c.call(tRemove, 600); err == nil {
		t.Error("Tremove of a file with no path the kernel can name succeeded")
	}
	c.must(tUnlinkAt, fid, "leaf", 0)
	for i := 39; i > 0; i-- {
		c.must(tUnlinkAt, 500+i-1, name, 0x200)
	}
	if !bytes.Equal(c.must(tReadlink, func() uint32 { c.must(tSymlink, root, "l", name, 0); return c.at("l") }()), msg(name)) {
		t.Error("readlink")
	}
}

// TestPublic: what others of the host may not read, a stranger's export does
// not show, although the server may; and with it nothing below.
func TestPublic(t *testing.T) {
	top := t.TempDir()
	write(t, top+"/open", "for all")
	write(t, top+"/closed", canary)
	write(t, top+"/dir/file", "for all")
	write(t, top+"/private/file", canary)
	write(t, top+"/unlisted/file", "for all")
	for name, mode := range map[string]os.FileMode{"": 0o755, "open": 0o644, "closed": 0o640, "dir": 0o755, "private": 0o750, "unlisted": 0o711, "dir/file": 0o644, "unlisted/file": 0o644} {
		if err := os.Chmod(filepath.Join(top, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, public := range []bool{false, true} {
		c := dial(t, top, p9.Options{Public: public})
		for name, closed := range map[string]bool{"open": false, "closed": true, "dir": false, "dir/file": false, "private": true, "unlisted": true, "unlisted/file": false} {
			fid, err := c.walk(name)
			if err != nil {
				t.Fatalf("walk to %s: %v", name, err)
			}
			_, err = c.call(tLOpen, fid, 0)
			if want := public && closed; (err == unix.EACCES) != want || !want && err != nil {
				t.Errorf("public %t: open %s: %v; want it refused: %t", public, name, err, want)
			}
		}
		if _, err := c.walk("private/file"); (err != nil) != public {
			t.Errorf("public %t: walk into a private directory: %v", public, err)
		}
	}
}
