package jail

import (
	"fmt"

	"golang.org/x/sys/unix"

	"sekimori/vmm/landlock"
)

const (
	readWrite = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	load      = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE
)

// landlock is the second wall around files, for a process that found a way to
// one despite the empty root. A kernel without it is refused: the second wall is
// part of what is promised.
func (m *message) landlock() error {
	rules, err := landlock.New(true)
	if err != nil {
		return err
	}
	defer rules.Close()
	private := rules.Files() &^ (unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR)
	allow := map[string]uint64{"/run": private, "/dev/null": readWrite, "/dev/random": unix.LANDLOCK_ACCESS_FS_READ_FILE}
	if m.dynamic() {
		// Nothing is there but the loader and libraries that were copied in.
		allow["/"] = load | unix.LANDLOCK_ACCESS_FS_READ_DIR
	}
	for path, rights := range allow {
		if err := rules.AllowPath(path, rights); err != nil {
			return err
		}
	}
	if err := rules.Allow(programFD, load); err != nil {
		return fmt.Errorf("the program: %w", err)
	}
	return rules.Restrict()
}
