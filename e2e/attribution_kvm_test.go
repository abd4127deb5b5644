package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekimori/introspect"
	"sekimori/vmm/initramfs"
	"sekimori/vmm/kvm"
)

// guestDir names a directory with what a Linux guest of KVM boots, on a machine
// whose /dev/kvm runs Linux: vmlinuz, vmlinux, modules/ and guest, the program of
// testdata/guest. e2e/nested makes such a machine, and runs these tests there.
const guestDir = "SEKI_TEST_GUEST"

// slow is the load of a machine where a kick takes half a millisecond.
const slow load = 200

// TestAttributionKVM is TestAttribution on a distribution's kernel, and KVM: the
// sender is found through the guest's page tables, from the registers of the
// vCPU that kicked.
func TestAttributionKVM(t *testing.T) {
	dir := os.Getenv(guestDir)
	if dir == "" {
		t.Skip("needs ", guestDir, ": e2e/nested runs it")
	}
	for _, tt := range []struct{ mode, image, params string }{
		// As distributions boot it: it unpacks itself, to a place of its own
		// choice, and its page tables are not those of its processes.
		{"macvlan", "vmlinuz", fmt.Sprintf("pti=on iomem=relaxed kick=%#x", notify)},
		{"bridge", "vmlinux", "mitigations=off"},
	} {
		t.Run(tt.mode, func(t *testing.T) { attributionKVM(t, dir, tt.mode, tt.image, tt.params) })
	}
}

// notify is the register of the first device that kicks its queues (virtio 1.2,
// 4.2.2), where machine kvm has it.
const notify = 0xd000_0050

func attributionKVM(t *testing.T, dir, mode, kernel, params string) {
	image := readX86(t, dir)
	c, table, received := newSharedCard(t, mode)
	said := &console{ready: make(chan []introspect.Member, 1)}
	looked := make(chan struct{}) // closed when the guest can be looked into
	begin := time.Now()
	m, err := kvm.Start(t.Context(), &kvm.Config{
		Image: kvm.Kernel{Path: filepath.Join(dir, kernel), InitRD: []*os.File{kvmArchive(t, dir)},
			CommandLine: fmt.Sprintf("quiet links=%s datagrams=%d stream=32768 %s %s", mode, slow, params, os.Getenv(kernelArg))},
		Memory: 256 << 20, Console: said,
		Devices: []kvm.Device{{Virtio: c, Kicked: func(r *kvm.Regs, _ int) {
			<-looked
			c.enter(r)
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if c.guest, err = image.Guest(m.Memory(), c.members); err != nil {
		t.Fatal(err)
	}
	close(looked)
	took := c.run(said, m, 4*time.Minute)
	t.Logf("boot to end %v, %d exits", time.Since(begin), m.Exits())
	c.report(t, table, mode, slow, took)
	t.Logf("the peer received %d datagrams", received())

	const linked = 0xffff_ffff_8100_0000
	slide, found := c.guest.Slide()
	if !found || said.text != linked+slide {
		t.Errorf("the kernel is found at a distance of %#x (%v); it says that it lies at %#x", slide, found, said.text)
	}
	t.Logf("the kernel lies at %#x", said.text)
	if want := strings.Contains(params, "kick="); (c.ring3 > 0) != want {
		t.Errorf("%d kicks from ring 3", c.ring3)
	}
}

// enter tells where the vCPU stands.
func (c *sharedCard) enter(r *kvm.Regs) {
	in := introspect.Registers{CR3: r.CR3, CR4: r.CR4, GSBase: r.GSBase, RSP: r.RSP, TaskState: r.TRBase, User: r.CPL == 3}
	if in.User {
		var err error
		if in.KernelGSBase, err = r.KernelGSBase(); err != nil {
			c.t.Error(err)
		}
	}
	c.guest.Enter(&in)
	if in.User {
		c.ring3++
		// Who kicks is process 1; whose page tables are in force says nothing.
		if task, err := c.guest.Running(); err != nil || task.TGID != 1 || task.Context != introspect.ContextProcess {
			c.t.Errorf("from ring 3: Running = %+v, %v; want process 1", task, err)
		}
	}
}

// readX86 reads what introspection needs to know of the kernel in dir.
func readX86(t *testing.T, dir string) *introspect.X86Kernel {
	t.Helper()
	var files []io.ReaderAt
	names, err := filepath.Glob(filepath.Join(dir, "modules", "*-virtio_*.ko"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{filepath.Join(dir, "vmlinux")}, names...) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	begin := time.Now()
	k, err := introspect.ReadX86(files[0], files[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the kernel was read in %v", time.Since(begin))
	return k
}

// kvmArchive is an initial file system with testdata/guest and the modules.
func kvmArchive(t *testing.T, dir string) *os.File {
	t.Helper()
	entries := []initramfs.Entry{
		{Name: "dev", Mode: fs.ModeDir | 0o755},
		{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Name: "dev/null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 1, Minor: 3},
		{Name: "proc", Mode: fs.ModeDir | 0o755},
		{Name: "cgroup", Mode: fs.ModeDir | 0o755},
		{Name: "sys", Mode: fs.ModeDir | 0o755},
		{Name: "modules", Mode: fs.ModeDir | 0o755},
	}
	modules, err := filepath.Glob(filepath.Join(dir, "modules", "*.ko"))
	if err != nil {
		t.Fatal(err)
	}
	entries = append(entries, fileEntry(t, filepath.Join(dir, "guest"), "init", 0o755))
	for _, m := range modules {
		entries = append(entries, fileEntry(t, m, "modules/"+filepath.Base(m), 0o644))
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := initramfs.Write(f, entries); err != nil {
		t.Fatal(err)
	}
	return f
}

func fileEntry(t *testing.T, from, name string, mode fs.FileMode) initramfs.Entry {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	return initramfs.Entry{Name: name, Mode: mode, Data: bytes.NewReader(b), Size: int64(len(b))}
}
