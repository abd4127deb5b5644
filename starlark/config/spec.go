package config

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark/args"
)

// spec turns the arguments of container() into a bundle.Spec without NIC.
func (c call) spec(name string) (*bundle.Spec, error) {
	root := args.Or(c.Call, "rootfs", &rootValue{fs: bundle.RootFS{Kind: bundle.RootHost, Overlay: true}})
	s := &bundle.Spec{Name: name, Root: root.fs, Reaper: args.Get[bool](c.Call, "init")}
	proc, err := c.process()
	if err != nil {
		return nil, err
	}
	hostname := args.Or(c.Call, "hostname", name)
	if !isHostname(hostname) {
		return nil, c.Errorf("hostname", "letters, digits, - and dots, at most 63 (RFC 1123, 2.1)", "hostname: %q is no host name", hostname)
	}
	linux, err := c.linux()
	if err != nil {
		return nil, err
	}
	s.OCI = specs.Spec{
		Version:     specs.Version,
		Process:     proc,
		Root:        &specs.Root{Readonly: root.readonly},
		Hostname:    hostname,
		Mounts:      c.mounts(),
		Annotations: dictMap(args.Get[[]args.Pair[string]](c.Call, "annotations")),
		Linux:       linux,
	}
	return s, nil
}

func (c call) process() (*specs.Process, error) {
	argv := args.Or(c.Call, "args", []string{"/bin/sh"})
	if len(argv) == 0 || argv[0] == "" {
		return nil, c.Errorf("args", `write args = ["/bin/sh"]`, "args: no program")
	}
	cwd, err := c.innerPath("cwd", args.Or(c.Call, "cwd", "/"))
	if err != nil {
		return nil, err
	}
	env, err := c.environment()
	if err != nil {
		return nil, err
	}
	user := args.Get[specs.User](c.Call, "user")
	caps, err := c.capabilitySets(user)
	if err != nil {
		return nil, err
	}
	return &specs.Process{
		Terminal: args.Get[bool](c.Call, "terminal"), User: user, Args: argv, Env: env, Cwd: cwd,
		Capabilities: caps, Rlimits: c.rlimits(), NoNewPrivileges: args.Or(c.Call, "no_new_privileges", true),
	}, nil
}

// environment is the default environment overlaid with env=, PATH first.
func (c call) environment() ([]string, error) {
	vars := []args.Pair[string]{
		{Key: "PATH", Val: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		{Key: "TERM", Val: "xterm"},
		{Key: "HOME", Val: "/root"},
	}
	if u := args.Get[specs.User](c.Call, "user"); u.UID != 0 || u.Username != "" {
		vars[2].Val = "/"
	}
	for _, v := range args.Get[[]args.Pair[string]](c.Call, "env") {
		if v.Key == "" || strings.Contains(v.Key, "=") {
			return nil, c.Errorf("env", "", "env: %q is no name of a variable", v.Key)
		}
		i := slices.IndexFunc(vars, func(p args.Pair[string]) bool { return p.Key == v.Key })
		if i < 0 {
			vars = append(vars, v)
		} else {
			vars[i].Val = v.Val
		}
	}
	env := make([]string, len(vars))
	for i, v := range vars {
		env[i] = v.Key + "=" + v.Val
	}
	return env, nil
}

// capabilitySets fills the five sets. The inheritable and ambient sets stay
// empty for root, as in every runtime since CVE-2022-29162; a workload that is
// not root keeps what the file names only through the ambient set.
func (c call) capabilitySets(user specs.User) (*specs.LinuxCapabilities, error) {
	keep, err := c.capabilities(args.Or(c.Call, "capabilities", bundle.DefaultCapabilities()))
	if err != nil {
		return nil, err
	}
	sets := bundle.Capabilities(keep...)
	if (user.UID != 0 || user.Username != "") && c.Has("capabilities") {
		sets.Inheritable, sets.Ambient = keep, keep
	}
	return sets, nil
}

func (c call) rlimits() []specs.POSIXRlimit {
	if !c.Has("rlimits") {
		return []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 4096}}
	}
	var out []specs.POSIXRlimit
	for _, r := range args.Get[[]*rlimitValue](c.Call, "rlimits") {
		out = slices.DeleteFunc(out, func(o specs.POSIXRlimit) bool { return o.Type == r.lim.Type })
		out = append(out, r.lim)
	}
	return out
}

// mounts are the usual ones followed by the container's own; one of its own
// at the place of a usual one takes that one's turn.
func (c call) mounts() []specs.Mount {
	out := bundle.DefaultMounts()
	for _, m := range args.Get[[]*mountValue](c.Call, "mounts") {
		i := slices.IndexFunc(out, func(d specs.Mount) bool { return d.Destination == m.mount.Destination })
		if i < 0 {
			out = append(out, m.mount)
		} else {
			out[i] = m.mount
		}
	}
	return out
}

func (c call) linux() (*specs.Linux, error) {
	l := &specs.Linux{Resources: defaultResources(), Namespaces: bundle.DefaultNamespaces()}
	if r := args.Get[*resourcesValue](c.Call, "resources"); r != nil {
		l.Resources = r.res
	}
	var err error
	if l.MaskedPaths, err = c.innerPaths("masked_paths", bundle.DefaultMaskedPaths()); err != nil {
		return nil, err
	}
	if l.ReadonlyPaths, err = c.innerPaths("readonly_paths", bundle.DefaultReadonlyPaths()); err != nil {
		return nil, err
	}
	if l.Sysctl, err = c.sysctls(); err != nil {
		return nil, err
	}
	// Without a profile here the one of lifecycle/linux holds.
	if args.Get[string](c.Call, "seccomp") == "unconfined" {
		l.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	}
	return l, nil
}

func (c call) innerPaths(name string, otherwise []string) ([]string, error) {
	given := args.Or(c.Call, name, otherwise)
	out := make([]string, len(given))
	for i, p := range given {
		var err error
		if out[i], err = c.innerPath(name, p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// sysctls are the default ones overlaid with sysctls=. Only parameters that
// belong to a namespace of the container may be set: the others are the host's.
func (c call) sysctls() (map[string]string, error) {
	all := bundle.Default("").OCI.Linux.Sysctl
	for _, s := range args.Get[[]args.Pair[string]](c.Call, "sysctls") {
		name := strings.ReplaceAll(s.Key, "/", ".")
		if !namespacedSysctl(name) {
			return nil, c.Errorf("sysctls", "a container may set net.*, fs.mqueue.*, kernel.msg*, kernel.shm* and kernel.sem",
				"sysctls: %q is not a parameter of the container's namespaces", s.Key)
		}
		all[name] = s.Val
	}
	return all, nil
}

func namespacedSysctl(name string) bool {
	if strings.Contains(name, "..") {
		return false
	}
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
		"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return true
	}
	return strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "fs.mqueue.")
}

func dictMap(ps []args.Pair[string]) map[string]string {
	if len(ps) == 0 {
		return nil
	}
	m := make(map[string]string, len(ps))
	for _, p := range ps {
		m[p.Key] = p.Val
	}
	return m
}
