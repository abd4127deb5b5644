package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sekimori/vmm/initramfs"
	"sekimori/vmm/kmod"
)

// guestModules are what the agent and the containers stand on, and a
// distribution's kernel has in modules: cards, the agent's way to its host,
// root file systems and volumes, layers over them, links on a shared card.
var guestModules = []string{"virtio_net", "vmw_vsock_virtio_transport", "9pnet_fd", "9p", "overlay", "macvlan"}

// resolveModules finds the files of a kernel's modules, in the order to load them.
func resolveModules(dir string, names []string) ([]string, error) {
	tree, err := kmod.Open(dir)
	if err != nil {
		return nil, err
	}
	files, err := tree.Resolve(names...)
	var missing *kmod.MissingError
	if errors.As(err, &missing) && strings.HasPrefix(missing.Module, "9p") {
		return nil, fmt.Errorf("%w: it cannot mount root file systems\n    Debian's cloud kernels have no 9P, those of linux-image-amd64 have", err)
	}
	return files, err
}

// modulesDir is where the guest finds them.
const modulesDir = "modules"

// moduleArchive has the modules in the order to load them, in memory.
func moduleArchive(files []string) (*os.File, error) {
	return inMemory(modulesDir, func(w io.Writer) error { return writeModules(w, files) })
}

// withModules is the archive that is initrd, or the file at path, with such an archive
// behind it, which the kernel unpacks over it.
func withModules(initrd *os.File, path string, files []string) (*os.File, error) {
	if initrd == nil {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		initrd = f
	}
	return inMemory("initramfs", func(w io.Writer) error {
		if _, err := io.Copy(w, initrd); err != nil {
			return err
		}
		return writeModules(w, files)
	})
}

// inMemory is a file that write fills, and that is read from its start.
func inMemory(name string, write func(io.Writer) error) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err = write(f); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func writeModules(w io.Writer, files []string) error {
	entries := []initramfs.Entry{{Name: modulesDir, Mode: fs.ModeDir | 0o700}}
	for i, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		entries = append(entries, initramfs.Entry{
			Name: fmt.Sprintf("%s/%03d-%s", modulesDir, i, filepath.Base(path)), Mode: 0o400, Data: f, Size: st.Size(),
		})
	}
	return initramfs.Write(w, entries)
}

// loadModules is the guest's side, before anything else: it loads them, and gives
// their memory back. A guest without such a directory has what it needs built in.
func loadModules() error {
	dir := "/" + modulesDir
	all, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := loadModule(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("load %s: %w", e.Name(), err)
		}
	}
	return os.RemoveAll(dir)
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(path) != ".ko" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE // the kernel unpacks what it was installed with
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return os.NewSyscallError("finit_module", err)
	}
	return nil
}
