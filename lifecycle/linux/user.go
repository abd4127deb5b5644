package linux

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle/bundle"
)

// A user is who a process runs as.
type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// maxAccounts bounds what is read of a container's passwd and group files,
// which are the container's to fill (CVE-2026-47262).
const maxAccounts = 4 << 20

// lookupUser finds the user u of the container whose root directory is rootDir.
// Names are looked up in the container's own /etc/passwd and /etc/group, never
// the host's; numbers are taken as they are (CVE-2016-3697).
func lookupUser(rootDir string, u specs.User) (user, error) {
	r := user{uid: u.UID, gid: u.GID, groups: u.AdditionalGids, home: "/"}
	var ref bundle.UserRef
	if u.Username != "" {
		var err error
		if ref, err = bundle.ParseUser(u.Username); err != nil {
			return user{}, err
		}
		r.uid, r.gid = ref.UID, ref.GID
	}
	root, err := unix.Open(rootDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return user{}, &os.PathError{Op: "open", Path: rootDir, Err: err}
	}
	defer unix.Close(root)
	found, err := r.fromPasswd(root, ref.User, ref.HasGroup || u.Username == "")
	if err != nil {
		return user{}, err
	}
	if ref.User != "" && !found {
		return user{}, fmt.Errorf("user %q is not in the container's /etc/passwd", ref.User)
	}
	if ref.User == "" && ref.Group == "" {
		return r, nil
	}
	return r, r.fromGroup(root, ref)
}

// fromPasswd fills in the user's id, group and home. Numbers need no entry.
func (r *user) fromPasswd(root int, name string, keepGroup bool) (found bool, err error) {
	err = eachAccount(root, "etc/passwd", 7, func(f []string) bool {
		uid, uerr := strconv.ParseUint(f[2], 10, 31)
		gid, gerr := strconv.ParseUint(f[3], 10, 31)
		if uerr != nil || gerr != nil || name != "" && f[0] != name || name == "" && uint32(uid) != r.uid {
			return true
		}
		found = true
		r.uid = uint32(uid)
		if !keepGroup {
			r.gid = uint32(gid)
		}
		if strings.HasPrefix(f[5], "/") {
			r.home = f[5]
		}
		return false
	})
	return found, err
}

// fromGroup finds the group by name, and the groups that list the user.
func (r *user) fromGroup(root int, ref bundle.UserRef) error {
	found := ref.Group == ""
	err := eachAccount(root, "etc/group", 4, func(f []string) bool {
		gid, err := strconv.ParseUint(f[2], 10, 31)
		if err != nil {
			return true
		}
		if ref.Group != "" && f[0] == ref.Group && !found {
			r.gid, found = uint32(gid), true
		}
		if ref.User != "" && !ref.HasGroup && slices.Contains(strings.Split(f[3], ","), ref.User) && len(r.groups) < 1024 {
			r.groups = append(r.groups[:len(r.groups):len(r.groups)], uint32(gid))
		}
		return true
	})
	if err == nil && !found {
		return fmt.Errorf("group %q is not in the container's /etc/group", ref.Group)
	}
	return err
}

// eachAccount calls f with the fields of each line of a file below root until f
// says no. A file that does not exist has no lines.
func eachAccount(root int, name string, fields int, f func([]string) bool) error {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return fmt.Errorf("container's /%s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("container's /%s is not a regular file", name)
	}
	limited := &io.LimitedReader{R: file, N: maxAccounts + 1}
	sc := bufio.NewScanner(limited)
	for sc.Scan() {
		if limited.N == 0 {
			return fmt.Errorf("container's /%s is larger than %d bytes", name, maxAccounts)
		}
		if fs := strings.Split(sc.Text(), ":"); len(fs) >= fields && !f(fs) {
			return nil
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("container's /%s: %w", name, err)
	}
	return nil
}
