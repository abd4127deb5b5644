// Package kmod finds the modules of a Linux kernel on the host, and what they
// stand on, for a guest that boots that kernel without an installed system.
//
//	dir, err := kmod.Find(kmod.Installed, "/boot/vmlinuz-6.12-amd64", release)
//	tree, err := kmod.Open(dir)
//	files, err := tree.Resolve("9p", "virtio_net") // in the order to load them
package kmod

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// A MissingError says that a kernel has neither a module nor has it built in.
type MissingError struct {
	Dir    string
	Module string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s: no module %s, and it is not built in", e.Dir, e.Module)
}

// Where kernels have their modules, below the root of a file system.
const (
	Installed = "lib/modules"     // those that hosts boot: modprobe(8)
	UML       = "lib/uml/modules" // User-Mode Linux: Debian's user-mode-linux
)

// Find returns the directory of the modules of a kernel whose image is at path
// and whose release is as uname -r says it: beside the image, or in a directory
// of kind, of the file system that the image was unpacked into or of this host's.
// The error is [fs.ErrNotExist] where there is none.
func Find(kind, path, release string) (string, error) {
	dir := filepath.Dir(path)
	try := []string{filepath.Join(dir, "modules")}
	if release != "" && release == filepath.Base(release) && release != ".." {
		for _, root := range []string{filepath.Join(dir, ".."), "/", "/usr"} {
			try = append(try, filepath.Join(root, kind, release))
		}
	}
	for _, d := range try {
		if _, err := os.Stat(filepath.Join(d, "modules.builtin")); err == nil {
			return d, nil
		}
	}
	return "", fmt.Errorf("modules of kernel %s: in %s: %w", release, strings.Join(try, ", "), fs.ErrNotExist)
}

// A Tree is the modules of one kernel.
type Tree struct {
	dir     string
	files   map[string]string   // of each module, below dir
	depends map[string][]string // as depmod says; nil where it has not run
	builtin map[string]bool
}

// Open reads what is in dir, which is as kernels install their modules.
func Open(dir string) (*Tree, error) {
	t := &Tree{dir: dir, files: map[string]string{}, builtin: map[string]bool{}}
	err := lines(filepath.Join(dir, "modules.builtin"), func(line string) { t.builtin[Name(line)] = true })
	if err != nil {
		return nil, err
	}
	depends := map[string][]string{}
	// "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko …" (modules.dep(5)).
	err = lines(filepath.Join(dir, "modules.dep"), func(line string) {
		file, on, ok := strings.Cut(line, ":")
		if !ok {
			return
		}
		name := Name(file)
		t.files[name], depends[name] = file, []string{}
		for _, f := range strings.Fields(on) {
			depends[name] = append(depends[name], Name(f))
		}
	})
	if err == nil {
		t.depends = depends
		return t, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return t, t.walk()
}

// walk finds the files of a directory that depmod has not been in.
func (t *Tree) walk() error {
	return filepath.WalkDir(t.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := filepath.Base(path); d.Type().IsRegular() && (strings.HasSuffix(base, ".ko") || strings.Contains(base, ".ko.")) {
			below, err := filepath.Rel(t.dir, path)
			if err != nil {
				return err
			}
			t.files[Name(base)] = below
		}
		return nil
	})
}

func lines(path string, each func(string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		each(s.Text())
	}
	return s.Err()
}

// Name is what a module in that file is called: as the kernel does, with
// underscores.
func Name(file string) string {
	base, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// Resolve returns the files of modules and of all that they stand on, each once,
// in an order in which they can be loaded. What is built in has none. One that is
// not there is a [*MissingError].
func (t *Tree) Resolve(names ...string) ([]string, error) {
	r := resolver{Tree: t, seen: map[string]bool{}}
	for _, n := range names {
		if err := r.add(Name(n), 0); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

type resolver struct {
	*Tree
	seen  map[string]bool
	order []string
}

// maxDepth is far beyond what modules stand on each other.
const maxDepth = 32

func (r *resolver) add(name string, depth int) error {
	file, ok := r.files[name]
	switch {
	case r.seen[name], !ok && r.builtin[name]:
		return nil
	case !ok:
		return &MissingError{r.dir, name}
	case depth == maxDepth:
		return fmt.Errorf("%s: module %s stands on too many others", r.dir, name)
	}
	r.seen[name] = true
	path := filepath.Join(r.dir, file)
	on, err := r.stands(name, path)
	if err != nil {
		return fmt.Errorf("module %s: %w", path, err)
	}
	// depmod names all of them, the nearest first.
	for _, d := range slices.Backward(on) {
		if err := r.add(d, depth+1); err != nil {
			return err
		}
	}
	r.order = append(r.order, path)
	return nil
}

// stands says what a module stands on.
func (r *resolver) stands(name, path string) ([]string, error) {
	if r.depends != nil {
		return r.depends[name], nil
	}
	return depends(path)
}

// depends reads it from the module itself.
func depends(path string) ([]string, error) {
	b, err := Read(path)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil || s.Size > 1<<20 {
		return nil, errors.New("no .modinfo")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for _, field := range strings.Split(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok {
			return strings.FieldsFunc(strings.ReplaceAll(list, "-", "_"), func(r rune) bool { return r == ',' }), nil
		}
	}
	return nil, nil
}

// maxModule bounds an unpacked module: distributions' largest has 10 MB.
const maxModule = 64 << 20

// Read returns a module unpacked.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".ko":
	case ".xz":
		r, err = xz.NewReader(f, maxModule)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule)); err == nil {
			defer z.Close()
			r = z
		}
	default:
		err = errors.New("packed in a way that is not known here")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case len(b) > maxModule:
		return nil, fmt.Errorf("%s: more than %d MiB", path, maxModule>>20)
	}
	return b, nil
}
