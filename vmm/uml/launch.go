package uml

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sekimori/vmm/uml/jail"
	"sekimori/vmm/uml/kernel"
)

// A launch holds what a start needs and the machine does not.
type launch struct {
	c     *Config
	close []*os.File
	group *cgroup // until the machine has it
}

func (l *launch) release() {
	for _, f := range l.close {
		f.Close()
	}
	if l.group != nil {
		l.group.remove()
	}
}

func (l *launch) open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err == nil {
		l.close = append(l.close, f)
	}
	return f, err
}

func (l *launch) start(ctx context.Context, info *kernel.Info) (*Machine, error) {
	c := l.c
	spec := &jail.Spec{
		Args: c.commandLine(), Env: environment, UID: c.UID, GID: c.GID, Filter: filterFor(info),
		Files: map[string]*os.File{}, Sockets: map[string]*os.File{},
		Tmp: c.Memory + 4<<20, // UML's own files beside the memory
	}
	if spec.UID == 0 {
		spec.UID = nobody
	}
	if spec.GID == 0 {
		spec.GID = nobody
	}
	var err error
	if spec.Program, err = l.open(c.Kernel); err != nil {
		return nil, err
	}
	if err := l.libraries(info, spec.Files); err != nil {
		return nil, err
	}
	if c.InitRDPath != "" {
		spec.Shown = map[string]string{initrdPath: c.InitRDPath}
	}
	if c.InitRD != nil {
		st, err := c.InitRD.Stat()
		if err != nil {
			return nil, err
		}
		spec.Files[initrdPath] = c.InitRD
		spec.Tmp += st.Size()
	}
	if err := l.cgroupFor(spec); err != nil {
		return nil, err
	}
	sockets, err := l.sockets(spec)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	spec.Stdout = w
	p, err := jail.Start(ctx, spec)
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("jail: %w", err)
	}
	m := &Machine{process: p, console: newConsole(r, c.Console), cgroup: l.group, done: make(chan struct{})}
	l.group = nil
	if m.sockets, err = listeners(sockets); err != nil {
		m.Kill()
		m.wait()
		return nil, err
	}
	return m, nil
}

// filterFor chooses the list of system calls: what is known to be enough for a
// kernel as ours, and more for what has a loader, is of another age or starts its
// stubs by execve.
func filterFor(info *kernel.Info) jail.Filter {
	if info.Static && info.Before(6, 13) && !info.Before(6, 12) {
		return jail.Narrow
	}
	return jail.Wide
}

// sockets makes one for each device. The stage binds and listens on it in the
// jail, so that the host has no path to it, and accepting on it here works
// because it is the same open file.
func (l *launch) sockets(spec *jail.Spec) ([]*os.File, error) {
	var all []*os.File
	for i := range l.c.Devices {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("socket of device %d: %w", i, err)
		}
		f := os.NewFile(uintptr(fd), socketName(i))
		l.close = append(l.close, f)
		spec.Sockets[socketName(i)] = f
		all = append(all, f)
	}
	return all, nil
}

func listeners(sockets []*os.File) ([]net.Listener, error) {
	var all []net.Listener
	for i, f := range sockets {
		n, err := net.FileListener(f)
		if err != nil {
			for _, a := range all {
				a.Close()
			}
			return nil, fmt.Errorf("socket of device %d: %w", i, err)
		}
		all = append(all, n)
	}
	return all, nil
}

// libraryDirs is where a loader looks for libraries without a cache or a path
// of its own, on Debian and elsewhere.
var libraryDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// libraries finds the loader of a kernel that is not static, and what that
// will look for: a distribution's kernel needs the C library and no more.
func (l *launch) libraries(info *kernel.Info, files map[string]*os.File) error {
	if info.Static {
		return nil
	}
	f, err := l.open(info.Interp)
	if err != nil {
		return fmt.Errorf("the kernel's loader: %w", err)
	}
	files[filepath.Clean(info.Interp)] = f
	for _, name := range info.Needed {
		if name != filepath.Base(name) {
			return fmt.Errorf("the kernel's library %q: not a plain name", name)
		}
		if err := l.library(name, files); err != nil {
			return err
		}
	}
	return nil
}

func (l *launch) library(name string, files map[string]*os.File) error {
	for _, dir := range libraryDirs {
		if f, err := l.open(filepath.Join(dir, name)); err == nil {
			files[filepath.Join(dir, name)] = f
			return nil
		}
	}
	return fmt.Errorf("the kernel's library %s: not found", name)
}
