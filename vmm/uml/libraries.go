package uml

import (
	"fmt"
	"os"
	"path/filepath"

	"sekimori/vmm/uml/jail"
	"sekimori/vmm/uml/kernel"
)

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

// cgroupFor makes the machine's control group, and hands its entrances to the stage.
func (l *launch) cgroupFor(spec *jail.Spec) error {
	if l.c.Cgroup == "" {
		return nil
	}
	g, err := newCgroup(l.c.Cgroup, limits{memory: spec.Tmp + hostOverhead, cpus: l.c.CPUs})
	if err != nil {
		return err
	}
	l.group = g
	fds, err := g.entrances()
	l.close = append(l.close, fds...)
	if err != nil {
		return err
	}
	if g.unified {
		spec.Unified = fds[0]
		return nil
	}
	spec.Cgroup = fds
	return nil
}
