package p9_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent/p9"
)

func owner(t testing.TB, path string) p9.Owner {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return p9.Owner{UID: st.Uid, GID: st.Gid}
}

// TestOwners is of what needs no rights: it holds for root, too.
func TestOwners(t *testing.T) {
	me := p9.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	const guest = 70
	for _, tt := range []struct {
		name   string
		owners p9.Owners
		shown  p9.Owner
		chown  map[p9.Owner]error
	}{
		{"as they are", p9.Owners{}, me, map[p9.Owner]error{me: nil, {UID: 12345, GID: me.GID}: unix.EPERM, {UID: me.UID, GID: 12345}: unix.EPERM}},
		{"squashed", p9.Owners{Squash: &p9.Owner{UID: guest, GID: guest}}, p9.Owner{UID: guest, GID: guest},
			map[p9.Owner]error{{UID: guest, GID: guest}: nil, {UID: 0, GID: guest}: unix.EPERM, {UID: guest, GID: 1}: unix.EPERM}},
		{"mapped", p9.Owners{UIDs: []p9.IDRange{{Guest: guest, Host: me.UID, Size: 1}}, GIDs: []p9.IDRange{{Guest: 7, Host: me.GID, Size: 1}}},
			p9.Owner{UID: guest, GID: 7}, map[p9.Owner]error{{UID: guest, GID: 7}: nil, {UID: 1, GID: 7}: unix.EPERM, {UID: guest, GID: 8}: unix.EPERM}},
		{"not in the map", p9.Owners{UIDs: []p9.IDRange{{Guest: 0, Host: 400000, Size: 10}}, GIDs: []p9.IDRange{{Guest: 0, Host: 400000, Size: 10}}},
			p9.Owner{UID: 65534, GID: 65534}, map[p9.Owner]error{{UID: 65534, GID: 65534}: nil, {UID: 10, GID: 65534}: unix.EPERM}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/file", "")
			c := dial(t, dir, p9.Options{Writable: true, Owners: tt.owners})
			fid := c.at("file")
			if st := c.stat(fid); (p9.Owner{UID: st.uid, GID: st.gid}) != tt.shown {
				t.Errorf("shown as %d:%d; want %+v", st.uid, st.gid, tt.shown)
			}
			for to, want := range tt.chown {
				if err := c.setattr(fid, 0x6, 0, int(to.UID), int(to.GID), 0); err != want && (want != nil || err != nil) {
					t.Errorf("chown to %+v: %v; want %v", to, err, want)
				}
			}
			if got := owner(t, dir+"/file"); got != me {
				t.Errorf("on the host it belongs to %+v; want %+v", got, me)
			}
		})
	}
}

// TestOwnersAsRoot: what the guest makes and chowns belongs to the mapped users
// on the host, and to no others.
func TestOwnersAsRoot(t *testing.T) {
	require(t, "root", os.Geteuid() == 0)
	dir := t.TempDir()
	ids := []p9.IDRange{{Guest: 0, Host: 300000, Size: 1000}}
	e := export(t, dir, p9.Options{Writable: true, Owners: p9.Owners{UIDs: ids, GIDs: ids}})
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": e}})
	c, _ := connect(t, s)
	c.version(msize)
	c.must(tAttach, root, uint32(noFid), "", "", 5)
	c.must(tAttach, 1, uint32(noFid), "", "", 2000) // a user who is not in the map

	c.must(tMkdir, root, "dir", 0o755, 6)
	c.must(tSymlink, root, "link", "t", 6)
	c.must(tMknod, root, "fifo", unix.S_IFIFO|0o644, 0, 0, 6)
	c.must(tLCreate, c.at("/"), "file", unix.O_RDWR, 0o644, 6)
	for _, name := range []string{"dir", "link", "fifo", "file"} {
		if got, want := owner(t, dir+"/"+name), (p9.Owner{UID: 300005, GID: 300006}); got != want {
			t.Errorf("%s belongs to %+v; want %+v", name, got, want)
		}
		if st := c.stat(c.at(name)); st.uid != 5 || st.gid != 6 {
			t.Errorf("%s shows as %d:%d; want 5:6", name, st.uid, st.gid)
		}
	}
	c.must(tMkdir, 1, "nobody", 0o755, 2000)
	if got := owner(t, dir+"/nobody"); got != (p9.Owner{}) {
		t.Errorf("the directory of an unmapped user belongs to %+v; want the server's user", got)
	}
	if err := c.setattr(c.at("file"), 0x6, 0, 999, 0, 0); err != nil || owner(t, dir+"/file") != (p9.Owner{UID: 300999, GID: 300000}) {
		t.Errorf("chown: %v, %+v", err, owner(t, dir+"/file"))
	}
	for _, uid := range []int{1000, 300000, 0xfffffffe} {
		if err := c.setattr(c.at("file"), 0x2, 0, uid, 0, 0); err != unix.EPERM {
			t.Errorf("chown to %d: %v; want EPERM", uid, err)
		}
	}
	if got := owner(t, dir+"/file"); got.UID != 300999 {
		t.Errorf("after refused chowns it belongs to %+v", got)
	}
}

// TestSetuid: a guest makes no programs that lend rights on the host.
func TestSetuid(t *testing.T) {
	for _, kept := range []bool{false, true} {
		dir := t.TempDir()
		write(t, dir+"/old", "program")
		if err := unix.Chmod(dir+"/old", 0o6755); err != nil {
			t.Fatal(err)
		}
		c := dial(t, dir, p9.Options{Writable: true, KeepSetuid: kept})
		c.must(tLCreate, c.at("/"), "created", unix.O_RDWR, 0o6755, os.Getegid())
		c.must(tMknod, root, "node", unix.S_IFREG|0o6755, 0, 0, os.Getegid())
		c.must(tMkdir, root, "dir", 0o6755, os.Getegid())
		write(t, dir+"/chmod", "")
		if err := c.setattr(c.at("chmod"), 0x1, 0o6755, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := c.open("old", unix.O_RDONLY); err != nil || c.stat(c.at("old")).mode != unix.S_IFREG|0o6755 {
			t.Errorf("reading a setuid program: %v, mode %o", err, c.stat(c.at("old")).mode)
		}
		if _, err := c.open("old", unix.O_WRONLY); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"created", "node", "chmod", "old"} {
			want := uint32(unix.S_IFREG | 0o755)
			if kept {
				want |= 0o6000
			}
			if got := c.stat(c.at(name)).mode; got != want {
				t.Errorf("kept %v: %s has mode %o; want %o", kept, name, got, want)
			}
		}
		want := uint32(unix.S_IFDIR | 0o2755)
		if kept {
			want |= 0o4000
		}
		if got := c.stat(c.at("dir")).mode; got != want {
			t.Errorf("kept %v: the directory has mode %o; want %o", kept, got, want)
		}
	}
}
