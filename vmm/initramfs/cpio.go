// Package initramfs writes the archive that a guest kernel unpacks as its first
// root file system: cpio in the format "newc"
// (Documentation/driver-api/early-userspace/buffer-format.rst).
//
//	initramfs.Write(w, []initramfs.Entry{
//		{Name: "dev", Mode: fs.ModeDir | 0o755},
//		{Name: "init", Mode: 0o755, Data: program, Size: size},
//	})
package initramfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
)

// An Entry is one file. A directory stands before what is in it.
type Entry struct {
	Name string      // below the root, without a leading slash
	Mode fs.FileMode // permissions and type: regular, directory, symbolic link or character device
	Data io.Reader   // of a regular file, Size bytes of it
	Size int64
	Link string // where a symbolic link points

	Major, Minor uint32 // of a character device
}

// mode is the entry's st_mode.
func (e *Entry) mode() (uint32, error) {
	m := uint32(e.Mode.Perm())
	for bit, value := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if e.Mode&bit != 0 {
			m |= value
		}
	}
	switch e.Mode.Type() {
	case 0:
		return m | 0o100000, nil
	case fs.ModeDir:
		return m | 0o040000, nil
	case fs.ModeSymlink:
		return m | 0o120000, nil
	case fs.ModeDevice | fs.ModeCharDevice:
		return m | 0o020000, nil
	default:
		return 0, fmt.Errorf("file type %v", e.Mode.Type())
	}
}

// check refuses what the kernel would unpack elsewhere than it says, or not at all.
func (e *Entry) check() error {
	clean := path.Clean("/" + e.Name)[1:]
	switch {
	case e.Name == "" || clean != e.Name || strings.Contains(e.Name, "\x00"):
		return errors.New("not a clean path below the root")
	case e.Size < 0 || e.Size > math.MaxUint32:
		return fmt.Errorf("%d bytes: the format has room for 4 GB", e.Size)
	case e.Mode.IsRegular() && e.Size > 0 && e.Data == nil:
		return errors.New("no data")
	case !e.Mode.IsRegular() && e.Size != 0:
		return errors.New("only a regular file has data")
	case e.Mode.Type() == fs.ModeSymlink && e.Link == "":
		return errors.New("a link to nowhere")
	}
	return nil
}

// trailer ends an archive.
const trailer = "TRAILER!!!"

// Write writes an archive of the entries, all owned by root, with the times
// and inode numbers that depend on their order alone: the same entries are the
// same bytes.
func Write(w io.Writer, entries []Entry) error {
	a := archive{w: w}
	for i := range entries {
		e := &entries[i]
		if err := e.check(); err != nil {
			return fmt.Errorf("initramfs %q: %w", e.Name, err)
		}
		mode, err := e.mode()
		if err != nil {
			return fmt.Errorf("initramfs %q: %w", e.Name, err)
		}
		data, size := e.Data, e.Size
		if e.Mode.Type() == fs.ModeSymlink {
			data, size = strings.NewReader(e.Link), int64(len(e.Link))
		}
		if err := a.entry(uint32(i+1), e, mode, data, size); err != nil {
			return fmt.Errorf("initramfs %q: %w", e.Name, err)
		}
	}
	return a.entry(0, &Entry{Name: trailer}, 0, nil, 0)
}

// An archive counts what it writes, for everything in one is padded to 4 bytes.
type archive struct {
	w io.Writer
	n int64
}

func (a *archive) Write(b []byte) (int, error) {
	n, err := a.w.Write(b)
	a.n += int64(n)
	return n, err
}

func (a *archive) pad() error {
	_, err := a.Write(make([]byte, -a.n&3))
	return err
}

// entry writes one header, name and content:
//
//	magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
func (a *archive) entry(ino uint32, e *Entry, mode uint32, data io.Reader, size int64) error {
	links := 1
	if e.Mode.IsDir() {
		links = 2
	}
	_, err := fmt.Fprintf(a, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		ino, mode, 0, 0, links, 0, size, 0, 0, e.Major, e.Minor, len(e.Name)+1, 0, e.Name)
	if err != nil {
		return err
	}
	if err := a.pad(); err != nil || size == 0 {
		return err
	}
	if n, err := io.CopyN(a, data, size); err != nil {
		return fmt.Errorf("%d of %d bytes: %w", n, size, err)
	}
	return a.pad()
}
