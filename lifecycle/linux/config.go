package linux

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sekimori/lifecycle/bundle"
)

// A Config says which container to make, and for whom.
type Config struct {
	// ID is POD/CONTAINER; each part matches [a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}.
	ID string
	// Place tells apart containers of one ID, where several state directories
	// have one each. It may be empty.
	Place string
	// Spec is read by Create only, and never written to.
	Spec *bundle.Spec
	// Stdio are the workload's descriptors 0 to 2; nil is /dev/null. They stay
	// the caller's. If the specification wants a terminal, Stdio[0] is the
	// slave of a pseudo terminal; it becomes the controlling terminal.
	Stdio [3]*os.File
	// StateDir is a directory for scratch files. Nothing is written there at
	// present; it may be empty.
	StateDir string
	// IDBase is the host's id for the container's id 0. The container has 65536
	// ids. It counts only if the specification asks for a new user namespace
	// and does not map ids itself.
	IDBase uint32
	// Shifted are sources of mounts, and root directories, whose files are shown
	// with owners of the container's range already, by whoever serves them.
	Shifted []string
	// Detached lets the container live on when this process dies. Otherwise the
	// kernel kills it then.
	Detached bool
	// Log may be nil.
	Log *slog.Logger
}

// idCount is the number of ids of a container: one for each a 16-bit id has,
// as image formats and distributions assume.
const idCount = 65536

// check validates c and fills in what is optional.
func (c *Config) check() error {
	pod, name, has := strings.Cut(c.ID, "/")
	if !bundle.ValidName(pod) || has && !bundle.ValidName(name) {
		return fmt.Errorf("container id %q is not POD/CONTAINER", c.ID)
	}
	if c.Spec == nil {
		return fmt.Errorf("container %s: no specification", c.ID)
	}
	if err := c.Spec.Validate(); err != nil {
		return err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.newNS(specs.UserNamespace) && len(c.linux().UIDMappings) == 0 && (c.IDBase == 0 || uint64(c.IDBase)+idCount > 1<<32-1) {
		return fmt.Errorf("container %s: id base %d: want a range of %d host ids that leaves out root", c.ID, c.IDBase, idCount)
	}
	return nil
}

func (c *Config) linux() *specs.Linux { return c.Spec.OCI.Linux }

// namespace returns the entry of the given type, or nil: the host's is shared.
func (c *Config) namespace(t specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i, n := range c.linux().Namespaces {
		if n.Type == t {
			return &c.linux().Namespaces[i]
		}
	}
	return nil
}

// newNS says whether the container gets a new namespace of type t.
func (c *Config) newNS(t specs.LinuxNamespaceType) bool {
	n := c.namespace(t)
	return n != nil && n.Path == ""
}

// inUserNS says whether the container is in a user namespace, new or joined.
func (c *Config) inUserNS() bool { return c.namespace(specs.UserNamespace) != nil }

// idmapped says whether files are to be shown with their owners moved into the
// container's range: so whenever the range is ours. A specification with its
// own mappings has its files owned accordingly (OCI runtime-spec 1.3, config-linux).
func (c *Config) idmapped() bool {
	return c.newNS(specs.UserNamespace) && len(c.linux().UIDMappings) == 0
}

// shows says whether the owners of files below path are to be moved: see
// idmapped.
func (c *Config) shows(path string) bool { return c.idmapped() && !slices.Contains(c.Shifted, path) }

// mappings returns the id maps of the container's user namespace.
func (c *Config) mappings() (uids, gids []specs.LinuxIDMapping) {
	l := c.linux()
	if len(l.UIDMappings) > 0 {
		return l.UIDMappings, l.GIDMappings
	}
	all := []specs.LinuxIDMapping{{ContainerID: 0, HostID: c.IDBase, Size: idCount}}
	return all, all
}

// cgroupPath is the container's place below the root of each hierarchy. By
// default it is one directory: each level above it would be one more group to
// make and to remove in every v1 hierarchy, 1.5 ms of a start in all. Its name
// has the place in it: who cleans up after a dead supervisor kills what is in
// the recorded directory, and that must not be a living pod of the same name
// from another state directory.
func (c *Config) cgroupPath() string {
	p := c.linux().CgroupsPath
	switch {
	case p == "":
		p = "/seki+" + strings.ReplaceAll(c.ID, "/", "+") // a + is in no name
		if c.Place != "" {
			p += "+" + c.Place
		}
		return p
	case strings.HasPrefix(p, "/"):
		return path.Clean(p)
	default:
		return path.Join("/seki", p)
	}
}
