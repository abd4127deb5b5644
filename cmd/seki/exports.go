package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sekimori/lifecycle/agent"
	"sekimori/lifecycle/agent/p9"
	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/linux"
)

// exports are what a machine gets of the host's files: the directories that its
// containers name, and nothing beside them.
//
// What is read-only is served once for all containers and mounted in the guest
// at the path it has on the host, so the specifications mean the same there. A
// directory that a container may write is served to it alone, with the owners
// of its files in the container's range.
type exports struct {
	list   []agent.Export
	opened map[string]*p9.Export // by name
	shared map[string]bool       // paths that are served read-only
}

// A guestSpec is a container as the guest is to see it.
type guestSpec struct {
	spec    *bundle.Spec
	idBase  uint32
	shifted []string
}

// owners is the guest's id of the container's id 0: its range's first where it
// has a user namespace whose range is ours to choose, else root.
func (g *guestSpec) owners() uint32 {
	l := g.spec.OCI.Linux
	if l == nil || len(l.UIDMappings) > 0 {
		return 0
	}
	for _, ns := range l.Namespaces {
		if ns.Type == specs.UserNamespace && ns.Path == "" {
			return g.idBase
		}
	}
	return 0
}

// volumes is where what a container may write is mounted in the guest.
const volumes = "/run/seki/volume"

// guestIDBase is the guest's id of id 0 of its container number i.
func guestIDBase(i int) uint32 { return uint32(i+1) << 16 }

// export opens what the container needs, and returns it as the guest will see it.
func (x *exports) export(i int, s *bundle.Spec) (guestSpec, error) {
	g := guestSpec{idBase: guestIDBase(i)}
	raw, err := json.Marshal(s)
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(raw, &g.spec); err != nil {
		return g, err
	}
	if err := x.root(&g); err != nil {
		return g, fmt.Errorf("container %q: root file system: %w", s.Name, err)
	}
	for n := range g.spec.OCI.Mounts {
		m := &g.spec.OCI.Mounts[n]
		if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
			continue
		}
		if err := x.bind(&g, n, m); err != nil {
			return g, fmt.Errorf("container %q: mount %s: %w", s.Name, m.Destination, err)
		}
	}
	return g, nil
}

// root exports the root file system.
func (x *exports) root(g *guestSpec) error {
	r := &g.spec.Root
	switch {
	case r.Kind == bundle.RootHost:
		return x.hostRoot()
	case r.Overlay || g.spec.OCI.Root != nil && g.spec.OCI.Root.Readonly:
		return x.readOnly(r.Path)
	}
	at, err := x.writable(g, "root", r.Path)
	r.Path = at
	return err
}

// bind exports the source of a bind mount.
func (x *exports) bind(g *guestSpec, n int, m *specs.Mount) error {
	if slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro") {
		return x.readOnly(m.Source)
	}
	at, err := x.writable(g, strconv.Itoa(n), m.Source)
	m.Source = at
	return err
}

// hostRoot exports what host_root() shows of the host: to the guest, as to a
// stranger among the host's users, for the guest's kernel is not trusted with
// what only root may read.
func (x *exports) hostRoot() error {
	if x.opened["host"] != nil {
		return nil
	}
	e := agent.Export{Name: "host"}
	var allow []string
	for _, name := range linux.HostRootDirs() {
		st, err := os.Lstat("/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		allow = append(allow, name)
		e.Mounts = append(e.Mounts, agent.Mount{From: name, To: "/" + name, Link: st.Mode()&os.ModeSymlink != 0, Dir: st.IsDir()})
	}
	return x.open(e, "/", p9.Options{Allow: allow, Public: true})
}

// readOnly exports a file or directory for reading, once.
func (x *exports) readOnly(path string) error {
	if x.shared[path] {
		return nil
	}
	dir, allow, m, err := place(path, path)
	if err != nil {
		return err
	}
	x.shared[path] = true
	return x.open(agent.Export{Name: "ro" + strconv.Itoa(len(x.list)), Mounts: []agent.Mount{m}}, dir, p9.Options{Allow: allow, Owners: readOwners()})
}

// writable exports a file or directory to one container, and returns where it
// is in the guest.
func (x *exports) writable(g *guestSpec, name, path string) (string, error) {
	at := filepath.Join(volumes, g.spec.Name, name)
	dir, allow, m, err := place(path, at)
	if err != nil {
		return "", err
	}
	g.shifted = append(g.shifted, at)
	e := agent.Export{Name: "rw" + strconv.Itoa(len(x.list)), Mounts: []agent.Mount{m}, Write: true}
	return at, x.open(e, dir, p9.Options{Writable: true, Allow: allow, Owners: writeOwners(g.owners())})
}

// place says which directory to export for path, what of it, and where the
// guest is to have it.
func place(path, at string) (dir string, allow []string, m agent.Mount, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", nil, m, err
	}
	for _, own := range []string{"/proc", "/sys", "/dev"} {
		if path == own || strings.HasPrefix(path, own+"/") {
			return "", nil, m, fmt.Errorf("%s is the host kernel's: a machine has its own", path)
		}
	}
	if st.IsDir() {
		return path, nil, agent.Mount{From: ".", To: at, Dir: true}, nil
	}
	if !st.Mode().IsRegular() {
		return "", nil, m, fmt.Errorf("%s is neither a file nor a directory: a machine has no use for it", path)
	}
	base := filepath.Base(path)
	return filepath.Dir(path), []string{base}, agent.Mount{From: base, To: at}, nil
}

// readOwners shows an ordinary user's files as root's: on the host they cannot
// be anybody else's, and images want them to be.
func readOwners() p9.Owners {
	if os.Geteuid() == 0 {
		return p9.Owners{}
	}
	return p9.Owners{Squash: &p9.Owner{}}
}

// writeOwners shows and takes owners in a container's range of ids.
func writeOwners(base uint32) p9.Owners {
	if os.Geteuid() != 0 {
		return p9.Owners{Squash: &p9.Owner{UID: base, GID: base}}
	}
	ids := []p9.IDRange{{Guest: base, Host: 0, Size: 1 << 16}}
	return p9.Owners{UIDs: ids, GIDs: ids}
}

func (x *exports) open(e agent.Export, dir string, o p9.Options) error {
	p, err := p9.Open(dir, o)
	if err != nil {
		return err
	}
	x.list = append(x.list, e)
	x.opened[e.Name] = p
	return nil
}

// sorted are the exports in an order in which what lies below another comes
// after it.
func (x *exports) sorted() []agent.Export {
	list := slices.Clone(x.list)
	slices.SortStableFunc(list, func(a, b agent.Export) int { return len(a.Mounts[0].To) - len(b.Mounts[0].To) })
	return list
}

func (x *exports) close() error {
	var errs []error
	for _, p := range x.opened {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
