package linux

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// givePipes makes the pipes among stdio the user's: `echo x > /dev/stderr` opens
// the pipe anew, by way of /proc, and asks its owner. Files and terminals are
// somebody else's too, and stay so.
func givePipes(stdio [3]*os.File, uid, gid uint32) error {
	for i, f := range stdio {
		if f == nil {
			continue
		}
		fd := int(f.Fd())
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("descriptor %d: %w", i, err)
		}
		var fs unix.Statfs_t
		if st.Mode&unix.S_IFMT != unix.S_IFIFO || unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.PIPEFS_MAGIC {
			continue // a pipe with a name is somebody's file
		}
		if err := unix.Fchown(fd, int(uid), int(gid)); err != nil {
			return fmt.Errorf("descriptor %d: chown: %w", i, err)
		}
	}
	return nil
}

// hostUser is p's user and group as the host knows them; not ok if the maps are
// not ours to know.
func (e *execParams) hostUser(p *program) (uid, gid uint32, ok bool) {
	if !e.userNS {
		return p.uid, p.gid, true
	}
	uid, okU := hostID(e.uids, p.uid)
	gid, okG := hostID(e.gids, p.gid)
	return uid, gid, okU && okG
}

// hostID turns a container's id into the host's.
func hostID(ms []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range ms {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + id - m.ContainerID, true
		}
	}
	return 0, false
}
