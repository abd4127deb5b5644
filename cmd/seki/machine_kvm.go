package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"sekimori/introspect"
	"sekimori/vmm/bzimage"
	"sekimori/vmm/guestmem"
	"sekimori/vmm/hypercall"
	"sekimori/vmm/hypercall/doorbell"
	"sekimori/vmm/kmod"
	"sekimori/vmm/kvm"
	"sekimori/vmm/virtio"
)

// maxProcessors is how many a guest has at most where the file does not say.
const maxProcessors = 4

// startKVM starts a guest of KVM. initrd, or the file at path, is the agent.
func (m *machine) startKVM(ctx context.Context, initrd *os.File, path string) error {
	if initrd == nil {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("machine: %w", err)
		}
		defer f.Close()
		initrd = f
	}
	modules, err := moduleArchive(m.cfg.modules)
	if err != nil {
		return fmt.Errorf("machine: modules: %w", err)
	}
	defer modules.Close()
	args := m.agent.args()
	var running atomic.Pointer[guestmem.Memory]
	if m.shared != nil {
		// The kernel's image was read for the card, and says who rings, too.
		m.bell = &bell{server: hypercall.NewServer(m.policy, m.secret, doorbell.MaxRequest), log: m.log, memory: running.Load, reader: m.shared.reader}
		args = append(args, bellArg)
	}
	cfg := kvm.Config{
		Image: kvm.Kernel{
			Path: m.cfg.kernel, InitRD: []*os.File{initrd, modules},
			CommandLine: strings.Join(slices.Concat([]string{"quiet"}, m.cfg.args, []string{"rdinit=/seki", "--", "agent"}, args), " "),
		},
		Memory: m.cfg.memory, CPUs: processors(m.cfg.cpus), Console: m.console, Log: m.log,
	}
	for _, d := range append([]virtio.Device{m.agent.device()}, m.cards()...) {
		device := kvm.Device{Virtio: d}
		if d == virtio.Device(m.shared) {
			device.Kicked = m.shared.kicked
			device.Memory = func(mem *guestmem.Memory) {
				m.shared.memory(mem)
				running.Store(mem)
			}
			cfg.Doorbell = m.bell.serve
		}
		cfg.Devices = append(cfg.Devices, device)
	}
	g, err := kvm.Start(ctx, &cfg)
	if err != nil {
		return err
	}
	m.guest = g
	return nil
}

// kicked takes the registers of the vCPU that is about to send.
func (n *sharedNIC) kicked(r *kvm.Regs, _ int) {
	live := n.live.Load()
	if live == nil {
		return
	}
	regs := introspectRegisters(r) // a program may have the card's registers mapped
	live.guest.Enter(&regs)
}

// x86Reader reads a distribution's kernel, and the modules that its network card's
// driver is in. It returns when it has read the kernel.
func x86Reader(image string, modules []string) (reader, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	vmlinux := io.ReaderAt(f)
	if b, err := bzimage.Unpack(f); err == nil {
		vmlinux = bytes.NewReader(b)
	} else if !errors.Is(err, bzimage.ErrNotBzImage) {
		return nil, fmt.Errorf(`machine kvm: nic = "shared" reads the kernel: %s: %w`, image, err)
	}
	var drivers []io.ReaderAt
	for _, path := range modules {
		if name := kmod.Name(path); name == "virtio_net" || name == "virtio_ring" {
			b, err := kmod.Read(path)
			if err != nil {
				return nil, err
			}
			drivers = append(drivers, bytes.NewReader(b))
		}
	}
	k, err := introspect.ReadX86(vmlinux, drivers...)
	if err != nil {
		return nil, fmt.Errorf(`machine kvm: nic = "shared" reads the kernel: %s: %w`, image, err)
	}
	return k.Guest, nil
}

// processors is how many the guest gets: what the file says, else the host's.
func processors(cpus float64) int {
	if cpus > 0 {
		return int(math.Ceil(cpus))
	}
	return min(runtime.NumCPU(), maxProcessors)
}

// errNoGuestKernel says what a kernel for machine kvm is.
var errNoGuestKernel = errors.New("machine kvm: no kernel: name a distribution's, that has its modules and 9P\n    --kernel /boot/vmlinuz-..., of Debian's linux-image-amd64")

// guestKernel is the kernel of a machine on KVM, and the files of its modules: that
// at path, or the newest of the host's own that is good for it.
func guestKernel(path string) (string, []string, error) {
	if path != "" {
		files, err := modulesOf(path)
		return path, files, err
	}
	images, err := filepath.Glob("/boot/vmlinuz-*")
	if err != nil {
		return "", nil, err
	}
	slices.SortFunc(images, func(a, b string) int { return versionCompare(b, a) })
	for _, image := range images {
		if files, err := modulesOf(image); err == nil {
			return image, files, nil
		}
	}
	return "", nil, errNoGuestKernel
}

// modulesOf finds what a guest needs of the kernel's modules.
func modulesOf(image string) ([]string, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, fmt.Errorf("machine kvm: kernel: %w", err)
	}
	defer f.Close()
	dir, err := kmod.Find(kmod.Installed, image, kvm.Release(f))
	if err != nil {
		return nil, fmt.Errorf("machine kvm: %w", err)
	}
	files, err := resolveModules(dir, append([]string{"virtio_mmio"}, guestModules...))
	if err != nil {
		return nil, fmt.Errorf("machine kvm: %w", err)
	}
	return files, nil
}

// versionCompare orders names as people do: 6.9 before 6.12.
func versionCompare(a, b string) int {
	for a != "" && b != "" {
		na, restA := number(a)
		nb, restB := number(b)
		if na >= 0 && nb >= 0 {
			if c := cmp.Compare(na, nb); c != 0 {
				return c
			}
			a, b = restA, restB
			continue
		}
		if c := cmp.Compare(a[0], b[0]); c != 0 {
			return c
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// number is the number that s begins with, -1 if it does not, and what follows.
func number(s string) (int, string) {
	end := 0
	for end < len(s) && end < 9 && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	if err != nil {
		return -1, s
	}
	return n, s[end:]
}
