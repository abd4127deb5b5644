package p9_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent/p9"
)

// host makes a small host to export whole.
func host(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range []string{"etc/passwd", "etc/shadow", "etc/ssh/key", "usr/bin/sh", "usr/lib/x", "var/lib/app/data", "var/lib/other/data", "run/socket"} {
		write(t, dir+"/"+f, f)
	}
	if err := os.Symlink("usr/bin", dir+"/bin"); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestHideAndAllow(t *testing.T) {
	for _, tt := range []struct {
		name        string
		allow, hide []string
		shown       map[string]string // directory → its entries
		gone        []string          // no such file
		read        []string          // files with their content
	}{
		{name: "nothing said",
			shown: map[string]string{"/": "bin etc run usr var", "run": "socket"},
			read:  []string{"etc/shadow", "usr/bin/sh"}},
		{name: "hidden directory is empty, hidden file is gone", hide: []string{"/run", "etc/shadow", "/etc/ssh/", "nothing/there"},
			shown: map[string]string{"/": "bin etc run usr var", "run": "", "etc": "passwd ssh", "etc/ssh": ""},
			gone:  []string{"run/socket", "etc/shadow", "etc/ssh/key"},
			read:  []string{"etc/passwd"}},
		{name: "only what is named, and the way there", allow: []string{"usr", "/etc/passwd", "bin", "var/lib/app"},
			shown: map[string]string{"/": "bin etc usr var", "etc": "passwd", "var": "lib", "var/lib": "app", "usr": "bin lib"},
			gone:  []string{"run", "etc/shadow", "etc/ssh", "var/lib/other", "var/lib/other/data"},
			read:  []string{"etc/passwd", "usr/bin/sh", "var/lib/app/data"}},
		{name: "a longer path wins", allow: []string{"/", "var/lib/app"}, hide: []string{"var", "etc/ssh"},
			shown: map[string]string{"/": "bin etc run usr var", "var": "lib", "var/lib": "app", "etc": "passwd shadow ssh", "etc/ssh": ""},
			gone:  []string{"var/lib/other"},
			read:  []string{"var/lib/app/data", "etc/shadow"}},
		{name: "hiding is the last word", allow: []string{"etc"}, hide: []string{"etc"},
			shown: map[string]string{"/": "etc", "etc": ""},
			gone:  []string{"etc/passwd"}},
		{name: "a link on the way", allow: []string{"bin/sh", "usr/bin/sh"},
			shown: map[string]string{"/": "bin usr", "usr": "bin", "usr/bin": "sh"},
			gone:  []string{"bin/sh", "usr/lib"},
			read:  []string{"usr/bin/sh"}},
		{name: "everything hidden", hide: []string{"/"}, shown: map[string]string{"/": ""}, gone: []string{"etc", "bin"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := host(t)
			c := dial(t, dir, p9.Options{Writable: true, Allow: tt.allow, Hide: tt.hide})
			for path, want := range tt.shown {
				if got := strings.Join(slices.Sorted(maps.Keys(c.names(path))), " "); got != want {
					t.Errorf("%s shows %q; want %q", path, got, want)
				}
			}
			for _, path := range tt.gone {
				if _, err := c.walk(path); err != unix.ENOENT && err != unix.ENOTDIR {
					t.Errorf("walk %s: %v; want no such file", path, err)
				}
			}
			for _, path := range tt.read {
				if got, err := c.readFile(path); got != path || err != nil {
					t.Errorf("read %s = %q, %v", path, got, err)
				}
			}
		})
	}
}

// TestHiddenStays: a guest that may write finds no way to give what is hidden
// another name, nor to put something in its place.
func TestHiddenStays(t *testing.T) {
	dir := host(t)
	before := snapshot(t, dir+"/etc")
	c := dial(t, dir, p9.Options{Writable: true, Hide: []string{"etc/shadow", "etc/ssh", "var/lib/app", "absent/below"}})
	etc, ssh := c.at("etc"), c.at("etc/ssh")
	for _, m := range []struct {
		name   string
		want   error
		kind   uint8
		fields []any
	}{
		{"rename the hidden file", unix.EBUSY, tRenameAt, []any{etc, "shadow", root, "x"}},
		{"rename the hidden directory", unix.EBUSY, tRenameAt, []any{etc, "ssh", root, "x"}},
		{"rename it by its fid", unix.EBUSY, tRename, []any{ssh, root, "x"}},
		{"rename what is on the way", unix.EBUSY, tRenameAt, []any{root, "etc", root, "x"}},
		{"further up", unix.EBUSY, tRenameAt, []any{root, "var", root, "x"}},
		{"rename over it", unix.EBUSY, tRenameAt, []any{etc, "passwd", etc, "shadow"}},
		{"rename over what is on the way", unix.EBUSY, tRenameAt, []any{root, "usr", root, "etc"}},
		{"remove it", unix.EBUSY, tUnlinkAt, []any{etc, "shadow", 0}},
		{"remove it by its fid", unix.EBUSY, tRemove, []any{c.at("etc/ssh")}},
		{"make it", unix.EBUSY, tLCreate, []any{c.at("etc"), "shadow", unix.O_RDWR | unix.O_CREAT, 0o644, 0}},
		{"make what is not there yet", unix.EBUSY, tMkdir, []any{root, "absent", 0o755, 0}},
		{"make something in it", unix.EROFS, tMkdir, []any{ssh, "x", 0o755, 0}},
		{"link into it", unix.EROFS, tLink, []any{ssh, c.at("etc/passwd"), "x"}},
		{"an attribute on it", unix.EROFS, tXattrCreate, []any{c.at("etc/ssh"), "user.x", uint64(1), 0}},
	} {
		if _, err := c.call(m.kind, m.fields...); err != m.want {
			t.Errorf("%s: %v; want %v", m.name, err, m.want)
		}
	}
	if err := c.setattr(ssh, 0x1, 0o777, 0, 0, 0); err != unix.EROFS {
		t.Errorf("chmod of it: %v; want EROFS", err)
	}
	if after := snapshot(t, dir+"/etc"); !maps.Equal(before, after) {
		t.Errorf("before %v\nafter %v", before, after)
	}

	// Under another name, given on the host: known by its inode.
	if err := os.Link(dir+"/etc/shadow", dir+"/usr/copy"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/etc/ssh", dir+"/usr/ssh"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"usr/copy", "usr/ssh/key"} {
		if got, err := c.readFile(path); err == nil {
			t.Errorf("read %s = %q", path, got)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "")
	for _, tt := range []struct {
		name, dir string
		opts      p9.Options
		want      string
	}{
		{"no such directory", dir + "/none", p9.Options{}, "no such file"},
		{"a file", dir + "/file", p9.Options{}, "not a directory"},
		{"a path that leaves", dir, p9.Options{Hide: []string{"../x"}}, `path "../x"`},
		{"a path that leaves later", dir, p9.Options{Allow: []string{"a/../b"}}, `path "a/../b"`},
		{"ids past the last", dir, p9.Options{Owners: p9.Owners{UIDs: []p9.IDRange{{Guest: 1, Host: 0xfffffff0, Size: 100}}}}, "past the last id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := p9.Open(tt.dir, tt.opts)
			if err == nil {
				e.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open: %v; want %q", err, tt.want)
			}
		})
	}
}

// TestMountPoints: inode numbers of two file systems do not meet, and a file
// system of the kernel below the export is not shown.
func TestMountPoints(t *testing.T) {
	require(t, "root", os.Geteuid() == 0)
	dir := t.TempDir()
	for _, d := range []string{"a", "b", "proc"} {
		if err := os.Mkdir(dir+"/"+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for target, fs := range map[string]string{"a": "tmpfs", "b": "tmpfs", "proc": "proc"} {
		if err := unix.Mount(fs, dir+"/"+target, fs, 0, ""); err != nil {
			require(t, "mount", false)
		}
		defer unix.Unmount(dir+"/"+target, unix.MNT_DETACH)
	}
	write(t, dir+"/a/file", "a")
	write(t, dir+"/b/file", "b")
	c := dial(t, dir, p9.Options{})
	if a, b := c.stat(c.at("a/file")), c.stat(c.at("b/file")); slices.Equal(a.qid[5:], b.qid[5:]) {
		t.Errorf("two files have the qid path %x", a.qid[5:])
	}
	all, err := c.list("a", 8192)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if q := c.stat(c.at("a/file")).qid; e.name == "file" && !slices.Equal(q[5:], msg(e.path)) {
			t.Errorf("qid path %x of the entry, %x of the file", e.path, q[5:])
		}
	}
	if got := c.names("proc"); len(got) != 0 {
		t.Errorf("proc shows %d entries", len(got))
	}
	if _, err := c.walk("proc/self"); err != unix.ENOENT {
		t.Errorf("walk proc/self: %v", err)
	}
	if got, err := c.readFile("b/file"); got != "b" || err != nil {
		t.Errorf("b/file = %q, %v", got, err)
	}
}
