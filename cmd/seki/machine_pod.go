package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"sekimori/lifecycle"
	"sekimori/lifecycle/agent/p9"
	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow/frame"
	"sekimori/starlark"
	"sekimori/vmm/kvm"
	"sekimori/vmm/uml/kernel"
)

// defaultMemory is a guest's memory where the file says nothing: pages that the
// guest does not touch are not taken from the host.
const defaultMemory = 256 << 20

// choose says which machine the pod runs on: the one that waits for it, else what
// the command line says, else the file, else the best that runs here.
func (a *app) choose(pod *starlark.Pod, o runOptions) (m bundle.Machine, err error) {
	if a.warm != nil {
		m, err = a.warm.spec, a.warm.fits(pod)
	} else {
		m, err = a.chosen(pod, o)
	}
	if err != nil {
		return m, err
	}
	switch {
	case m.Kind != bundle.MachineHost && inKernel(pod):
		return m, fmt.Errorf("%s: nic(datapath = \"kernel\"): the programs are the host's kernel's, so it is machine host's alone, and root's\n    sudo seki run --machine host %[1]s", pod.Path)
	case m.Kind == bundle.MachineHost && m.Kernel != "":
		return m, usage("--kernel: machine host runs on the host's own\n    --machine uml")
	case m.Kind == bundle.MachineHost && o.agent == overTCP:
		return m, usage("--agent: machine host has none\n    --machine uml")
	case m.Kind != bundle.MachineHost && pod.Uplink != nil && os.Geteuid() != 0:
		return m, userUplinkError(pod, a.env)
	}
	return m, errors.Join(checkKernelArgs(m), checkCPUs(m, pod.Path+": machine(cpu)"))
}

// chosen is what the command line and the file say.
func (a *app) chosen(pod *starlark.Pod, o runOptions) (bundle.Machine, error) {
	m := bundle.Machine{Kind: bundle.MachineAuto}
	if pod.Machine != nil {
		m = *pod.Machine
	}
	if o.machine != "" {
		m.Kind = bundle.MachineKind(o.machine)
	}
	if o.kernel != "" {
		path, err := a.kernelImage(o.kernel)
		if err != nil {
			return m, err
		}
		m.Kernel = path
	}
	m.KernelArgs = slices.Concat(m.KernelArgs, o.kernelArgs)
	if m.Memory == 0 {
		m.Memory = defaultMemory
	}
	if m.Kind == bundle.MachineAuto {
		// What the file needs beside a kernel is root's to make on the host, and
		// root's containers start six times as fast there.
		if m.Kind = bundle.MachineHost; os.Geteuid() != 0 || m.Kernel != "" {
			m.Kind = bundle.MachineUML
		}
	}
	return m, nil
}

// checkKernelArgs refuses parameters for a kernel that takes none, and wrong ones.
func checkKernelArgs(m bundle.Machine) error {
	if len(m.KernelArgs) > 0 && m.Kind != bundle.MachineKVM {
		return usage("kernel parameter %s: machine %s takes none\n    --machine kvm", m.KernelArgs[len(m.KernelArgs)-1], m.Kind)
	}
	for _, word := range m.KernelArgs {
		if err := bundle.CheckKernelArg(word); err != nil {
			return usage("--kernel-arg %w", err)
		}
	}
	return nil
}

// checkCPUs refuses a bound that cannot be kept; what says where it stands.
func checkCPUs(m bundle.Machine, what string) error {
	switch {
	case m.Kind == bundle.MachineKVM && (m.CPUs != math.Trunc(m.CPUs) || m.CPUs > kvm.MaxCPUs):
		return fmt.Errorf(`%s: %g processors of machine kvm: want a whole number up to %d`, what, m.CPUs, kvm.MaxCPUs)
	case m.Kind == bundle.MachineUML && m.CPUs > 0 && os.Geteuid() != 0:
		return fmt.Errorf("%s: needs root: a cgroup bounds it", what)
	}
	return nil
}

// kernelImage is the path of a kernel: given as one, or by its name in the cache.
func (a *app) kernelImage(name string) (string, error) {
	if _, err := os.Stat(name); err != nil {
		if k, ok := kernel.Named(name, kernel.Dirs(a.env)...); ok {
			return k.Path, nil
		}
	}
	return filepath.Abs(name)
}

// inKernel reports whether frames of the pod are to be judged in the kernel.
func inKernel(p *starlark.Pod) bool {
	return slices.ContainsFunc(p.Containers, func(c *starlark.Container) bool {
		return c.Spec.NIC != nil && c.Spec.NIC.Datapath == bundle.DatapathKernel
	})
}

// machine makes the configuration of a pod in a machine of its own kernel out
// of that of the same pod on the host. The machine is the one that waits for the
// pod, if there is one, else it boots with the first container.
func (w *wire) machine(cfg *lifecycle.PodConfig, p *starlark.Pod, spec bundle.Machine, o runOptions, waiting *warmMachine) (err error) {
	mp := machinePod{name: p.Name, specs: map[string]guestSpec{}, exports: &exports{opened: map[string]*p9.Export{}, shared: map[string]bool{}}}
	defer func() {
		if err != nil {
			err = errors.Join(err, mp.exports.close())
		}
	}()
	var nics []*guestNIC
	callbacks, mtu := false, 0
	for i, c := range p.Containers {
		if mp.specs[c.Spec.Name], err = mp.exports.export(i, c.Spec); err != nil {
			return err
		}
		if o.agent == overTCP && !ownNetwork(c.Spec) {
			return fmt.Errorf("container %q: shares the guest's own network, where the agent speaks TCP: it would hear the agent's secret\n    give it a network namespace, or --agent vsock", c.Spec.Name)
		}
		callbacks = callbacks || len(c.Callbacks) > 0
		if c.Spec.NIC == nil {
			continue
		}
		var spare *guestNIC
		if waiting != nil {
			spare = waiting.spare(len(nics))
		}
		n, err := w.nic(c, spare)
		if err != nil {
			return fmt.Errorf("container %q: card: %w", c.Spec.Name, err)
		}
		nics = append(nics, n)
		if spec.SharedNIC {
			if err := checkShared(c); err != nil {
				return fmt.Errorf("container %q: %w", c.Spec.Name, err)
			}
			mtu = max(mtu, c.Spec.NIC.MTU)
		}
	}
	if callbacks {
		file := guestPod{Path: filepath.Join(p.Root(), filepath.Base(p.Path)), Params: o.source.params(), Sources: p.Sources(), Digest: p.Digest}
		if mp.file, err = json.Marshal(file); err != nil {
			return err
		}
	}
	if cfg.Network == nil {
		// The pod has no card, but its end is the machine's.
		if cfg.Network, cfg.NetworkRecord, err = w.network(p); err != nil {
			return err
		}
	}
	n := cfg.Network.(*network)
	var m *machine
	if waiting != nil {
		m, mtu = waiting.machine, waiting.mtu
		m.nics = nics
		cfg.Reserved = waiting.reserved
	} else {
		if m, err = w.coldMachine(spec, o.agent, nics, mtu); err != nil {
			return err
		}
		cfg.Runtime = lifecycle.Guest(m)
	}
	if err := m.bind(mp, n.table, w.mode); err != nil {
		return err
	}
	if m.shared != nil {
		if err := m.shared.plug(n.sw, mtu); err != nil {
			return err
		}
	}
	for i := range cfg.Containers {
		for h := range cfg.Containers[i].Hooks { // of the same index as the container's callbacks
			cfg.Containers[i].Hooks[h].Run = m.guestHook(h)
		}
	}
	cfg.Machine = string(spec.Kind)
	cfg.Network = &guestNetwork{n, m, m.policy}
	return nil
}

// coldMachine makes a machine that boots for its pod.
func (w *wire) coldMachine(spec bundle.Machine, transport string, nics []*guestNIC, mtu int) (*machine, error) {
	mc, err := newMachineConfig(spec, transport, w.env)
	if err != nil {
		return nil, err
	}
	m, err := newMachine(mc, nics, w.log)
	if err == nil && spec.SharedNIC && len(nics) > 0 {
		err = m.share(mtu)
	}
	return m, err
}

// newMachineConfig is what a machine of that specification is made of.
func newMachineConfig(spec bundle.Machine, transport string, env func(string) string) (machineConfig, error) {
	mc := machineConfig{kind: spec.Kind, kernel: spec.Kernel, args: spec.KernelArgs, transport: transport, memory: spec.Memory &^ 4095, cpus: spec.CPUs, cache: kernel.Dirs(env)[0]}
	return mc, mc.choose(env)
}

// choose finds the kernel, if none was named, and what is to be known of it.
func (mc *machineConfig) choose(env func(string) string) (err error) {
	if mc.kind == bundle.MachineKVM {
		if err := kvm.Probe(context.Background()); err != nil {
			return fmt.Errorf("machine kvm: %s\n    --machine uml needs no KVM", oneLine(err))
		}
		mc.memory &^= 1<<20 - 1
		mc.kernel, mc.modules, err = guestKernel(mc.kernel)
		return err
	}
	if mc.kernel == "" {
		k, err := kernel.Find(kernel.Dirs(env)...)
		if err != nil {
			return fmt.Errorf("machine uml: %w", err)
		}
		mc.kernel, mc.lpj = k.Path, k.LPJ
	}
	info, err := kernel.Describe(mc.kernel)
	if err != nil {
		return fmt.Errorf("machine uml: %w", err)
	}
	mc.info = &info
	if info.Modules {
		mc.modules, err = umlModules(mc.kernel, info.Release)
	}
	return err
}

// ownNetwork says that the container's network namespace is no other's.
func ownNetwork(s *bundle.Spec) bool {
	return s.OCI.Linux != nil && slices.ContainsFunc(s.OCI.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.NetworkNamespace && n.Path == ""
	})
}

// nic makes the card of a container, with its envelope, of a spare one or anew.
func (w *wire) nic(c *starlark.Container, n *guestNIC) (*guestNIC, error) {
	if n == nil {
		mac, err := frame.ParseMAC(c.Spec.NIC.MAC)
		if err != nil {
			return nil, err
		}
		if n, err = newGuestNIC(mac, c.Spec.NIC.MTU); err != nil {
			return nil, err
		}
	}
	n.name = c.Spec.Name
	if c.Policy == nil {
		n.envelope, n.watched = nothingProgram(), false
		return n, nil
	}
	mode := c.Policy.Mode()
	if c.Spec.NIC.Audit {
		mode = lifecycle.Audit
	}
	if w.mode != "" {
		mode = w.mode
	}
	envelope, err := c.Policy.Envelope(c.Identity(), mode)
	n.envelope, n.watched = envelope, mode == lifecycle.Audit
	return n, err
}
