package uml

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sekimori/vmm/uml/jail"
)

const cgroupRoot = "/sys/fs/cgroup"

// hostOverhead is what a machine may take of the host beside the guest's
// memory: the kernel's image and the page tables of its stubs. 20 MB measured
// for a machine that does nothing.
const hostOverhead = 128 << 20

// hostProcesses bounds them where there is a pids controller.
const hostProcesses = 8192

// limits of a machine.
type limits struct {
	memory int64
	cpus   float64
}

// A cgroup is a machine's own: one directory on version 2, one a controller
// on version 1.
type cgroup struct {
	unified bool
	dirs    []string
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

// newCgroup makes the group at path and sets its limits.
func newCgroup(path string, l limits) (*cgroup, error) {
	if clean := filepath.Clean("/" + path); clean == "/" || strings.Contains(path, "..") {
		return nil, fmt.Errorf("cgroup %q: not a path below a hierarchy", path)
	}
	path = filepath.Clean("/" + path)
	pids := int64(hostProcesses)
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &l.memory},
		Pids:   &specs.LinuxPids{Limit: &pids},
	}
	if l.cpus > 0 {
		period := uint64(100_000)
		quota := max(int64(l.cpus*float64(period)), 1000)
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	g := &cgroup{}
	if err := g.make(path, r); err != nil {
		return nil, errors.Join(fmt.Errorf("cgroup %s: %w", path, err), g.remove())
	}
	return g, nil
}

func (g *cgroup) make(path string, r *specs.LinuxResources) error {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: cgroupRoot, Err: err}
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		g.unified, g.dirs = true, []string{filepath.Join(cgroupRoot, path)}
		_, err := cgroup2.NewManager(cgroupRoot, path, cgroup2.ToResources(r))
		return err
	}
	var subs []cgroup1.Subsystem
	for _, s := range []cgroup1.Subsystem{cgroup1.NewMemory(cgroupRoot), cgroup1.NewPids(cgroupRoot), cgroup1.NewCpu(cgroupRoot)} {
		name := string(s.Name())
		if _, err := os.Stat(filepath.Join(cgroupRoot, name, "cgroup.procs")); err == nil {
			subs = append(subs, s)
			g.dirs = append(g.dirs, filepath.Join(cgroupRoot, name, path))
		} else if name == "memory" || name == "cpu" && r.CPU != nil {
			return fmt.Errorf("no %s controller below %s", name, cgroupRoot)
		}
	}
	_, err := cgroup1.New(cgroup1.StaticPath(path), r, cgroup1.WithHierarchy(func() ([]cgroup1.Subsystem, error) { return subs, nil }))
	return err
}

// HasCgroups reports whether the host's cgroups can bound a machine's memory.
func HasCgroups() bool {
	var st unix.Statfs_t
	if unix.Statfs(cgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return true
	}
	_, err := os.Stat(filepath.Join(cgroupRoot, "memory", "cgroup.procs"))
	return err == nil
}

// CgroupDirs are the directories that a machine with this Config.Cgroup has, for
// whoever must remove what a killed supervisor left.
func CgroupDirs(path string) []string {
	path = filepath.Clean("/" + path)
	var st unix.Statfs_t
	if unix.Statfs(cgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{filepath.Join(cgroupRoot, path)}
	}
	var dirs []string
	for _, name := range []string{"memory", "pids", "cpu"} {
		dirs = append(dirs, filepath.Join(cgroupRoot, name, path))
	}
	return dirs
}

// entrances are what the stage needs to enter the group.
func (g *cgroup) entrances() (files []*os.File, err error) {
	for _, d := range g.dirs {
		name, flags := filepath.Join(d, "tasks"), unix.O_WRONLY
		if g.unified {
			name, flags = d, unix.O_PATH|unix.O_DIRECTORY
		}
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return files, &os.PathError{Op: "open", Path: name, Err: err}
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return files, nil
}

// remove removes the group, and the directories of ours above it that are
// empty with it. A group whose last process has just ended is busy for a moment.
func (g *cgroup) remove() error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, d := range g.dirs {
		if err := removeGroup(d); err != nil {
			errs = append(errs, err)
			continue
		}
		for parent := filepath.Dir(d); strings.Contains(parent+"/", "/seki/"); parent = filepath.Dir(parent) {
			if unix.Rmdir(parent) != nil {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// removeGroup tries for a second and a half.
func removeGroup(dir string) error {
	for delay := 100 * time.Microsecond; ; delay *= 2 {
		err := unix.Rmdir(dir)
		switch {
		case err == nil || errors.Is(err, unix.ENOENT):
			return nil
		case delay > time.Second:
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		time.Sleep(delay)
	}
}
