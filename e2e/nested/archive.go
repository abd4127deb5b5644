package nested

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"sekimori/vmm/initramfs"
)

// A File is one of L1's.
type File struct {
	Name string // below the root, without a leading slash
	From string // path of the file that it is a copy of; or
	Data []byte // what is in it
	Mode fs.FileMode
}

// Busybox is the file that gives L1 a shell and its friends.
var Busybox = File{Name: "bin/busybox", From: "/bin/busybox", Mode: 0o755}

// writeArchive writes the first file system of L1.
func writeArchive(to string, cfg Config) (err error) {
	modules, err := cfg.Kernel.Modules(cfg.Modules...)
	if err != nil {
		return err
	}
	files := append(slices.Clone(cfg.Files), File{Name: "init", From: cfg.Init, Mode: 0o755})
	for i, m := range modules {
		files = append(files, File{Name: fmt.Sprintf("modules/%02d-%s", i, path.Base(m)), From: m, Mode: 0o644})
	}
	a := archive{dirs: map[string]bool{}}
	defer a.close()
	// The kernel's own first process has these two.
	a.add(initramfs.Entry{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1})
	for _, f := range files {
		if err := a.file(f); err != nil {
			return err
		}
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	return initramfs.Write(out, a.entries)
}

type archive struct {
	entries []initramfs.Entry
	dirs    map[string]bool
	open    []io.Closer
}

// add adds an entry, and the directories above it before.
func (a *archive) add(e initramfs.Entry) {
	for i := range e.Name {
		if dir := e.Name[:i]; e.Name[i] == '/' && !a.dirs[dir] {
			a.dirs[dir] = true
			a.entries = append(a.entries, initramfs.Entry{Name: dir, Mode: fs.ModeDir | 0o755})
		}
	}
	a.entries = append(a.entries, e)
}

func (a *archive) file(f File) error {
	e := initramfs.Entry{Name: strings.TrimPrefix(f.Name, "/"), Mode: f.Mode, Data: bytes.NewReader(f.Data), Size: int64(len(f.Data))}
	if f.From != "" {
		src, err := os.Open(f.From)
		if err != nil {
			return err
		}
		a.open = append(a.open, src)
		st, err := src.Stat()
		if err != nil {
			return err
		}
		e.Data, e.Size = src, st.Size()
	}
	a.add(e)
	return nil
}

func (a *archive) close() {
	for _, c := range a.open {
		c.Close()
	}
}
