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
	"sekimori/starlark"
	"sekimori/vmm/kvm"
	"sekimori/vmm/uml/kernel"
)

// defaultMemory is a guest's memory where the file says nothing: pages that the
// guest does not touch are not taken from the host.
const defaultMemory = 256 << 20

// choose says which machine the pod runs on: what the command line says, else
// the file, else the best that runs here.
func (a *app) choose(pod *starlark.Pod, o runOptions) (bundle.Machine, error) {
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
	switch {
	case m.Kind != bundle.MachineHost && inKernel(pod):
		return m, fmt.Errorf("%s: nic(datapath = \"kernel\"): the programs are the host's kernel's, so it is machine host's alone, and root's\n    sudo seki run --machine host %[1]s", pod.Path)
	case m.Kind == bundle.MachineKVM && (m.CPUs != math.Trunc(m.CPUs) || m.CPUs > kvm.MaxCPUs):
		return m, fmt.Errorf(`%s: machine("kvm"): cpu: %g processors: want a whole number up to %d`, pod.Path, m.CPUs, kvm.MaxCPUs)
	case m.Kind == bundle.MachineHost && m.Kernel != "":
		return m, usage("--kernel: machine host runs on the host's own\n    --machine uml")
	case m.Kind == bundle.MachineHost && o.agent == overTCP:
		return m, usage("--agent: machine host has none\n    --machine uml")
	case m.Kind == bundle.MachineUML && m.CPUs > 0 && os.Geteuid() != 0:
		return m, fmt.Errorf("%s: machine(cpu): needs root: a cgroup bounds it", pod.Path)
	case m.Kind != bundle.MachineHost && pod.Uplink != nil && os.Geteuid() != 0:
		return m, userUplinkError(pod, a.env)
	}
	return m, nil
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
// of that of the same pod on the host.
func (w *wire) machine(cfg *lifecycle.PodConfig, p *starlark.Pod, spec bundle.Machine, o runOptions) (err error) {
	mc := machineConfig{kind: spec.Kind, kernel: spec.Kernel, transport: o.agent, memory: spec.Memory &^ 4095, cpus: spec.CPUs, pod: p.Name, specs: map[string]guestSpec{}}
	if err := mc.choose(w.env); err != nil {
		return err
	}
	mc.cache = kernel.Dirs(w.env)[0]
	mc.exports = &exports{opened: map[string]*p9.Export{}, shared: map[string]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, mc.exports.close())
		}
	}()
	var nics []*guestNIC
	callbacks, mtu := false, 0
	for i, c := range p.Containers {
		if mc.specs[c.Spec.Name], err = mc.exports.export(i, c.Spec); err != nil {
			return err
		}
		if o.agent == overTCP && !ownNetwork(c.Spec) {
			return fmt.Errorf("container %q: shares the guest's own network, where the agent speaks TCP: it would hear the agent's secret\n    give it a network namespace, or --agent vsock", c.Spec.Name)
		}
		callbacks = callbacks || len(c.Callbacks) > 0
		if c.Spec.NIC == nil {
			continue
		}
		n, err := w.nic(c)
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
		if mc.file, err = json.Marshal(file); err != nil {
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
	policy := newGuestPolicy(n.table, w.mode)
	m, err := newMachine(mc, nics, policy, w.log)
	if err == nil && spec.SharedNIC && len(nics) > 0 {
		err = m.share(n.sw, mtu)
	}
	if err != nil {
		return err
	}
	for i := range cfg.Containers {
		for h := range cfg.Containers[i].Hooks { // of the same index as the container's callbacks
			cfg.Containers[i].Hooks[h].Run = m.guestHook(h)
		}
	}
	cfg.Machine = string(spec.Kind)
	cfg.Network, cfg.Runtime = &guestNetwork{n, m, policy}, lifecycle.Guest(m)
	return nil
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

// nic makes the card of a container, with its envelope.
func (w *wire) nic(c *starlark.Container) (*guestNIC, error) {
	if c.Policy == nil {
		return newGuestNIC(c.Spec.Name, c.Spec.NIC, nothingProgram(), false)
	}
	mode := c.Policy.Mode()
	if c.Spec.NIC.Audit {
		mode = lifecycle.Audit
	}
	if w.mode != "" {
		mode = w.mode
	}
	envelope, err := c.Policy.Envelope(c.Identity(), mode)
	if err != nil {
		return nil, err
	}
	return newGuestNIC(c.Spec.Name, c.Spec.NIC, envelope, mode == lifecycle.Audit)
}
