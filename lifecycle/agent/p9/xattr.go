package p9

import (
	"bytes"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Extended attributes: those of the namespace "user", which mean nothing to
// the host's kernel. The others would have it act for the guest (capabilities
// of programs, labels, overlayfs' own marks), or are the guest's kernel's own
// (access control lists), so they are EOPNOTSUPP, which overlayfs on top of the
// mount takes for an answer.
const (
	userAttr = "user."
	// maxAttr is the longest value and the longest list, XATTR_SIZE_MAX.
	maxAttr = 64 << 10
	// maxAttrs is how many values one connection holds at a time.
	maxAttrs = 32
)

// An attr is the value of an attribute, in memory: read whole when its fid is
// made, or gathered to be set when its fid is clunked.
type attr struct {
	held  chan struct{} // has one in it for this attr; its fid takes it out
	name  string
	set   bool
	flags int

	mu    sync.Mutex // guards value and got
	value []byte
	got   int // bytes written, of a value to be set
}

// checkAttr says whether the attribute name of f is one we speak of.
func checkAttr(f *fid, name string) error {
	switch {
	case f.attr != nil:
		return unix.EINVAL
	case name != "" && (!strings.HasPrefix(name, userAttr) || strings.IndexByte(name, 0) >= 0):
		return unix.EOPNOTSUPP
	case len(name) > maxName:
		return unix.ERANGE
	case f.node.kind != unix.S_IFREG && !f.node.isDir():
		return unix.EOPNOTSUPP // xattr(7): user attributes are for these two
	}
	return nil
}

// Txattrwalk: fid[4] newfid[4] name[s]; Rxattrwalk: size[8]. The new fid reads
// the value, or the names where there is no name.
func (r *request) xattrWalk() error {
	id, newID, name := r.d.u32(), r.d.u32(), r.d.str()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	if err := checkAttr(f, name); err != nil {
		return err
	}
	if err := r.holdAttr(); err != nil {
		return err
	}
	value, err := readAttrOf(f, name)
	if err != nil {
		<-r.attrs
		return err
	}
	if err := r.fids.add(newID, f.reopened(nil, &attr{held: r.attrs, name: name, value: value})); err != nil {
		return err
	}
	r.e.u64(uint64(len(value)))
	return nil
}

// holdAttr takes a place in memory for a value; the fid gives it back.
func (c *session) holdAttr() error {
	select {
	case c.attrs <- struct{}{}:
		return nil
	default:
		return unix.ENFILE
	}
}

// readAttrOf returns the value of an attribute, or the names of all, each with
// a NUL behind it.
func readAttrOf(f *fid, name string) ([]byte, error) {
	if f.gate.empty() {
		if name == "" {
			return nil, nil
		}
		return nil, unix.ENODATA
	}
	get := func(b []byte) (int, error) { return unix.Getxattr(f.node.path(), name, b) }
	if name == "" {
		get = func(b []byte) (int, error) { return unix.Listxattr(f.node.path(), b) }
	}
	size, err := get(nil)
	if err != nil || size == 0 {
		return nil, err
	}
	buf := make([]byte, min(size, maxAttr))
	n, err := get(buf)
	if err != nil {
		return nil, err
	}
	buf = buf[:n]
	if name != "" {
		return buf, nil
	}
	var users []byte
	for len(buf) > 0 {
		one, rest, _ := bytes.Cut(buf, []byte{0})
		if bytes.HasPrefix(one, []byte(userAttr)) {
			users = append(append(users, one...), 0)
		}
		buf = rest
	}
	return users, nil
}

// Txattrcreate: fid[4] name[s] size[8] flags[4]; Rxattrcreate. The fid becomes
// that of the attribute; what is written to it is set when it is clunked. A
// size of 0 removes the attribute, as Linux has it.
func (r *request) xattrCreate() error {
	id, name, size, flags := r.d.u32(), r.d.str(), r.d.u64(), r.d.u32()
	if err := r.d.end(); err != nil {
		return err
	}
	f, err := r.fids.use(id)
	if err != nil {
		return err
	}
	defer f.release()
	switch err := checkAttr(f, name); {
	case err != nil:
		return err
	case f.opened != nil, name == "", flags > unix.XATTR_REPLACE:
		return unix.EINVAL
	case size > maxAttr:
		return unix.ENOSPC
	}
	if err := f.writable(); err != nil {
		return err
	}
	if err := r.holdAttr(); err != nil {
		return err
	}
	a := &attr{held: r.attrs, name: name, set: true, flags: int(flags), value: make([]byte, size)}
	return r.fids.replace(id, f, f.reopened(nil, a))
}

func (r *request) readAttr(a *attr, offset uint64, count int) error {
	if a.set {
		return unix.EBADF
	}
	value := a.value[min(offset, uint64(len(a.value))):]
	value = value[:min(count, len(value))]
	if err := r.room(4 + len(value)); err != nil {
		return err
	}
	r.e.u32(uint32(len(value)))
	r.e.b = append(r.e.b, value...)
	return nil
}

func (r *request) writeAttr(a *attr, offset uint64, data []byte) error {
	if !a.set {
		return unix.EBADF
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if offset != uint64(a.got) || len(data) > len(a.value)-a.got {
		return unix.EINVAL
	}
	a.got += copy(a.value[a.got:], data)
	r.e.u32(uint32(len(data)))
	return nil
}

// finish is the end of an attribute's fid, which is out of the table.
func (a *attr) finish(f *fid) error {
	if !a.set {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.got != len(a.value):
		return unix.EINVAL
	case len(a.value) == 0:
		return unix.Removexattr(f.node.path(), a.name)
	}
	return unix.Setxattr(f.node.path(), a.name, a.value, a.flags)
}
