package kvm_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sekimori/vmm/bzimage"
	"sekimori/vmm/initramfs"
	"sekimori/vmm/kmod"
	"sekimori/vmm/kvm"
	"sekimori/vmm/virtio"
)

// What the host and process 1 of the guest (guest_test.go) have agreed on.
const (
	guestPort = 1024
	guestMAC  = "\x02\x00\x00\x00\x00\x07"
	etherType = "\x88\xb5" // IEEE 802's for experiments
)

// TestLinux boots the kernel that SEKI_TEST_LINUX names, as it was installed, and
// talks with a program in it: over its socket device and its card, both ways. The
// guest ends in each of the ways that a guest does.
func TestLinux(t *testing.T) {
	image := os.Getenv("SEKI_TEST_LINUX")
	require(t, "kvm-linux", image != "" && kvm.Probe(t.Context()) == nil)
	vmlinux := unpacked(t, image)
	cases := []struct {
		name   string
		image  string
		cpus   int
		memory int64
		end    string
		want   string // what Wait says
	}{
		{"two processors, power off", image, 2, 192 << 20, "poweroff", ""},
		{"unpacked, by PVH, restart", vmlinux, 1, 192 << 20, "restart", "machine: the guest restarted"},
		{"above 4 GiB, panic", image, 1, 4 << 30, "panic", "machine: the guest's kernel panicked: its first process ended"},
		{"as little memory as there may be, killed", vmlinux, 1, 96 << 20, "hang", "machine: killed"},
	}
	if testing.Short() { // a boot takes half a minute where everything is emulated
		cases = cases[:2]
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			g := bootGuest(t, tt.image, tt.cpus, tt.memory)
			g.expect(fmt.Sprintf("ready %d processors", tt.cpus))
			if mem := g.line(); !strings.HasPrefix(mem, "memory ") {
				t.Errorf("the guest says %q", mem)
			}
			g.frames()
			g.say("ring")
			g.expect("answered 20000 bytes")
			g.say(tt.end)
			if tt.end == "hang" {
				g.expect("hanging")
				g.m.Kill()
			}
			err := g.m.Wait()
			if (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("Wait = %v; want %q", err, tt.want)
			}
			t.Logf("%d exits", g.m.Exits())
		})
	}
}

// A guest is a Linux that runs, and what came of it.
type guest struct {
	t    *testing.T
	m    *kvm.Machine
	card *virtio.Net
	conn net.Conn
	in   *bufio.Reader

	mu   sync.Mutex // mu guards what follows
	sent [][]byte
	cpus []int // of the kicks
}

func (g *guest) Transmit(f []byte, _ uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if bytes.Equal(f[12:14], []byte(etherType)) { // the kernel has things to say of its own
		g.sent = append(g.sent, slices.Clone(f))
	}
}

func (g *guest) Refuse(_ []byte, _ uint16, why virtio.NetFault) { g.t.Errorf("refused: %v", why) }

// guestTime is what a boot may take: half a minute where everything is emulated.
const guestTime = 5 * time.Minute

func bootGuest(t *testing.T, image string, cpus int, memory int64) *guest {
	t.Helper()
	g := &guest{t: t}
	var err error
	if g.card, err = virtio.NewNet(virtio.NetConfig{MAC: [6]byte([]byte(guestMAC)), Backend: g}); err != nil {
		t.Fatal(err)
	}
	sockets, err := virtio.NewVsock(virtio.VsockConfig{CID: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockets.Close() })
	l, err := sockets.Listen(guestPort)
	if err != nil {
		t.Fatal(err)
	}
	kicked := func(r *kvm.Regs, queue int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.cpus = append(g.cpus, r.CPU)
		if r.CPL != 0 || r.GSBase>>47 == 0 || r.CR3 == 0 { // a kernel's per-CPU data is in its half
			t.Errorf("a kick of queue %d with %+v", queue, *r)
		}
	}
	g.m, err = kvm.Start(t.Context(), &kvm.Config{
		Image:  kvm.Kernel{Path: image, InitRD: []*os.File{selfArchive(t), moduleArchive(t)}, CommandLine: "quiet rdinit=/init " + os.Getenv("SEKI_TEST_KERNEL_ARG")},
		Memory: memory, CPUs: cpus,
		Devices:  []kvm.Device{{Virtio: sockets}, {Virtio: g.card, Kicked: kicked}},
		Doorbell: rung(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.m.Close() })
	stop := time.AfterFunc(guestTime, func() { l.Close() })
	defer stop.Stop()
	go func() { // ends with the machine
		<-g.m.Done()
		l.Close()
	}()
	if g.conn, err = l.Accept(); err != nil {
		g.m.Kill()
		t.Fatalf("no word of the guest: %v, %v\n%s", err, g.m.Wait(), g.m.Console())
	}
	g.in = bufio.NewReader(g.conn)
	return g
}

// rung answers with the request, twice; it is longer than a page, and comes from a
// program.
func rung(t *testing.T) func(*kvm.Regs, []byte) []byte {
	return func(r *kvm.Regs, request []byte) []byte {
		gs, err := r.KernelGSBase()
		if r.CPL != 3 || err != nil || gs>>47 == 0 || !bytes.Equal(request, ringing()) {
			t.Errorf("a request of %d bytes with %+v, kernel's GS %#x, %v", len(request), *r, gs, err)
		}
		return append(bytes.Clone(request), request...)
	}
}

// ringing is what the guest asks.
func ringing() []byte {
	b := make([]byte, 10000)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func (g *guest) line() string {
	g.t.Helper()
	s, err := g.in.ReadString('\n')
	if err != nil {
		g.t.Fatalf("the guest: %v\n%s", err, g.m.Console())
	}
	return strings.TrimSpace(s)
}

func (g *guest) expect(want string) {
	g.t.Helper()
	if got := g.line(); got != want {
		g.t.Fatalf("the guest says %q; want %q", got, want)
	}
}

func (g *guest) say(s string) {
	g.t.Helper()
	if _, err := fmt.Fprintln(g.conn, s); err != nil {
		g.t.Fatal(err)
	}
}

// frames has the guest send some, and receive some.
func (g *guest) frames() {
	g.t.Helper()
	const n = 50
	g.say("send")
	g.expect("sent")
	g.mu.Lock()
	sent, kicks := g.sent, len(g.cpus)
	g.mu.Unlock()
	if len(sent) != n || kicks == 0 {
		g.t.Errorf("%d frames were sent in %d kicks; want %d", len(sent), kicks, n)
	}
	for i, f := range sent {
		if len(f) < 60 || f[14] != byte(i) {
			g.t.Errorf("frame %d: % x", i, f)
			break
		}
	}
	g.say("receive")
	g.expect("listening")
	for i := range n {
		f := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x08"+etherType), make([]byte, 46)...)
		f[14] = byte(i)
		if err := g.card.Deliver(f); err != nil {
			g.t.Fatalf("Deliver of frame %d: %v", i, err)
		}
	}
	g.expect(fmt.Sprintf("received %d", n))
}

// selfArchive has this program as the guest's init.
func selfArchive(t *testing.T) *os.File {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	st, err := self.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return archive(t, []initramfs.Entry{
		{Name: "dev", Mode: fs.ModeDir | 0o755},
		{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Name: "proc", Mode: fs.ModeDir | 0o755},
		{Name: "init", Mode: 0o755, Data: self, Size: st.Size()},
	})
}

// moduleArchive has what a distribution's kernel has in modules.
func moduleArchive(t *testing.T) *os.File {
	t.Helper()
	path := os.Getenv("SEKI_TEST_LINUX")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	release := kvm.Release(f)
	dir, err := kmod.Find(kmod.Installed, path, release)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := kmod.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	files, err := tree.Resolve("virtio_mmio", "virtio_net", "vmw_vsock_virtio_transport")
	if err != nil {
		t.Fatal(err)
	}
	entries := []initramfs.Entry{{Name: "modules", Mode: fs.ModeDir | 0o755}}
	for i, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, initramfs.Entry{Name: fmt.Sprintf("modules/%02d-%s", i, filepath.Base(name)), Mode: 0o644, Data: bytes.NewReader(b), Size: int64(len(b))})
	}
	return archive(t, entries)
}

func archive(t *testing.T, entries []initramfs.Entry) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "archive")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := initramfs.Write(f, entries); err != nil {
		t.Fatal(err)
	}
	return f
}

// unpacked is the kernel of an image as a file.
func unpacked(t *testing.T, image string) string {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := bzimage.Unpack(f)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(out, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}
