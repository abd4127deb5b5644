package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/initramfs"
)

// archivePrefix begins the names of the archives that are kept, and archivesKept
// is how many of them, the ones used last.
const (
	archivePrefix = "initramfs-"
	archivesKept  = 3
)

// guestArchive is the guest's first file system: this program, and the device
// that process 1 needs to complain on. It is the same for every machine, so it is
// kept in cache, and path names it; where it cannot be, f holds it, in memory.
func guestArchive(cache string) (f *os.File, path string, err error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, "", err
	}
	defer self.Close()
	id, err := buildOf(self)
	if err != nil {
		return nil, "", err
	}
	path = filepath.Join(cache, archivePrefix+id)
	if ours(path) {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // it was used: at worst it is made again one day
		return nil, path, nil
	}
	if err := keepArchive(cache, path, self); err == nil {
		return nil, path, nil
	}
	f, err = inMemory("initramfs", func(w io.Writer) error { return writeArchive(w, self) })
	return f, "", err
}

// buildOf tells builds of this program apart: the Go build id is a hash of its
// content (cmd/go/internal/work/buildid.go). A program that needs a dynamic
// loader is refused: no guest has one.
func buildOf(f *os.File) (string, error) {
	e, err := elf.NewFile(f)
	if err != nil {
		return "", err
	}
	if err := static(e); err != nil {
		return "", err
	}
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	s := e.Section(".note.go.buildid")
	if s == nil {
		return "", errors.New("this seki has no build id")
	}
	note, err := s.Data()
	if err != nil || len(note) < 16 {
		return "", fmt.Errorf("build id of this seki: %d bytes, %v", len(note), err)
	}
	parts := strings.Split(strings.TrimRight(string(note[16:]), "\x00"), "/")
	return fmt.Sprintf("%s-%x", strings.Map(filename, parts[len(parts)-1]), st.Size()), nil
}

// filename keeps what is safe in the name of a file.
func filename(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
		return r
	}
	return '.'
}

// static refuses a program that needs a dynamic loader.
func static(e *elf.File) error {
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("this seki is linked dynamically, and a guest has no libraries: build it with CGO_ENABLED=0, as make build does")
		}
	}
	return nil
}

// ours reports whether path is a whole archive that nobody but us can have made.
func ours(path string) bool {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() || st.Mode&0o222 != 0 {
		return false
	}
	return oursAlone(filepath.Dir(path))
}

// oursAlone reports whether nobody else can put a file into the directory, or
// another in a file's place.
func oursAlone(dir string) bool {
	var st unix.Stat_t
	return unix.Lstat(dir, &st) == nil && int(st.Uid) == os.Geteuid() && st.Mode&0o022 == 0
}

// keepArchive makes an archive in the cache, whole or not at all, and removes
// those that were not used for longest.
func keepArchive(cache, path string, self *os.File) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	if !oursAlone(cache) {
		return fmt.Errorf("%s: others may write to it", cache)
	}
	f, err := os.CreateTemp(cache, "."+archivePrefix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	err = errors.Join(writeArchive(f, self), f.Chmod(0o444))
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	all, err := filepath.Glob(filepath.Join(cache, archivePrefix+"*"))
	if err != nil {
		return err
	}
	used := func(path string) time.Time {
		st, err := os.Lstat(path)
		if err != nil {
			return time.Time{}
		}
		return st.ModTime()
	}
	slices.SortFunc(all, func(a, b string) int { return used(b).Compare(used(a)) })
	for _, old := range all[min(archivesKept, len(all)):] {
		if err := os.Remove(old); err != nil {
			return err
		}
	}
	return nil
}

func writeArchive(w io.Writer, self *os.File) error {
	st, err := self.Stat()
	if err != nil {
		return err
	}
	if _, err := self.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return initramfs.Write(w, []initramfs.Entry{
		{Name: "dev", Mode: fs.ModeDir | 0o755},
		{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Name: "seki", Mode: 0o755, Data: self, Size: st.Size()},
	})
}
