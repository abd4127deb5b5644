package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sekimori/introspect"
	"sekimori/vmm/bzimage"
	"sekimori/vmm/guestmem"
	"sekimori/vmm/hypercall"
	"sekimori/vmm/hypercall/doorbell"
	"sekimori/vmm/initramfs"
	"sekimori/vmm/kmod"
	"sekimori/vmm/kvm"
	"sekimori/vmm/virtio"
)

// guestModules are what the agent and the containers stand on, and a
// distribution's kernel has in modules: the devices, the agent's way to its host,
// root file systems and volumes, layers over them, links on a shared card.
var guestModules = []string{"virtio_mmio", "virtio_net", "vmw_vsock_virtio_transport", "9pnet_fd", "9p", "overlay", "macvlan"}

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
			CommandLine: strings.Join(append([]string{"quiet", "rdinit=/seki", "--", "agent"}, args...), " "),
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

// modulesDir is where the guest finds them.
const modulesDir = "modules"

// moduleArchive has the modules in the order to load them, in memory.
func moduleArchive(files []string) (_ *os.File, err error) {
	fd, err := unix.MemfdCreate(modulesDir, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	out := os.NewFile(uintptr(fd), modulesDir)
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	entries := []initramfs.Entry{{Name: modulesDir, Mode: fs.ModeDir | 0o700}}
	for i, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		entries = append(entries, initramfs.Entry{
			Name: fmt.Sprintf("%s/%03d-%s", modulesDir, i, filepath.Base(path)), Mode: 0o400, Data: f, Size: st.Size(),
		})
	}
	if err := initramfs.Write(out, entries); err != nil {
		return nil, err
	}
	_, err = out.Seek(0, io.SeekStart)
	return out, err
}

// loadModules is the guest's side, before anything else: it loads them, and gives
// their memory back. A guest without such a directory has what it needs built in.
func loadModules() error {
	dir := "/" + modulesDir
	all, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := loadModule(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("load %s: %w", e.Name(), err)
		}
	}
	return os.RemoveAll(dir)
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(path) != ".ko" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE // the kernel unpacks what it was installed with
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return os.NewSyscallError("finit_module", err)
	}
	return nil
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
	dir, err := kmod.Find(image, kvm.Release(f))
	if err != nil {
		return nil, fmt.Errorf("machine kvm: %w", err)
	}
	tree, err := kmod.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("machine kvm: %w", err)
	}
	files, err := tree.Resolve(guestModules...)
	var missing *kmod.MissingError
	if errors.As(err, &missing) && strings.HasPrefix(missing.Module, "9p") {
		return nil, fmt.Errorf("machine kvm: %w: it cannot mount root file systems\n    Debian's cloud kernels have no 9P, those of linux-image-amd64 have", err)
	}
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
