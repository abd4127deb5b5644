package p9

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Options say what of a directory a guest gets, and how.
type Options struct {
	// Writable lets the guest change what it sees. Without it every change is
	// refused with EROFS.
	Writable bool
	// Allow, where it is not empty, lists the paths below the directory that
	// are exported; of the directories on the way only those names are shown.
	Allow []string
	// Hide lists paths that the guest gets nothing of: a directory is shown,
	// but empty and not to be changed, so that the guest has a place to mount
	// its own; any other file is not there. A longer path in Allow wins.
	// File systems of the kernel (proc, sysfs, cgroups, …) mounted below the
	// directory are hidden without being listed.
	Hide []string
	// Public shows only what any user of the host may see, whoever the server
	// runs as: a directory is entered and listed, and a file read, where its
	// permissions say so for others. A guest's kernel is not trusted with
	// /etc/shadow because it would not show it to its users.
	Public bool
	// Owners maps users and groups.
	Owners Owners
	// KeepSetuid lets the guest make setuid and setgid programs. Without it
	// the bits are taken off what it makes, and off an existing program that
	// it writes to: a guest with a file of root's on the host and a user there
	// with a shell would be root there.
	KeepSetuid bool
}

// An Export is a directory tree that guests may be given. It serves any number
// of connections.
type Export struct {
	opts   Options
	gate   *gate
	root   *node
	path   string // of the root, as the kernel names it
	hidden map[fileID]bool
}

// Open makes an export of the directory dir, which stays the same directory
// when it is renamed.
func Open(dir string, opts Options) (*Export, error) {
	g, err := newGate(opts.Allow, opts.Hide)
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", dir, err)
	}
	for _, ranges := range [][]IDRange{opts.Owners.UIDs, opts.Owners.GIDs} {
		for _, r := range ranges {
			if r.Size > keep-r.Guest || r.Size > keep-r.Host {
				return nil, fmt.Errorf("export %s: ids %d of the guest to %d of the host, %d of them: past the last id", dir, r.Guest, r.Host, r.Size)
			}
		}
	}
	// The user's own path may go through symbolic links.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "export", Path: dir, Err: err}
	}
	n, err := newNode(fd)
	if err != nil {
		return nil, &os.PathError{Op: "export", Path: dir, Err: err}
	}
	e := &Export{opts: opts, gate: g, root: n, hidden: map[fileID]bool{}}
	if err := e.prepare(); err != nil {
		e.Close()
		return nil, fmt.Errorf("export %s: %w", dir, err)
	}
	return e, nil
}

// prepare finds out what the later calls stand on.
func (e *Export) prepare() error {
	// The step of every walk; without it (before Linux 5.6, or under a seccomp
	// filter of that age) nothing is exported.
	self, err := openBelow(e.root.fd, ".")
	if err != nil {
		return fmt.Errorf("openat2: %w", err)
	}
	unix.Close(self)
	var fs unix.Statfs_t
	if err := unix.Statfs("/proc/self/fd", &fs); err != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("/proc is not mounted")
	}
	if ofKernel(e.root.fd) {
		return fmt.Errorf("it is on a file system of the kernel")
	}
	if e.path, err = os.Readlink(procPath(e.root.fd)); err != nil {
		return err
	}
	for _, p := range e.opts.Hide {
		names, _ := splitPath(p) // newGate has seen it
		if len(names) == 0 {
			continue
		}
		if n, err := e.find(names); err == nil {
			e.hidden[n.id] = true
			n.release()
		}
	}
	return nil
}

// find walks down names without asking the gates.
func (e *Export) find(names []string) (*node, error) {
	n := e.root.hold()
	for _, name := range names {
		next, err := n.open(name)
		n.release()
		if err != nil {
			return nil, err
		}
		n = next
	}
	return n, nil
}

// Close ends the export. Connections that are served keep what they have open.
func (e *Export) Close() error {
	e.root.release()
	return nil
}

// modeFor returns the permission bits that a file of the guest's gets.
func (e *Export) modeFor(mode uint32, dir bool) uint32 {
	mode &= 0o7777
	if !e.opts.KeepSetuid {
		mode &^= unix.S_ISUID
		if !dir { // on a directory it only says which group new files get
			mode &^= unix.S_ISGID
		}
	}
	return mode
}
