package config

import (
	"maps"
	"time"

	"go.starlark.net/starlark"

	"sekimori/starlark/args"
)

// DefaultStopTimeout is how long a container has to end after its stop signal.
const DefaultStopTimeout = 10 * time.Second

func containerBuiltins() []*args.Builtin {
	params := containerParams()
	template := make([]args.Param, len(params))
	copy(template, params)
	for i := range template {
		template[i].Required = false
	}
	return []*args.Builtin{{
		Name: "container",
		Doc: `One container of the pod. Every call adds one; nothing runs while the file is
evaluated. The value returned can serve as base of others and, in tests, as what sends a frame.`,
		Params: params,
		Result: "container",
		Call:   with(newContainer),
	}, {
		Name: "defaults",
		Doc: `The arguments of container(), kept for later: a base for containers that does not
become a container itself.`,
		Params: template,
		Result: "defaults",
		Call:   with(newDefaults),
	}}
}

// containerParams are the arguments of container(). newSpec reads them.
func containerParams() []args.Param {
	return []args.Param{
		{Name: "name", Type: args.String, Required: true, Doc: "unique in the pod: letters, digits, _ . -, at most 63"},
		{Name: "base", Type: typeBase, Default: "None", Doc: "container or defaults() whose arguments hold where this call gives none; env, sysctls, annotations and on are merged key by key"},
		{Name: "rootfs", Type: args.Of[*rootValue]("host_root() or dir()"), Default: "host_root()", Doc: "root file system"},
		{Name: "args", Type: args.ListOf[string](args.String), Default: `["/bin/sh"]`, Doc: "the workload: program and arguments; no shell interprets them"},
		{Name: "cwd", Type: args.String, Default: `"/"`, Doc: "working directory, absolute"},
		{Name: "env", Type: args.DictOf[string](args.String), Default: "{}", Doc: "environment, added to PATH, TERM and HOME"},
		{Name: "user", Type: typeUser, Default: "0", Doc: "who the workload runs as, inside the container's own user namespace"},
		{Name: "hostname", Type: args.String, Default: "the name", Doc: "host name inside"},
		{Name: "terminal", Type: args.Bool, Default: "False", Doc: "give the workload a terminal of its own"},
		{Name: "init", Type: args.Bool, Default: "False", Doc: "put a small process at PID 1 that reaps orphans, for workloads that do not"},
		{Name: "nic", Type: args.Of[*nicValue]("a nic()"), Default: "None", Doc: "network card; without one there is lo alone"},
		{Name: "mounts", Type: args.ListOf[*mountValue](args.Of[*mountValue]("a mount(), bind() or tmpfs()")), Default: "[]", Doc: "file systems besides the usual ones, mounted in this order; one at the place of a usual one replaces it"},
		{Name: "resources", Type: args.Of[*resourcesValue]("resources()"), Default: "resources()", Doc: "limits kept by the cgroup"},
		{Name: "rlimits", Type: args.ListOf[*rlimitValue](args.Of[*rlimitValue]("a rlimit()")), Default: `[rlimit("nofile", 1024, 4096)]`, Doc: "limits of setrlimit(2)"},
		{Name: "capabilities", Type: args.ListOf[string](args.String), Default: "DEFAULT_CAPABILITIES", Doc: `all the capabilities the workload keeps, with or without "CAP_"; the default has no NET_RAW`},
		{Name: "seccomp", Type: args.OneOf("default", "unconfined"), Default: `"default"`, Doc: "which system calls are allowed; tcpdump, which maps packet rings, needs \"unconfined\""},
		{Name: "no_new_privileges", Type: args.Bool, Default: "True", Doc: "no program gains privileges by being executed (PR_SET_NO_NEW_PRIVS)"},
		{Name: "readonly_paths", Type: args.ListOf[string](args.String), Default: "DEFAULT_READONLY_PATHS", Doc: "paths inside that are made read-only"},
		{Name: "masked_paths", Type: args.ListOf[string](args.String), Default: "DEFAULT_MASKED_PATHS", Doc: "paths inside that are made unreadable"},
		{Name: "sysctls", Type: args.DictOf[string](args.String), Default: `{"net.ipv4.ping_group_range": "0 65535"}`, Doc: "kernel parameters of the container's own namespaces: net.*, fs.mqueue.*, kernel.msg*, kernel.shm*, kernel.sem"},
		{Name: "ready", Type: args.Of[*readyValue]("tcp_ready() or exec_ready()"), Default: "None", Doc: "when the point ready is reached; None: at once"},
		{Name: "on", Type: args.DictOf[[]*callbackValue](typeCallbacks), Default: "{}", Doc: "callbacks by point of life: functions of one argument, ctx"},
		{Name: "stop_signal", Type: args.String, Default: `"TERM"`, Doc: "first signal to stop the workload"},
		{Name: "stop_timeout", Type: args.Duration, Default: `"10s"`, Doc: "how long it has before KILL"},
		{Name: "annotations", Type: args.DictOf[string](args.String), Default: "{}", Doc: "notes that pass into the OCI specification"},
	}
}

func newDefaults(c call) (starlark.Value, error) {
	return &containerValue{vals: c.inherit()}, nil
}

// inherit overlays the arguments of the base with those of the call.
func (c call) inherit() map[string]any {
	base := args.Get[*containerValue](c.Call, "base")
	if base == nil {
		return c.Vals
	}
	vals := maps.Clone(base.vals)
	delete(vals, "name")
	maps.Copy(vals, c.Vals)
	delete(vals, "base")
	mergeKeys[string](vals, base.vals, c.Vals, "env", "sysctls", "annotations")
	mergeKeys[[]*callbackValue](vals, base.vals, c.Vals, "on")
	return vals
}

func mergeKeys[T any](vals, base, own map[string]any, names ...string) {
	for _, name := range names {
		b, _ := base[name].([]args.Pair[T])
		o, _ := own[name].([]args.Pair[T])
		if len(b) > 0 && len(o) > 0 {
			vals[name] = mergeOn(b, o)
		}
	}
}

func newContainer(c call) (starlark.Value, error) {
	col, err := c.collector()
	if err != nil {
		return nil, err
	}
	c.Vals = c.inherit()
	name := args.Get[string](c.Call, "name")
	if !isName(name) {
		return nil, c.Errorf("name", "letters, digits, _ . -, beginning with a letter or digit, at most 63", "name: %q is no container name", name)
	}
	ctr := &Container{Pos: c.Pos, vals: c.Vals, StopTimeout: args.Or(c.Call, "stop_timeout", DefaultStopTimeout)}
	if ctr.Spec, err = c.spec(name); err != nil {
		return nil, err
	}
	if n := args.Get[*nicValue](c.Call, "nic"); n != nil {
		own := *n
		if own.nic.MAC == "" {
			own.nic.MAC = deriveMAC(col.Pod, name)
		}
		ctr.nic, ctr.Policy = &own, own.policy
		ctr.Spec.NIC = &own.nic
	}
	if ctr.StopSignal, err = parseSignal(args.Or(c.Call, "stop_signal", "TERM")); err != nil {
		return nil, c.Errorf("stop_signal", args.HintOf(err), "stop_signal: %v", err)
	}
	if r := args.Get[*readyValue](c.Call, "ready"); r != nil {
		ctr.Ready = &r.ready
	}
	if ctr.Callbacks, err = c.callbacks(args.Get[[]args.Pair[[]*callbackValue]](c.Call, "on")); err != nil {
		return nil, err
	}
	// What this package lets through and no host can run is a gap here, but
	// better found now than when the container starts.
	if err := ctr.Spec.Validate(); err != nil {
		return nil, c.Errorf("", "", "%v", err)
	}
	if err := col.add(ctr); err != nil {
		return nil, err
	}
	return ctr.Value(), nil
}
