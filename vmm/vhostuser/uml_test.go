package vhostuser_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/uml/kernel"
	"sekimori/vmm/vhostuser"
	"sekimori/vmm/virtio"
)

// require skips the test where this machine lacks feature, unless
// SEKI_TEST_REQUIRE lists it: then that is a failure.
func require(t testing.TB, feature string, have bool) {
	t.Helper()
	if have {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), feature) {
		t.Fatalf("this machine lacks %s, which SEKI_TEST_REQUIRE asks for", feature)
	}
	t.Skipf("needs %s", feature)
}

// umlKernel returns a User-Mode Linux kernel: the one that SEKI_TEST_UML names,
// or the newest that was built here.
func umlKernel(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("SEKI_TEST_UML"); path != "" {
		return path
	}
	kernels, err := kernel.List(kernel.Dirs(os.Getenv)...)
	if err != nil {
		t.Fatal(err)
	}
	require(t, "uml", len(kernels) > 0)
	return kernels[0].Path
}

var (
	hostMAC  = [6]byte{2, 0, 0, 0, 0, 1}
	guestMAC = [6]byte{2, 0, 0, 0, 0, 2}
)

// A lan is the other end of the guest's card: it answers ARP for 10.0.0.1 and
// hands the test what UDP comes.
type lan struct {
	t   testing.TB
	net *virtio.Net
	udp chan []byte // payloads
	// take, if it is there, takes the payloads instead, before the kick is
	// answered: a rate is not to be that of waking a test.
	take   atomic.Pointer[func([]byte)]
	faults chan virtio.NetFault
}

func (l *lan) Transmit(frame []byte, head uint16) {
	switch {
	case len(frame) >= 42 && frame[12] == 8 && frame[13] == 6: // ARP
		if frame[21] != 1 || !bytes.Equal(frame[38:42], []byte{10, 0, 0, 1}) {
			return
		}
		answer := slices.Concat(frame[6:12], hostMAC[:], frame[12:21], []byte{2}, hostMAC[:], frame[38:42], frame[22:32])
		if err := l.net.Deliver(answer); err != nil {
			l.t.Errorf("deliver arp: %v", err)
		}
	case len(frame) >= 42 && frame[12] == 8 && frame[13] == 0 && frame[23] == 17: // UDP
		payload := frame[42:][:binary.BigEndian.Uint16(frame[38:])-8]
		if take := l.take.Load(); take != nil {
			(*take)(payload)
			return
		}
		select {
		case l.udp <- slices.Clone(payload):
		default:
			l.t.Error("more datagrams than anybody asked for")
		}
	}
}

func (l *lan) Refuse(frame []byte, head uint16, why virtio.NetFault) { l.faults <- why }

// send delivers a datagram from 10.0.0.1:7 to 10.0.0.2:7.
func (l *lan) send(payload []byte) error {
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(payload)))
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	udp := []byte{0, 7, 0, 7, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	return l.net.Deliver(slices.Concat(guestMAC[:], hostMAC[:], []byte{8, 0}, ip, udp, payload))
}

func (l *lan) receive(t *testing.T, timeout time.Duration) []byte {
	t.Helper()
	select {
	case b := <-l.udp:
		return b
	case why := <-l.faults:
		t.Fatalf("the device refused a frame of the guest: %v", why)
	case <-time.After(timeout):
		t.Fatal("nothing came from the guest")
	}
	return nil
}

// A guest is a booted kernel, and the other end of its card.
type guest struct {
	*lan
	pid    int
	served chan error // what Serve returned
}

// boot boots the guest of testdata/guest on a network device, and returns when
// it has said hello.
func boot(t *testing.T, mtu int) *guest {
	t.Helper()
	image := umlKernel(t)
	dir := t.TempDir()
	initProgram := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-o", initProgram, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	program, err := os.ReadFile(initProgram)
	if err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, cpio(map[string][]byte{"init": program}), 0o600); err != nil {
		t.Fatal(err)
	}

	socket := filepath.Join(dir, "net")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	l := &lan{t: t, udp: make(chan []byte, 100000), faults: make(chan virtio.NetFault, 100000)}
	l.net, err = virtio.NewNet(virtio.NetConfig{MAC: guestMAC, MTU: mtu, Backend: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		conn, err := listener.AcceptUnix()
		if err != nil {
			served <- err
			return
		}
		served <- vhostuser.Serve(ctx, conn, vhostuser.Config{Device: l.net, MaxMemory: 64 << 20})
	}()
	t.Cleanup(cancel)

	console := new(bytes.Buffer)
	cmd := exec.Command("setarch", "-R", image, "mem=64M", "quiet", "lpj=12263424", "initrd="+initrd, "rdinit=/init",
		"con=null", "con0=null,fd:1", "uml_dir="+dir+"/", "virtio_uml.device="+socket+":1")
	// A kernel registers the restartable sequences of its process, which the
	// stubs that it clones do not have.
	cmd.Env = append(os.Environ(), "GLIBC_TUNABLES=glibc.pthread.rseq=0")
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("console:\n%s", console)
		}
	})
	g := &guest{l, cmd.Process.Pid, served}
	g.hello(t)
	return g
}

func (g *guest) hello(t *testing.T) {
	t.Helper()
	if b := g.receive(t, 30*time.Second); string(b) != "hello" {
		t.Fatalf("the guest says %q; want hello", b)
	}
}

// echo sends datagrams of growing size and waits for each to come back.
func (g *guest) echo(t *testing.T, n, size int) (times []time.Duration) {
	t.Helper()
	for i := range n {
		want := fmt.Appendf(nil, "echo %d %s", i, strings.Repeat("x", i*size/n))
		start := time.Now()
		if err := g.send(want); err != nil {
			t.Fatal(err)
		}
		if got := g.receive(t, 10*time.Second); !bytes.Equal(got, want) {
			t.Fatalf("echo %d = %q; want %q", i, got, want)
		}
		times = append(times, time.Since(start))
	}
	return times
}

// quit tells the guest to power off, and waits for the end of its connection.
func (g *guest) quit(t *testing.T) {
	t.Helper()
	for range 100 { // a busy guest drops datagrams
		if err := g.send([]byte("quit")); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, virtio.ErrDown) {
			t.Fatal(err)
		}
		select {
		case err := <-g.served:
			if err != nil {
				t.Errorf("Serve = %v; want nil when the guest is gone", err)
			}
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Error("the guest did not power off")
}

// cpio returns an archive of programs in the format newc
// (Documentation/driver-api/early-userspace/buffer-format.rst).
func cpio(files map[string][]byte) []byte {
	var out bytes.Buffer
	entry := func(name string, mode int, data []byte) {
		fmt.Fprintf(&out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		out.WriteString(name + "\x00")
		out.Write(make([]byte, -out.Len()&3))
		out.Write(data)
		out.Write(make([]byte, -out.Len()&3))
	}
	for name, data := range files {
		entry(name, unix.S_IFREG|0o755, data)
	}
	entry("TRAILER!!!", 0, nil)
	return out.Bytes()
}

// A real kernel speaks to the server: frames both ways, every one intact.
func TestUML(t *testing.T) {
	l := boot(t, 1500)
	t.Run("echo", func(t *testing.T) {
		times := l.echo(t, 2000, 1400)
		slices.Sort(times)
		t.Logf("round trip: median %v, min %v", times[len(times)/2], times[0])
	})
	t.Run("driver bound anew", func(t *testing.T) {
		for range 3 {
			if err := l.send([]byte("rebind")); err != nil {
				t.Fatal(err)
			}
			l.hello(t)
			l.echo(t, 20, 1400)
		}
	})
	t.Run("flood", func(t *testing.T) {
		const n = 5000
		done := make(chan int, 1)
		next := 0
		take := func(payload []byte) {
			if len(payload) != 1400 || string(payload[:8]) != fmt.Sprintf("%08d", next) {
				t.Errorf("datagram %d = %d bytes %q", next, len(payload), payload[:min(len(payload), 8)])
			}
			if next++; next == n {
				done <- next
			}
		}
		l.take.Store(&take)
		defer l.take.Store(nil)
		start, before := time.Now(), cpuTime(t)
		if err := l.send(fmt.Appendf(nil, "flood %d 1400", n)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
		case <-time.After(60 * time.Second):
			t.Fatal("the flood does not end")
		}
		took, cpu := time.Since(start), cpuTime(t)-before
		t.Logf("%d frames of 1442 bytes in %v: %.0f a second, %v of CPU here for each", n, took, n/took.Seconds(), cpu/n)
	})
	// More than the guest has buffers for: what does not fit is refused at once,
	// and the card works on afterwards. The guest's own socket drops some, too.
	t.Run("receive flood", func(t *testing.T) {
		sent, full := 0, 0
		for sent < 5000 {
			switch err := l.send([]byte("ping")); {
			case errors.Is(err, unix.EAGAIN):
				full++
				time.Sleep(time.Millisecond)
			case err != nil:
				t.Fatal(err)
			default:
				sent++
			}
		}
		t.Logf("%d delivered, %d times no buffer", sent, full)
		for deadline := time.Now().Add(20 * time.Second); ; {
			if err := l.send([]byte("last")); err != nil && !errors.Is(err, unix.EAGAIN) {
				t.Fatal(err)
			}
			if string(l.receive(t, time.Until(deadline))) == "last" {
				break
			}
		}
	})
	l.quit(t)
}

// With jumbo frames Linux posts receive buffers of many descriptors.
func TestUMLJumbo(t *testing.T) {
	g := boot(t, 9000)
	g.echo(t, 100, 8900)
	g.quit(t)
}

// The guest's physical memory is a file that the guest can cut off. Its kernel
// then hangs or dies as it likes; whoever serves its devices gets an error.
func TestUMLCutsItsMemory(t *testing.T) {
	g := boot(t, 1500)
	if n := cutMemory(t, g.pid); n == 0 {
		t.Fatal("the kernel has no file of its memory open")
	}
	if err := g.send([]byte("still there?")); err == nil {
		t.Error("Deliver into what is gone = nil")
	}
	if err := unix.Kill(g.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-g.served:
		if err != nil {
			t.Errorf("Serve = %v; want nil after a hang-up", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Serve goes on without a guest")
	}
}

// cutMemory truncates the files of a tmpfs that a process has open.
func cutMemory(t *testing.T, pid int) (n int) {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if to, err := os.Readlink(name); err != nil || !strings.HasPrefix(to, "/dev/shm/") {
			continue
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(0), f.Close()); err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// cpuTime is what this process has used so far.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
