package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"go.starlark.net/starlark"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark/args"
)

// The period of the CPU quota, in microseconds: the kernel's own default
// (Documentation/scheduler/sched-bwc.rst).
const cpuPeriod = 100_000

// defaultPids bounds what a fork bomb can take from a shared kernel.
const defaultPids = 4096

func resourceBuiltins() []*args.Builtin {
	return []*args.Builtin{{
		Name: "resources",
		Doc:  "Limits on what a container may take, kept by its cgroup.",
		Params: []args.Param{
			{Name: "memory", Type: args.Bytes, Default: "None", Doc: "most memory, page cache included; beyond it the kernel kills (point oom)"},
			{Name: "memory_low", Type: args.Bytes, Default: "None", Doc: "memory that is reclaimed last"},
			{Name: "swap", Type: args.Bytes, Default: "None", Doc: "most swap on top of memory; needs memory"},
			{Name: "cpu", Type: args.Number, Default: "None", Doc: "CPUs' worth of time: 0.5 is half a CPU, 2 are two"},
			{Name: "cpu_shares", Type: args.Int(2, 262144), Default: "1024", Doc: "weight against other containers when CPUs are short"},
			{Name: "cpuset", Type: args.String, Default: "all", Doc: `CPUs it may run on: "0-3,6"`},
			{Name: "pids", Type: args.Int(1, math.MaxInt32), Default: strconv.Itoa(defaultPids), Doc: "most processes and threads at once"},
		},
		Result: "resources",
		Call:   with(newResources),
	}, {
		Name: "rlimit",
		Doc:  "A limit of setrlimit(2) for each process of the container.",
		Params: []args.Param{
			{Name: "name", Type: args.String, Required: true, Doc: `as in "nofile", with or without "RLIMIT_"`},
			{Name: "soft", Type: typeLimit, Required: true, Doc: `a number or "unlimited"`},
			{Name: "hard", Type: typeLimit, Default: "soft", Doc: `a number or "unlimited", not below soft`},
		},
		Positional: 3,
		Result:     "rlimit",
		Call:       with(newRlimit),
	}, {
		Name: "user",
		Doc:  "Who the workload runs as, by number.",
		Params: []args.Param{
			{Name: "uid", Type: args.Int(0, 65535), Required: true, Doc: "user id inside the container"},
			{Name: "gid", Type: args.Int(0, 65535), Default: "uid", Doc: "group id inside the container"},
			{Name: "groups", Type: args.ListOf[int64](args.Int(0, 65535)), Default: "[]", Doc: "supplementary group ids"},
		},
		Positional: 2,
		Result:     "user",
		Call:       with(newUser),
	}}
}

// A resourcesValue is what resources() returns.
type resourcesValue struct{ res *specs.LinuxResources }

func (r *resourcesValue) String() string        { return "resources(...)" }
func (r *resourcesValue) Type() string          { return "resources" }
func (r *resourcesValue) Freeze()               {}
func (r *resourcesValue) Truth() starlark.Bool  { return true }
func (r *resourcesValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: resources") }

func newResources(c call) (starlark.Value, error) {
	r := defaultResources()
	if err := c.memory(r); err != nil {
		return nil, err
	}
	cpu := &specs.LinuxCPU{}
	if c.Has("cpu") {
		quota := int64(math.Round(args.Get[float64](c.Call, "cpu") * cpuPeriod))
		// The kernel takes no quota below a millisecond.
		if quota < 1000 || quota > 1<<40 {
			return nil, c.Errorf("cpu", "at least 0.01", "cpu: %v CPUs is out of range", args.Get[float64](c.Call, "cpu"))
		}
		period := uint64(cpuPeriod)
		cpu.Quota, cpu.Period = &quota, &period
	}
	if c.Has("cpu_shares") {
		shares := uint64(args.Get[int64](c.Call, "cpu_shares"))
		cpu.Shares = &shares
	}
	if cpu.Cpus = args.Get[string](c.Call, "cpuset"); c.Has("cpuset") && !isCPUList(cpu.Cpus) {
		return nil, c.Errorf("cpuset", `as in "0-3,6"`, "cpuset: %q is no list of CPUs", cpu.Cpus)
	}
	if *cpu != (specs.LinuxCPU{}) {
		r.CPU = cpu
	}
	if c.Has("pids") {
		n := args.Get[int64](c.Call, "pids")
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	return &resourcesValue{r}, nil
}

// minMemory is the least a workload can start with: below it the kernel kills
// the process that is about to become the workload.
const minMemory = 1 << 20

func (c call) memory(r *specs.LinuxResources) error {
	m := &specs.LinuxMemory{}
	if c.Has("memory") {
		n := args.Get[int64](c.Call, "memory")
		if n < minMemory {
			return c.Errorf("memory", `at least "1MiB"`, "memory: %d bytes is too little to start in", n)
		}
		m.Limit = &n
	}
	if c.Has("memory_low") {
		n := args.Get[int64](c.Call, "memory_low")
		m.Reservation = &n
	}
	if c.Has("swap") {
		if m.Limit == nil {
			return c.Errorf("swap", "give memory too", "swap: a limit on swap needs one on memory")
		}
		// The specification counts memory and swap together.
		total := *m.Limit + args.Get[int64](c.Call, "swap")
		m.Swap = &total
	}
	if *m != (specs.LinuxMemory{}) {
		r.Memory = m
	}
	return nil
}

// defaultResources hold for a container whose file says nothing.
func defaultResources() *specs.LinuxResources {
	n := int64(defaultPids)
	return &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}
}

// typeLimit is a resource limit: a number, or no limit.
var typeLimit = args.Type{Name: `a number or "unlimited"`, Convert: func(v starlark.Value) (any, error) {
	if s, ok := starlark.AsString(v); ok && s == "unlimited" {
		return uint64(math.MaxUint64), nil // RLIM_INFINITY
	}
	if i, ok := v.(starlark.Int); ok {
		if n, ok := i.Uint64(); ok {
			return n, nil
		}
	}
	return nil, args.Want(`a number or "unlimited"`, v)
}}

// rlimitNames are the limits of getrlimit(2).
var rlimitNames = []string{"AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE",
	"NOFILE", "NPROC", "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK"}

// A rlimitValue is what rlimit() returns.
type rlimitValue struct{ lim specs.POSIXRlimit }

func (r *rlimitValue) String() string        { return fmt.Sprintf("rlimit(%q)", r.lim.Type) }
func (r *rlimitValue) Type() string          { return "rlimit" }
func (r *rlimitValue) Freeze()               {}
func (r *rlimitValue) Truth() starlark.Bool  { return true }
func (r *rlimitValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: rlimit") }

func newRlimit(c call) (starlark.Value, error) {
	given := args.Get[string](c.Call, "name")
	name := strings.TrimPrefix(strings.ToUpper(given), "RLIMIT_")
	if !slices.Contains(rlimitNames, name) {
		return nil, c.Errorf("name", "known are "+strings.ToLower(strings.Join(rlimitNames, ", ")),
			"unknown limit %q%s", given, args.DidYouMean(strings.ToLower(name), lowered(rlimitNames)))
	}
	soft := args.Get[uint64](c.Call, "soft")
	hard := args.Or(c.Call, "hard", soft)
	if soft > hard {
		return nil, c.Errorf("soft", "", "%s: soft limit %d is above the hard limit %d", given, soft, hard)
	}
	return &rlimitValue{specs.POSIXRlimit{Type: "RLIMIT_" + name, Soft: soft, Hard: hard}}, nil
}

// A userValue is what user() returns.
type userValue struct{ user specs.User }

func (u *userValue) String() string        { return fmt.Sprintf("user(%d, %d)", u.user.UID, u.user.GID) }
func (u *userValue) Type() string          { return "user" }
func (u *userValue) Freeze()               {}
func (u *userValue) Truth() starlark.Bool  { return true }
func (u *userValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: user") }

func newUser(c call) (starlark.Value, error) {
	uid := args.Get[int64](c.Call, "uid")
	u := specs.User{UID: uint32(uid), GID: uint32(args.Or(c.Call, "gid", uid))}
	for _, g := range args.Get[[]int64](c.Call, "groups") {
		u.AdditionalGids = append(u.AdditionalGids, uint32(g))
	}
	return &userValue{u}, nil
}

// typeUser is user(), a uid, "uid:gid" or "name[:group]". Names are looked up in
// the container's own passwd and group files when it starts.
var typeUser = args.Type{Name: `user(uid, gid), a uid, "uid:gid" or "name:group"`, Convert: func(v starlark.Value) (any, error) {
	switch v := v.(type) {
	case *userValue:
		return v.user, nil
	case starlark.Int:
		if n, ok := v.Int64(); ok && n >= 0 && n <= 65535 {
			return specs.User{UID: uint32(n), GID: uint32(n)}, nil
		}
	case starlark.String:
		ref, err := bundle.ParseUser(string(v))
		if err != nil {
			return nil, err
		}
		if ref.User != "" || ref.Group != "" {
			return specs.User{Username: string(v)}, nil
		}
		u := specs.User{UID: ref.UID, GID: ref.UID}
		if ref.HasGroup {
			u.GID = ref.GID
		}
		return u, nil
	}
	return nil, args.Want(`user(uid, gid), a uid from 0 to 65535, "uid:gid" or "name:group"`, v)
}}

func lowered(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strings.ToLower(w)
	}
	return out
}
