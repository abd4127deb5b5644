package p9

import "golang.org/x/sys/unix"

// A place is a file as a guest sees it: the file, what is said of it, and for
// whom. It is a value; whoever stores one owns a reference to its node.
type place struct {
	export *Export
	node   *node
	gate   *gate
	uid    uint32 // the guest's user who attached
}

// step returns the entry name of the directory p, with a reference of its own.
func (p place) step(name string) (place, error) {
	if err := checkName(name); err != nil {
		return place{}, err
	}
	if !p.node.isDir() {
		return place{}, unix.ENOTDIR
	}
	g, ok := p.gate.enter(name)
	if !ok {
		return place{}, unix.ENOENT
	}
	if err := p.export.public(p.node.fd, unix.S_IXOTH); err != nil {
		return place{}, err
	}
	n, err := p.node.open(name)
	if err != nil {
		return place{}, err
	}
	switch {
	case g == nil && p.export.hidden[n.id]: // under another name
		g = shut
	case g.isOpen() && n.id.dev != p.node.id.dev && ofKernel(n.fd):
		g = shut
	}
	if !g.shows(n.kind) {
		n.release()
		return place{}, unix.ENOENT
	}
	return place{p.export, n, g, p.uid}, nil
}

// public refuses what only some users of the host may do with the file, if the
// export is for strangers.
func (e *Export) public(fd int, want uint32) error {
	if !e.opts.Public {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&want != want {
		return unix.EACCES
	}
	return nil
}

// shows says whether a file of that kind appears at the gate: of what is
// hidden only directories do, to be mounted over, and on the way to what is
// allowed symbolic links do as well, for /bin is one and /bin/sh may be named.
func (g *gate) shows(kind uint32) bool {
	switch {
	case g.isOpen(), kind == unix.S_IFDIR:
		return true
	}
	return kind == unix.S_IFLNK && !g.empty()
}

// checkName refuses what is not the name of an entry.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." {
		return unix.EINVAL
	}
	if len(name) > maxName {
		return unix.ENAMETOOLONG
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return unix.EINVAL
		}
	}
	return nil
}

// mayChange says why the guest may not make, remove or rename the entry name.
func (p place) mayChange(name string) error {
	switch err := checkName(name); {
	case !p.export.opts.Writable:
		return unix.EROFS
	case err != nil:
		return err
	case !p.node.isDir():
		return unix.ENOTDIR
	case !p.gate.isOpen():
		return unix.EROFS
	case p.gate.fixed(name):
		return unix.EBUSY // as with a mount point
	}
	return nil
}

// writable says why the guest may not change the file itself.
func (p place) writable() error {
	if !p.export.opts.Writable || !p.gate.isOpen() {
		return unix.EROFS
	}
	return nil
}

func (p place) qid() qid {
	q := p.node.qid
	q.path ^= p.devKey()
	return q
}

func (p place) devKey() uint64 { return devKey(p.export.root.id.dev, p.node.id.dev) }
