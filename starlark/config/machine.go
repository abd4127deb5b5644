package config

import (
	"go.starlark.net/starlark"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark/args"
)

// MinMachine is the least memory that a guest kernel starts a container with.
const MinMachine = 32 << 20

func machineBuiltins() []*args.Builtin {
	return []*args.Builtin{{
		Name: "machine",
		Doc: `The kernel that the containers of the pod run on. A file calls it at most once;
seki run --machine and --kernel say otherwise for one run. Without it seki takes the best
kind that runs here; one that is named is never replaced by another in silence.`,
		Params: []args.Param{
			{Name: "kind", Type: args.OneOf("auto", "host", "uml", "kvm"), Default: `"auto"`, Doc: `"host": the host's own kernel; "uml": a User-Mode Linux kernel, an unprivileged process; "kvm": a guest of KVM`},
			{Name: "kernel", Type: args.String, Default: "seki's own", Doc: "image of the guest's kernel, on \"kvm\" a distribution's vmlinuz or vmlinux with its modules (by default the host's newest); a relative path is relative to the directory of the .star file"},
			{Name: "kernel_args", Type: args.ListOf[string](args.String), Default: "[]", Doc: "more parameters of the guest's kernel on \"kvm\", as \"mitigations=off\": Linux' own, one each"},
			{Name: "memory", Type: args.Bytes, Default: `"256MiB"`, Doc: "memory of the guest: kernel, files in memory and all containers together"},
			{Name: "nic", Type: args.OneOf("own", "shared"), Default: `"own"`, Doc: `"own": a card of the machine for each container; "shared": one for all, and who sent a frame is found in the guest's memory`},
			{Name: "cpu", Type: args.Number, Default: "no limit", Doc: "CPUs' worth of the host's time for the whole machine; on \"kvm\" its processors, a whole number"},
		},
		Positional: 1,
		Result:     "NoneType",
		Call:       with(newMachine),
	}}
}

func newMachine(c call) (starlark.Value, error) {
	col, err := c.collector()
	if err != nil {
		return nil, err
	}
	if col.Machine != nil {
		return nil, c.Errorf("", "a pod runs on one machine", "called twice (first at %s)", col.machinePos)
	}
	m := &bundle.Machine{Kind: bundle.MachineKind(args.Or(c.Call, "kind", "auto")), Memory: args.Get[int64](c.Call, "memory")}
	if c.Has("memory") && m.Memory < MinMachine {
		return nil, c.Errorf("memory", "at least 32MiB", "memory: %d bytes is too little for a kernel and a container", m.Memory)
	}
	if c.Has("kernel") {
		if m.Kernel, err = c.hostPath("kernel", args.Get[string](c.Call, "kernel")); err != nil {
			return nil, err
		}
		if m.Kind == bundle.MachineHost {
			return nil, c.Errorf("kernel", `write kind = "uml" or "kvm"`, `kernel: machine "host" runs on the host's own`)
		}
	}
	if m.KernelArgs = args.Get[[]string](c.Call, "kernel_args"); len(m.KernelArgs) > 0 && m.Kind != bundle.MachineKVM {
		return nil, c.Errorf("kernel_args", `write kind = "kvm"`, `kernel_args: a machine %q takes none`, m.Kind)
	}
	for _, word := range m.KernelArgs {
		if err := bundle.CheckKernelArg(word); err != nil {
			return nil, c.Errorf("kernel_args", `as in kernel_args = ["mitigations=off", "nosmt"]`, "kernel_args: %v", err)
		}
	}
	if m.SharedNIC = args.Or(c.Call, "nic", "own") == "shared"; m.SharedNIC && m.Kind == bundle.MachineHost {
		return nil, c.Errorf("nic", `write kind = "uml"`, `nic: on machine "host" each container has its own card`)
	}
	if c.Has("cpu") {
		if m.CPUs = args.Get[float64](c.Call, "cpu"); m.CPUs < 0.01 || m.CPUs > 1024 {
			return nil, c.Errorf("cpu", "at least 0.01", "cpu: %v CPUs is out of range", m.CPUs)
		}
	}
	col.Machine, col.machinePos = m, c.Pos
	return starlark.None, nil
}
