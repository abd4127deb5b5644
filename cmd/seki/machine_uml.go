package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"sekimori/lifecycle"
	"sekimori/vmm/kmod"
	"sekimori/vmm/uml"
	"sekimori/vmm/vhostuser"
	"sekimori/vmm/virtio"
)

// agentWords are for the guest's first process: its environment, and behind "--"
// its arguments. What the agent's goroutines compute is short and calls functions,
// at which they can be stopped; to stop one by a signal is four system calls more,
// each as long in a guest as a hundred on the host.
var agentWords = []string{"GODEBUG=asyncpreemptoff=1", "--", "agent"}

// startUML starts a User-Mode Linux kernel. If we are root it runs as the host's
// user that c, the first container, is given for its own: nobody else is that
// user. initrd, or the file at path, is its first file system.
func (m *machine) startUML(ctx context.Context, c lifecycle.RuntimeConfig, initrd *os.File, path string) error {
	group := ""
	if os.Geteuid() == 0 && (uml.HasCgroups() || m.cfg.cpus > 0) {
		group = m.cgroup(c)
	}
	if len(m.cfg.modules) > 0 {
		var err error
		if initrd, err = withModules(initrd, path, m.cfg.modules); err != nil {
			return fmt.Errorf("machine: modules: %w", err)
		}
		defer initrd.Close()
		path = ""
	}
	cfg := uml.Config{
		Kernel: m.cfg.kernel, Info: m.cfg.info, LPJ: m.cfg.lpj, Memory: m.cfg.memory, InitRD: initrd, InitRDPath: path, Init: "/seki", OneCPU: true,
		Devices: []uml.Device{{ID: int(m.agent.device().Type())}}, Append: slices.Concat(agentWords, m.agent.args()),
		UID: int(c.IDBase), GID: int(c.IDBase), Console: m.console, Cgroup: group, CPUs: m.cfg.cpus,
	}
	for range m.cards() {
		cfg.Devices = append(cfg.Devices, uml.Device{ID: virtio.TypeNet})
	}
	u, err := uml.Start(ctx, &cfg)
	if err != nil {
		return err
	}
	m.guest = u
	if m.shared != nil {
		m.shared.pid = u.PID
	}
	m.serve(u)
	return nil
}

// serve serves the devices, each on a goroutine that ends with the machine. The
// kernel sets them up one after the other.
func (m *machine) serve(u *uml.Machine) {
	devices := append([]virtio.Device{m.agent.device()}, m.cards()...)
	for i, d := range devices {
		v := vhostuser.Config{Device: d, MaxMemory: uint64(m.cfg.memory) + 64<<20, Log: m.log}
		if d == virtio.Device(m.shared) {
			v.Memory = m.shared.memory
		}
		m.serving.Go(func() {
			conn, err := u.Accept(i)
			if err != nil {
				return // the machine has ended, and says why itself
			}
			err = vhostuser.Serve(context.Background(), conn, v)
			if err != nil {
				// A card without its guard must not go on, and nothing else can.
				m.log.Error("machine ended: device", "device", i, "err", err)
				u.Kill()
			}
		})
	}
}

// umlModules finds what a guest needs of the modules of a distribution's kernel. One
// that has none on this host may have everything built in.
func umlModules(image, release string) ([]string, error) {
	dir, err := kmod.Find(kmod.UML, image, release)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("machine uml: %w", err)
	}
	files, err := resolveModules(dir, guestModules)
	if err != nil {
		return nil, fmt.Errorf("machine uml: %w", err)
	}
	return files, nil
}
