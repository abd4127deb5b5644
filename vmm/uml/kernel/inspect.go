package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Info is what a kernel file says of itself.
type Info struct {
	Release string `json:"release"` // 6.12.117-sandbox, as uname -r says it in the guest
	Major   int    `json:"major"`
	Minor   int    `json:"minor"`

	BTF     bool `json:"btf"`     // the type information that introspection reads
	Symbols bool `json:"symbols"` // a symbol table
	HostFS  bool `json:"hostfs"`  // file systems of the host can be mounted: guest root walks out of the directory it is given
	VirtIO  bool `json:"virtio"`  // virtio devices over vhost-user, which machines have
	Static  bool `json:"static"`  // needs no loader and no library
	Modules bool `json:"modules"` // what is not built in may be in modules beside it, as distributions have it
	Seccomp bool `json:"seccomp"` // newer UML's other mode is built in, which is no boundary; it is never asked for

	Interp   string   `json:"interp,omitempty"` // the loader of one that is not static
	Needed   []string `json:"needed,omitempty"` // its libraries, by name
	Warnings []string `json:"warnings,omitempty"`
}

// maxImage bounds what Inspect reads of a file that anybody may have named: an
// image with its debug information is 120 MB.
const maxImage = 1 << 30

// Inspect reads the kernel file at path. It is an error if that is no
// User-Mode Linux kernel for this architecture.
func Inspect(path string) (Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	info, err := inspect(f)
	if err != nil {
		return Info{}, fmt.Errorf("kernel %s: %w", path, err)
	}
	return info, nil
}

func inspect(f *os.File) (Info, error) {
	st, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxImage {
		return Info{}, errors.New("not a regular file of at most 1 GB")
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return Info{}, fmt.Errorf("not an ELF file (a bzImage is not for User-Mode Linux): %w", err)
	}
	defer e.Close()
	if e.Machine != elf.EM_X86_64 || e.Class != elf.ELFCLASS64 {
		return Info{}, fmt.Errorf("it is for %v, not x86-64", e.Machine)
	}
	if e.Section(".uml.setup.init") == nil {
		return Info{}, errors.New("an ELF file, but no User-Mode Linux kernel (make ARCH=um)")
	}
	info := Info{BTF: e.Section(".BTF") != nil, Symbols: e.Section(".symtab") != nil}
	if err := info.strings(e); err != nil {
		return Info{}, err
	}
	info.linking(e)
	info.warn()
	return info, nil
}

// strings looks for the banner and for the configuration, which is there as
// the text that --showconfig prints.
func (i *Info) strings(e *elf.File) error {
	config := false
	for _, s := range e.Sections {
		// The banner and the help are read-only data, the configuration is
		// forgotten after start-up; all else would take ten times as long.
		if s.Type != elf.SHT_PROGBITS || s.Name != ".rodata" && s.Name != "init.data" && s.Name != ".init.data" {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return fmt.Errorf("section %s: %w", s.Name, err)
		}
		if at := bytes.Index(data, []byte("Linux version ")); at >= 0 && i.Release == "" {
			i.release(data[at+len("Linux version "):])
		}
		has := func(option string) bool { return bytes.Contains(data, []byte("CONFIG_"+option+"=y\n")) }
		if has("UML") {
			config = true
			i.HostFS = has("HOSTFS")
			i.VirtIO = has("VIRTIO_UML")
			i.Modules = has("MODULES")
		}
		i.Seccomp = i.Seccomp || bytes.Contains(data, []byte("seccomp=<on/"))
	}
	if i.Release == "" {
		return errors.New("it has no version banner")
	}
	if !config {
		i.HostFS, i.VirtIO = true, true
		i.Warnings = append(i.Warnings, "it does not say how it was configured")
	}
	return nil
}

// release reads the version at the start of what follows the banner.
func (i *Info) release(rest []byte) {
	word, _, ok := strings.Cut(string(rest[:min(len(rest), 128)]), " ")
	major, after, _ := strings.Cut(word, ".")
	minor := strings.FieldsFunc(after, func(r rune) bool { return r < '0' || r > '9' })
	a, err := strconv.Atoi(major)
	if !ok || err != nil || len(minor) == 0 {
		return
	}
	b, err := strconv.Atoi(minor[0])
	if err != nil {
		return
	}
	i.Release, i.Major, i.Minor = word, a, b
}

func (i *Info) linking(e *elf.File) {
	i.Static = true
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		i.Static = false
		if b, err := io.ReadAll(p.Open()); err == nil {
			i.Interp = strings.TrimRight(string(b), "\x00")
		}
	}
	if !i.Static {
		i.Needed, _ = e.ImportedLibraries()
	}
}

// Before reports whether the kernel is older than major.minor.
func (i *Info) Before(major, minor int) bool {
	return i.Major < major || i.Major == major && i.Minor < minor
}

func (i *Info) warn() {
	if i.HostFS {
		i.Warnings = append(i.Warnings, "hostfs is built in: the jail keeps guest root from the host's files, the kernel would not")
	}
	if !i.BTF {
		i.Warnings = append(i.Warnings, "no BTF: senders on a shared card cannot be told apart")
	}
	if !i.VirtIO {
		i.Warnings = append(i.Warnings, "no VIRTIO_UML: a machine has no card and no channel with it")
	}
}

// wantsOurs is an error unless the kernel is as our configuration makes it.
func (i *Info) wantsOurs() error {
	var wrong []string
	for _, w := range []struct {
		what string
		ok   bool
	}{{"static linking", i.Static}, {"BTF", i.BTF}, {"a symbol table", i.Symbols}, {"VIRTIO_UML", i.VirtIO}, {"no hostfs", !i.HostFS}} {
		if !w.ok {
			wrong = append(wrong, w.what)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the kernel that was built lacks %s", strings.Join(wrong, ", "))
	}
	return nil
}
