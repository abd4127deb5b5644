package jail

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Rights on files, by the version of Landlock that brought them
// (Documentation/userspace-api/landlock.rst).
const (
	fsV1 = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1 // the first 13
	fsV2 = fsV1 | unix.LANDLOCK_ACCESS_FS_REFER
	fsV3 = fsV2 | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	fsV5 = fsV3 | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	readWrite = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	load      = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE
)

// ruleset is what a kernel with that version of Landlock can forbid: all of
// what follows is forbidden unless a rule allows it.
func ruleset(version int) unix.LandlockRulesetAttr {
	a := unix.LandlockRulesetAttr{Handled_access_fs: fsV1}
	if version >= 2 {
		a.Handled_access_fs = fsV2
	}
	if version >= 3 {
		a.Handled_access_fs = fsV3
	}
	if version >= 4 {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= 5 {
		a.Handled_access_fs = fsV5
	}
	if version >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return a
}

// landlock is the second wall around files, for a process that found a way to
// one despite the empty root.
func (m *message) landlock() error {
	version, err := LandlockVersion()
	if err != nil {
		return err
	}
	attr := ruleset(version)
	rules, err := newRuleset(&attr)
	if err != nil {
		return err
	}
	defer unix.Close(rules)
	private := attr.Handled_access_fs &^ (unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR)
	allow := []pathRule{
		{"/run", private},
		{"/dev/null", readWrite},
		{"/dev/random", unix.LANDLOCK_ACCESS_FS_READ_FILE},
	}
	if m.dynamic() {
		// Nothing is there but the loader and libraries that were copied in.
		allow = append(allow, pathRule{"/", load | unix.LANDLOCK_ACCESS_FS_READ_DIR})
	}
	for _, r := range allow {
		if err := r.add(rules); err != nil {
			return fmt.Errorf("%s: %w", r.path, err)
		}
	}
	if err := addRule(rules, programFD, load); err != nil {
		return fmt.Errorf("the program: %w", err)
	}
	return restrictSelf(rules)
}

type pathRule struct {
	path   string
	access uint64
}

func (r pathRule) add(rules int) error {
	fd, err := unix.Open(r.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return addRule(rules, fd, r.access)
}
