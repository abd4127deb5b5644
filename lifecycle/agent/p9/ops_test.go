package p9_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent/p9"
)

var writable = p9.Options{Writable: true}

func TestReadAndWrite(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a/b/file", "hello")
	c := dial(t, dir, writable)

	if got, err := c.readFile("a/b/file"); got != "hello" || err != nil {
		t.Errorf("read = %q, %v; want hello", got, err)
	}
	fid, err := c.open("a/b/file", unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if b := c.must(tWrite, fid, uint64(3), 4, []byte("pers")); binary.LittleEndian.Uint32(b) != 4 {
		t.Errorf("Rwrite = %v; want 4", b)
	}
	c.must(tFsync, fid, 0)
	c.must(tFsync, fid, 1)
	if got := contains(t, dir+"/a/b/file"); got != "helpers" {
		t.Errorf("the host has %q; want helpers", got)
	}
	if b := c.must(tRead, fid, uint64(5), 1000); string(b[4:]) != "rs" {
		t.Errorf("read at 5 = %q; want rs", b[4:])
	}
	if b := c.must(tRead, fid, uint64(1000), 1000); len(b) != 4 {
		t.Errorf("read behind the end = %q; want nothing", b)
	}
	c.must(tClunk, fid)
	c.refused(unix.EBADF, tRead, fid, uint64(0), 1)

	// O_APPEND is the host's to do: two guests may write one log.
	fid, err = c.open("a/b/file", unix.O_WRONLY|unix.O_APPEND)
	if err != nil {
		t.Fatal(err)
	}
	c.must(tWrite, fid, uint64(0), 1, []byte("!"))
	if got := contains(t, dir+"/a/b/file"); got != "helpers!" {
		t.Errorf("after an append the host has %q; want helpers!", got)
	}
	c.refused(unix.EBADF, tRead, fid, uint64(0), 1)
	if _, err = c.open("a/b/file", unix.O_WRONLY|unix.O_TRUNC); err != nil || contains(t, dir+"/a/b/file") != "" {
		t.Errorf("O_TRUNC: %v, and the file is %q", err, contains(t, dir+"/a/b/file"))
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/there", "old")
	c := dial(t, dir, writable)
	// The mode is the guest's, past our umask.
	defer unix.Umask(unix.Umask(0o077))

	fid := c.at("/")
	b := c.must(tLCreate, fid, "new", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o100666, 0)
	c.must(tWrite, fid, uint64(0), 3, []byte("abc"))
	if fi, err := os.Stat(dir + "/new"); err != nil || fi.Mode() != 0o666 || fi.Size() != 3 {
		t.Errorf("the new file: %v, %v; want mode 0666 and 3 bytes", fi, err)
	}
	if st := c.stat(fid); !bytes.Equal(st.qid[:], b[:13]) {
		t.Errorf("qid of Rlcreate is %x, of Rgetattr %x", b[:13], st.qid)
	}
	c.refused(unix.EEXIST, tLCreate, c.at("/"), "there", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o644, 0)
	fid = c.at("/")
	c.must(tLCreate, fid, "there", unix.O_RDWR|unix.O_CREAT, 0o644, 0)
	if b := c.must(tRead, fid, uint64(0), 10); string(b[4:]) != "old" {
		t.Errorf("the existing file reads %q; want old", b[4:])
	}
	c.refused(unix.EINVAL, tLCreate, fid, "x", unix.O_RDWR, 0o644, 0) // it is open
	c.refused(unix.ENOTDIR, tLCreate, c.at("there"), "x", unix.O_RDWR, 0o644, 0)
}

func TestDirectories(t *testing.T) {
	dir := t.TempDir()
	want := map[string]bool{}
	for i := range 1000 {
		name := fmt.Sprintf("%s%d", strings.Repeat("n", i%40), i)
		write(t, dir+"/"+name, "")
		want[name] = true
	}
	write(t, dir+"/"+strings.Repeat("x", 255), "")
	want[strings.Repeat("x", 255)] = true
	c := dial(t, dir, writable)
	c.must(tMkdir, root, "sub", 0o755, 0)
	want["sub"] = true
	c.must(tSymlink, root, "link", "/nowhere", 0)
	want["link"] = true

	for _, count := range []int{400, 1000, 8192, 1 << 20} {
		all, err := c.list("/", count)
		if err != nil {
			t.Fatalf("list, %d bytes a message: %v", count, err)
		}
		got := map[string]bool{}
		for _, e := range all {
			if got[e.name] {
				t.Errorf("%d bytes a message: %s twice", count, e.name)
			}
			got[e.name] = true
			kind := uint8(unix.DT_REG)
			switch e.name {
			case ".", "..", "sub":
				kind = unix.DT_DIR
			case "link":
				kind = unix.DT_LNK
			}
			if e.kind != kind {
				t.Errorf("%s is of type %d; want %d", e.name, e.kind, kind)
			}
		}
		delete(got, ".")
		delete(got, "..")
		if !maps.Equal(got, want) {
			t.Errorf("%d bytes a message: %d entries; want %d", count, len(got), len(want))
		}
	}

	// From the middle again, as after a telldir and seekdir.
	fid, _ := c.open("/", 0)
	first := c.must(tReaddir, fid, uint64(0), 1000)
	offset := binary.LittleEndian.Uint64(first[4+13:]) // of the second entry
	c.must(tReaddir, fid, offset, 1000)
	if again := c.must(tReaddir, fid, uint64(0), 1000); !bytes.Equal(first, again) {
		t.Error("rewinding reads other entries")
	}
	c.refused(unix.EINVAL, tReaddir, fid, uint64(0), 100) // no room for any name
	c.refused(unix.EISDIR, tRead, fid, uint64(0), 100)
	file, _ := c.open("0", 0)
	c.refused(unix.ENOTDIR, tReaddir, file, uint64(0), 1000)

	c.refused(unix.EISDIR, tUnlinkAt, root, "sub", 0)
	c.must(tUnlinkAt, root, "sub", 0x200)
	c.refused(unix.ENOENT, tUnlinkAt, root, "sub", 0x200)
	c.refused(unix.ENOTDIR, tUnlinkAt, root, "link", 0x200)
	c.must(tUnlinkAt, root, "link", 0)
	c.refused(unix.EINVAL, tUnlinkAt, root, "0", 1)
	if _, err := os.Stat(dir + "/0"); err != nil {
		t.Error(err)
	}
}

func TestWalk(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a/b/c", "x")
	c := dial(t, dir, p9.Options{})

	// Twalk answers as far as it came; the new fid is there only at the end.
	b := c.must(tWalk, root, 5, uint16(3), "a", "nothing", "c")
	if len(b) != 2+13 || binary.LittleEndian.Uint16(b) != 1 {
		t.Errorf("partial Rwalk has %d bytes, %d qids; want 1 qid", len(b), binary.LittleEndian.Uint16(b))
	}
	c.refused(unix.EBADF, tClunk, 5)
	c.refused(unix.ENOENT, tWalk, root, 5, uint16(1), "nothing")
}

func TestWalkFids(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a/b/c", "x")
	c := dial(t, dir, p9.Options{})
	c.must(tWalk, root, 5, uint16(1), "a")
	c.must(tWalk, 5, 6, uint16(0)) // a clone
	c.must(tClunk, 5)
	c.must(tWalk, 6, 6, uint16(2), "b", "c") // in its own place
	if st := c.stat(6); st.size != 1 || st.mode != unix.S_IFREG|0o644 {
		t.Errorf("fid 6 is %+v; want the file c", st)
	}
	c.refused(unix.EINVAL, tWalk, root, 6, uint16(1), "a") // in use
	c.refused(unix.EINVAL, tWalk, root, uint32(noFid), uint16(1), "a")
	c.refused(unix.ENOTDIR, tWalk, 6, 7, uint16(1), "x")
	c.refused(unix.EBADF, tWalk, 99, 7, uint16(1), "a")
	c.refused(unix.EINVAL, tWalk, append([]any{root, 7, uint16(17)}, slices.Repeat([]any{"a"}, 17)...)...)
	c.must(tLOpen, 6, 0)
	c.refused(unix.EINVAL, tLOpen, 6, 0)
	c.refused(unix.EINVAL, tWalk, 6, 6, uint16(0))
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a/f", "")
	c := dial(t, dir, writable)
	a := c.at("a")
	for _, name := range []string{"", ".", "..", "/", "a/b", "../x", "/etc", "x\x00y", strings.Repeat("n", 256)} {
		want := error(unix.EINVAL)
		if len(name) > 255 {
			want = unix.ENAMETOOLONG
		}
		c.refused(want, tWalk, a, 50, uint16(1), name)
		c.refused(want, tLCreate, c.at("a"), name, unix.O_RDWR, 0o644, 0)
		c.refused(want, tMkdir, a, name, 0o755, 0)
		c.refused(want, tMknod, a, name, unix.S_IFREG|0o644, 0, 0, 0)
		c.refused(want, tSymlink, a, name, "t", 0)
		c.refused(want, tLink, a, c.at("a/f"), name)
		c.refused(want, tUnlinkAt, a, name, 0)
		c.refused(want, tUnlinkAt, a, name, 0x200)
		c.refused(want, tRenameAt, a, name, a, "new")
		c.refused(want, tRenameAt, a, "f", a, name)
		c.refused(want, tRename, c.at("a/f"), a, name)
	}
	if got := c.names("/"); !maps.Equal(got, map[string]bool{"a": true}) {
		t.Errorf("the export has %v; want a alone", got)
	}
	if got := c.names("a"); !maps.Equal(got, map[string]bool{"f": true}) {
		t.Errorf("a has %v; want f alone", got)
	}
}

func TestLinksAndRenames(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a/f", "content")
	write(t, dir+"/b/g", "other")
	c := dial(t, dir, writable)
	a, b := c.at("a"), c.at("b")

	c.must(tLink, b, c.at("a/f"), "hard")
	if st := c.stat(c.at("b/hard")); st.nlink != 2 || st.qid != c.stat(c.at("a/f")).qid {
		t.Errorf("the hard link is %+v, the file %+v", st, c.stat(c.at("a/f")))
	}
	c.refused(unix.EPERM, tLink, b, a, "dir")
	c.refused(unix.EEXIST, tLink, b, c.at("a/f"), "hard")

	c.must(tSymlink, a, "soft", "../b/g", 0)
	if got := c.must(tReadlink, c.at("a/soft")); !bytes.Equal(got, msg("../b/g")) {
		t.Errorf("readlink = %q", got)
	}
	c.refused(unix.EINVAL, tReadlink, c.at("a/f"))
	c.refused(unix.ENOENT, tSymlink, a, "empty", "", 0)
	c.refused(unix.EINVAL, tSymlink, a, "nul", "x\x00y", 0)
	if err := c.setattr(c.at("a/soft"), 0x1, 0o777, 0, 0, 0); err != unix.EOPNOTSUPP {
		t.Errorf("chmod of a symbolic link: %v", err)
	}
	if err := c.setattr(c.at("a/soft"), 0x20|0x100, 0, 0, 0, 0, 0, 0, 77, 5); err != nil || c.stat(c.at("a/soft")).mtime != 77 {
		t.Errorf("times of a symbolic link: %v", err)
	}

	moved, _ := c.open("a/f", 0)
	c.must(tRenameAt, a, "f", b, "g") // over another
	if got := contains(t, dir+"/b/g"); got != "content" {
		t.Errorf("after the rename b/g is %q", got)
	}
	if got := c.must(tRead, moved, uint64(0), 100); string(got[4:]) != "content" {
		t.Errorf("the fid of the moved file reads %q", got[4:])
	}
	c.refused(unix.ENOENT, tRenameAt, a, "f", b, "h")

	c.must(tRename, moved, a, "f2") // the fid knows where the file is by now
	if got := contains(t, dir+"/a/f2"); got != "content" {
		t.Errorf("after Trename a/f2 is %q", got)
	}
	c.must(tRemove, moved)
	if _, err := os.Lstat(dir + "/a/f2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Tremove: %v", err)
	}
	c.refused(unix.EBADF, tClunk, moved)
	c.must(tMkdir, a, "d", 0o755, 0)
	c.must(tRemove, c.at("a/d"))
	full := c.at("a")
	c.refused(unix.ENOTEMPTY, tRemove, full) // and the fid is gone all the same
	c.refused(unix.EBADF, tClunk, full)
	c.refused(unix.EBUSY, tRemove, c.at("/"))
	c.refused(unix.EBUSY, tRename, root, a, "x")
}

func TestMknod(t *testing.T) {
	dir := t.TempDir()
	c := dial(t, dir, writable)
	for _, tt := range []struct {
		name string
		kind int
		want error
	}{
		{"regular", unix.S_IFREG, nil},
		{"fifo", unix.S_IFIFO, nil},
		{"socket", unix.S_IFSOCK, nil},
		{"char", unix.S_IFCHR, unix.EPERM},
		{"block", unix.S_IFBLK, unix.EPERM},
		{"directory", unix.S_IFDIR, unix.EPERM},
		{"link", unix.S_IFLNK, unix.EPERM},
		{"untyped", 0, unix.EPERM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.call(tMknod, root, tt.name, tt.kind|0o4642, 1, 3, 0)
			var st unix.Stat_t
			there := unix.Lstat(filepath.Join(dir, tt.name), &st) == nil
			if !errors.Is(err, tt.want) || there != (tt.want == nil) {
				t.Fatalf("mknod: %v, and there: %v; want %v", err, there, tt.want)
			}
			if there && st.Mode != uint32(tt.kind)|0o642 {
				t.Errorf("mode %o; want %o", st.Mode, tt.kind|0o642)
			}
		})
	}
}

func TestAttributes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "0123456789")
	c := dial(t, dir, writable)
	fid := c.at("f")

	var st unix.Stat_t
	if err := unix.Stat(dir+"/f", &st); err != nil {
		t.Fatal(err)
	}
	if got := c.stat(fid); got.size != 10 || got.mode != st.Mode || got.uid != st.Uid || got.gid != st.Gid ||
		binary.LittleEndian.Uint64(got.qid[5:]) != st.Ino || got.mtime != uint64(st.Mtim.Sec) {
		t.Errorf("getattr = %+v; want %+v", got, st)
	}
	for _, tt := range []struct {
		name        string
		valid, mode int
		size        uint64
		times       []uint64
		want        error
		check       func(unix.Stat_t) bool
	}{
		{"mode", 0x1, 0o100600, 0, nil, nil, func(st unix.Stat_t) bool { return st.Mode == unix.S_IFREG|0o600 }},
		{"setuid is taken off", 0x1, 0o6755, 0, nil, nil, func(st unix.Stat_t) bool { return st.Mode == unix.S_IFREG|0o755 }},
		{"shorter", 0x8, 0, 4, nil, nil, func(st unix.Stat_t) bool { return st.Size == 4 }},
		{"longer", 0x8, 0, 1 << 20, nil, nil, func(st unix.Stat_t) bool { return st.Size == 1<<20 }},
		{"negative size", 0x8, 0, 1 << 63, nil, unix.EINVAL, nil},
		{"times", 0x1b0, 0, 0, []uint64{11, 1, 22, 2}, nil, func(st unix.Stat_t) bool {
			return st.Atim == unix.Timespec{Sec: 11, Nsec: 1} && st.Mtim == unix.Timespec{Sec: 22, Nsec: 2}
		}},
		{"mtime alone", 0x120, 0, 0, []uint64{0, 0, 33, 3}, nil, func(st unix.Stat_t) bool {
			return st.Atim == unix.Timespec{Sec: 11, Nsec: 1} && st.Mtim == unix.Timespec{Sec: 33, Nsec: 3}
		}},
		{"now", 0x10, 0, 0, nil, nil, func(st unix.Stat_t) bool { return st.Atim.Sec > 1e9 && st.Mtim.Sec == 33 }},
		{"UTIME_OMIT smuggled in", 0x90, 0, 0, []uint64{0, unix.UTIME_OMIT}, unix.EINVAL, nil},
		{"change time alone", 0x40, 0, 0, nil, nil, func(unix.Stat_t) bool { return true }},
		{"unknown bits", 0x200, 0, 0, nil, unix.EINVAL, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := c.setattr(fid, tt.valid, tt.mode, 0, 0, tt.size, tt.times...); !errors.Is(err, tt.want) && err != tt.want {
				t.Fatalf("setattr: %v; want %v", err, tt.want)
			}
			if err := unix.Stat(dir+"/f", &st); err != nil || tt.check != nil && !tt.check(st) {
				t.Errorf("the host has %+v, %v", st, err)
			}
		})
	}
	if err := c.setattr(c.at("/"), 0x8, 0, 0, 0, 0); err != unix.EISDIR {
		t.Errorf("truncating a directory: %v", err)
	}
	if err := c.setattr(c.at("/"), 0x1, 0o42755, 0, 0, 0); err != nil || c.stat(c.at("/")).mode != unix.S_IFDIR|0o2755 {
		t.Errorf("setgid on a directory: %v, %o", err, c.stat(c.at("/")).mode)
	}
	// A file that is no more can still be asked about and changed.
	c.must(tLOpen, fid, unix.O_RDWR)
	if err := os.Remove(dir + "/f"); err != nil {
		t.Fatal(err)
	}
	if err := c.setattr(fid, 0x8, 0, 0, 0, 7); err != nil || c.stat(fid).size != 7 || c.stat(fid).nlink != 0 {
		t.Errorf("a removed file: %v, %+v", err, c.stat(fid))
	}
	c.refused(unix.ENOENT, tRemove, fid)

	b := c.must(tStatfs, root)
	if len(b) != 60 || binary.LittleEndian.Uint32(b) != 0x01021997 || binary.LittleEndian.Uint64(b[8:]) == 0 {
		t.Errorf("Rstatfs = %x", b)
	}
}

func TestXattrs(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "")
	if err := unix.Setxattr(dir+"/f", "user.host", []byte("here"), 0); err == unix.EOPNOTSUPP {
		require(t, "xattr", false)
	} else if err != nil {
		t.Fatal(err)
	}
	c := dial(t, dir, writable)

	get := func(name string) (string, error) {
		b, err := c.call(tXattrWalk, c.at("f"), 50, name)
		if err != nil {
			return "", err
		}
		size := binary.LittleEndian.Uint64(b)
		b = c.must(tRead, 50, uint64(0), 100000)
		value := string(b[4:])
		if uint64(len(value)) != size {
			t.Errorf("attribute %q has size %d and %d bytes", name, size, len(value))
		}
		c.must(tClunk, 50)
		return value, nil
	}
	set := func(name, value string, flags int) error {
		fid := c.at("f")
		if _, err := c.call(tXattrCreate, fid, name, uint64(len(value)), flags); err != nil {
			return err
		}
		for i := 0; i < len(value); i += 1000 {
			part := value[i:min(i+1000, len(value))]
			c.must(tWrite, fid, uint64(i), len(part), []byte(part))
		}
		_, err := c.call(tClunk, fid)
		return err
	}
	if got, err := get("user.host"); got != "here" || err != nil {
		t.Errorf("user.host = %q, %v", got, err)
	}
	long := strings.Repeat("v", 3000)
	if err := set("user.long", long, 0); err != nil {
		t.Fatalf("set: %v", err)
	}
	if got, err := get("user.long"); got != long || err != nil {
		t.Errorf("user.long has %d bytes, %v; want 3000", len(got), err)
	}
	if got, err := get(""); err != nil || got != "user.host\x00user.long\x00" && got != "user.long\x00user.host\x00" {
		t.Errorf("the list is %q, %v", got, err)
	}
	if err := set("user.long", "x", unix.XATTR_CREATE); err != unix.EEXIST {
		t.Errorf("XATTR_CREATE of one that is there: %v", err)
	}
	if err := set("user.none", "x", unix.XATTR_REPLACE); err != unix.ENODATA {
		t.Errorf("XATTR_REPLACE of one that is not there: %v", err)
	}
	if err := set("user.long", "", 0); err != nil {
		t.Errorf("removing: %v", err)
	}
	if _, err := get("user.long"); err != unix.ENODATA {
		t.Errorf("after removing: %v", err)
	}
	for _, name := range []string{"security.capability", "trusted.overlay.opaque", "system.posix_acl_access", "user", "user.x\x00y"} {
		if _, err := get(name); err != unix.EOPNOTSUPP {
			t.Errorf("get %q: %v; want EOPNOTSUPP", name, err)
		}
		if err := set(name, "x", 0); err != unix.EOPNOTSUPP {
			t.Errorf("set %q: %v; want EOPNOTSUPP", name, err)
		}
	}
	fid := c.at("f")
	c.refused(unix.ENOSPC, tXattrCreate, fid, "user.big", uint64(1<<40), 0)
	c.must(tXattrCreate, fid, "user.big", uint64(10), 0)
	c.refused(unix.EINVAL, tWrite, fid, uint64(5), 1, []byte("x"))
	c.refused(unix.EINVAL, tWrite, fid, uint64(0), 11, []byte("01234567890"))
	c.refused(unix.EBADF, tRead, fid, uint64(0), 1)
	c.refused(unix.EINVAL, tClunk, fid) // not all of it came
	if _, err := get("user.big"); err != unix.ENODATA {
		t.Errorf("after half of a value: %v", err)
	}

	// Values in memory are bounded, and given back.
	for range 3 {
		n := 0
		for ; ; n++ {
			if _, err := c.call(tXattrWalk, c.at("f"), 1000+n, "user.host"); err == unix.ENFILE {
				break
			} else if err != nil || n > 1000 {
				t.Fatalf("value %d: %v", n, err)
			}
		}
		for i := range n {
			c.must(tClunk, 1000+i)
		}
	}
}
