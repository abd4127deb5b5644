package config

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"go.starlark.net/starlark"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark/args"
)

func mountBuiltins() []*args.Builtin {
	return []*args.Builtin{{
		Name: "mount",
		Doc:  "Any file system, mounted in the container as mount(8) would; bind() and tmpfs() are shorter for the common ones.",
		Params: []args.Param{
			{Name: "destination", Type: args.String, Required: true, Doc: "where: an absolute path in the container"},
			{Name: "type", Type: args.String, Required: true, Doc: `file system type: "tmpfs", "proc", "overlay", ...`},
			{Name: "source", Type: args.String, Default: "the type", Doc: "what to mount, in the words of the file system"},
			{Name: "options", Type: args.ListOf[string](args.String), Default: "[]", Doc: `mount options: "ro", "nosuid", "size=64k"`},
		},
		Positional: 1,
		Result:     "mount",
		Call:       with(newMount),
	}, {
		Name: "bind",
		Doc:  "A file or directory of the host, seen inside the container. Read-only unless it says otherwise.",
		Params: []args.Param{
			{Name: "source", Type: args.String, Required: true, Doc: "path on the host; a relative one is relative to the directory of the .star file"},
			{Name: "destination", Type: args.String, Default: "the source, if absolute", Doc: "absolute path in the container"},
			{Name: "readonly", Type: args.Bool, Default: "True", Doc: "False lets the container write to the host's files"},
			{Name: "recursive", Type: args.Bool, Default: "True", Doc: "with the mounts below the source"},
			{Name: "options", Type: args.ListOf[string](args.String), Default: `["nosuid", "nodev"]`, Doc: "mount options besides ro and rbind"},
		},
		Positional: 2,
		Result:     "mount",
		Call:       with(newBind),
	}, {
		Name: "tmpfs",
		Doc:  "An empty file system in memory, gone when the container ends. Its memory counts as the container's.",
		Params: []args.Param{
			{Name: "destination", Type: args.String, Required: true, Doc: "absolute path in the container"},
			{Name: "size", Type: args.Bytes, Default: `"64MiB"`, Doc: "most bytes it may hold"},
			{Name: "mode", Type: args.String, Default: `"1777"`, Doc: "octal permissions of its root"},
			{Name: "options", Type: args.ListOf[string](args.String), Default: `["nosuid", "nodev"]`, Doc: "mount options besides size and mode"},
		},
		Positional: 1,
		Result:     "mount",
		Call:       with(newTmpfs),
	}, {
		Name: "host_root",
		Doc: `The host's own root file system, read-only, under a private layer in memory: the
container sees the host's programs and may write anything, and nothing it writes is kept or
reaches the host. Mounts below / (such as /home on a disk of its own) are not part of it.`,
		Params: nil,
		Result: "rootfs",
		Call: func(*args.Call) (starlark.Value, error) {
			return &rootValue{fs: bundle.RootFS{Kind: bundle.RootHost, Overlay: true}}, nil
		},
	}, {
		Name: "dir",
		Doc:  "A directory of the host as root file system.",
		Params: []args.Param{
			{Name: "path", Type: args.String, Required: true, Doc: "the directory; a relative path is relative to the directory of the .star file"},
			{Name: "overlay", Type: args.Bool, Default: "True", Doc: "put a private, writable layer in memory over it and never write to the directory itself"},
			{Name: "readonly", Type: args.Bool, Default: "False", Doc: "make the root file system read-only in the container"},
		},
		Positional: 1,
		Result:     "rootfs",
		Call:       with(newDir),
	}}
}

// A mountValue is what mount(), bind() and tmpfs() return.
type mountValue struct{ mount specs.Mount }

func (m *mountValue) String() string        { return fmt.Sprintf("mount(%q)", m.mount.Destination) }
func (m *mountValue) Type() string          { return "mount" }
func (m *mountValue) Freeze()               {}
func (m *mountValue) Truth() starlark.Bool  { return true }
func (m *mountValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: mount") }

// A rootValue is what host_root() and dir() return.
type rootValue struct {
	fs       bundle.RootFS
	readonly bool
}

func (r *rootValue) String() string        { return fmt.Sprintf("rootfs(%s %s)", r.fs.Kind, r.fs.Path) }
func (r *rootValue) Type() string          { return "rootfs" }
func (r *rootValue) Freeze()               {}
func (r *rootValue) Truth() starlark.Bool  { return true }
func (r *rootValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: rootfs") }

// destination checks a mount point. Mounting over / would hide the root file
// system that everything else was prepared in.
func (c call) destination(p string) (string, error) {
	dst, err := c.innerPath("destination", p)
	if err == nil && dst == "/" {
		err = c.Errorf("destination", "the root file system is the argument rootfs of container()", "destination: cannot mount over /")
	}
	return dst, err
}

func newMount(c call) (starlark.Value, error) {
	dst, err := c.destination(args.Get[string](c.Call, "destination"))
	if err != nil {
		return nil, err
	}
	typ := args.Get[string](c.Call, "type")
	if typ == "" || typ == "bind" || typ == "none" {
		return nil, c.Errorf("type", "write bind(source, destination)", "type: %q is no file system", typ)
	}
	m := specs.Mount{Destination: dst, Type: typ, Source: args.Or(c.Call, "source", typ), Options: args.Get[[]string](c.Call, "options")}
	return &mountValue{m}, c.checkOptions(m.Options)
}

func newBind(c call) (starlark.Value, error) {
	given := args.Get[string](c.Call, "source")
	src, err := c.hostPath("source", given)
	if err != nil {
		return nil, err
	}
	to := args.Get[string](c.Call, "destination")
	if !c.Has("destination") {
		to = given
	}
	dst, err := c.destination(to)
	if err != nil {
		return nil, err
	}
	opts := []string{"bind"}
	if args.Or(c.Call, "recursive", true) {
		opts[0] = "rbind"
	}
	if args.Or(c.Call, "readonly", true) {
		opts = append(opts, "ro")
	} else {
		opts = append(opts, "rw")
	}
	extra := args.Or(c.Call, "options", []string{"nosuid", "nodev"})
	return &mountValue{specs.Mount{Destination: dst, Type: "bind", Source: src, Options: append(opts, extra...)}}, c.checkOptions(extra)
}

func newTmpfs(c call) (starlark.Value, error) {
	dst, err := c.destination(args.Get[string](c.Call, "destination"))
	if err != nil {
		return nil, err
	}
	mode := args.Or(c.Call, "mode", "1777")
	if mode == "" || len(mode) > 4 || strings.Trim(mode, "01234567") != "" {
		return nil, c.Errorf("mode", `write "0755"`, "mode: %q is not octal", mode)
	}
	extra := args.Or(c.Call, "options", []string{"nosuid", "nodev"})
	if err := c.checkOptions(extra); err != nil {
		return nil, err
	}
	opts := append(slices.Clone(extra), fmt.Sprintf("size=%d", args.Or(c.Call, "size", int64(64<<20))), "mode="+mode)
	return &mountValue{specs.Mount{Destination: dst, Type: "tmpfs", Source: "tmpfs", Options: opts}}, nil
}

// checkOptions refuses options that would smuggle in others: the kernel
// splits the data string of mount(2) at commas.
func (c call) checkOptions(opts []string) error {
	for _, o := range opts {
		if o == "" || strings.Contains(o, ",") {
			return c.Errorf("options", "one option a list element", "options: %q is not one option", o)
		}
	}
	return nil
}

func newDir(c call) (starlark.Value, error) {
	p, err := c.hostPath("path", args.Get[string](c.Call, "path"))
	if err != nil {
		return nil, err
	}
	if p == "/" {
		return nil, c.Errorf("path", "write host_root()", "path: / is the host's own root")
	}
	return &rootValue{
		fs:       bundle.RootFS{Kind: bundle.RootDir, Path: p, Overlay: args.Or(c.Call, "overlay", true)},
		readonly: args.Get[bool](c.Call, "readonly"),
	}, nil
}
