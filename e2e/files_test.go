package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent/p9"
	"sekimori/vmm/initramfs"
	"sekimori/vmm/uml"
	"sekimori/vmm/uml/kernel"
	"sekimori/vmm/vhostuser"
	"sekimori/vmm/virtio"
)

// Ports, as in testdata/guestfiles.
const (
	portFiles  = 564
	portReport = 1
	portSink   = 2
	portSource = 3
	portEcho   = 4
	portGuest  = 5
)

// exports makes the directories that the guest gets, with a secret beside them
// and links to it in them.
func exports(t *testing.T, program []byte) (rw, ro, secret string) {
	t.Helper()
	top := t.TempDir()
	rw, ro, secret = top+"/rw", top+"/ro", top+"/secret"
	file := func(path string, data []byte, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
	}
	file(secret+"/file", []byte("secret"), 0o644)
	file(rw+"/locked", make([]byte, 100), 0o644)
	file(ro+"/file", []byte("exported"), 0o644)
	file(ro+"/hidden/file", []byte("secret"), 0o644)
	file(ro+"/program", program, 0o755)
	file(ro+"/large", make([]byte, 64<<20), 0o644)
	for i := range 300 {
		file(fmt.Sprint(ro, "/small/", i), bytes.Repeat([]byte{byte(i)}, 1000), 0o644)
	}
	for name, target := range map[string]string{"to-the-secret": secret, "to-the-root": "/proc/self/root", "up": ".."} {
		if err := os.Symlink(target, rw+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	return rw, ro, secret
}

// TestGuestFiles boots a guest whose files come over 9P on vsock: the Linux
// kernel's own client does with them what programs do, and cannot do what it
// must not. The figures are in the log.
func TestGuestFiles(t *testing.T) {
	require(t, "uml", "landlock", "go")
	k, err := kernel.Find(kernel.Dirs(os.Getenv)...)
	if err != nil {
		t.Fatal(err)
	}
	program := buildGuest(t, "./testdata/guestfiles")
	rw, ro, secret := exports(t, program)

	dev, err := virtio.NewVsock(virtio.VsockConfig{CID: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	serveFiles(t, ctx, dev, rw, ro)
	serveStreams(t, dev)
	held := lockFile(t, rw+"/locked")
	defer held.Close()
	results := listenOn(t, dev, portReport)

	m, err := uml.Start(ctx, &uml.Config{Kernel: k.Path, Info: &k.Info, LPJ: 12_000_000, Memory: 128 << 20,
		InitRD: archiveOf(t, program), Devices: []uml.Device{{ID: virtio.TypeVsock}}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	conn, err := m.Accept(0)
	if err != nil {
		t.Fatal(err, m.Console())
	}
	served := make(chan error, 1)
	go func() {
		served <- vhostuser.Serve(ctx, conn, vhostuser.Config{Device: dev, MaxMemory: 128 << 20})
	}()

	readReport(t, ctx, results, dev, m)
	select {
	case <-m.Done():
	case <-ctx.Done():
		t.Errorf("the guest does not end:\n%s", m.Console())
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	checkHost(t, rw, ro, secret)
	if s := dev.Stats(); s.BadChains+s.Foreign+s.Violations != 0 {
		t.Errorf("the guest's driver is counted as dishonest: %+v", s)
	}
	if t.Failed() {
		t.Logf("console:\n%s", m.Console())
	}
}

// buildGuest builds a guest's program, static.
func buildGuest(t *testing.T, pkg string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "init")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// archiveOf is an initial file system with that program as its init.
func archiveOf(t *testing.T, program []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	err = initramfs.Write(f, []initramfs.Entry{
		{Name: "dev", Mode: fs.ModeDir | 0o755},
		{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Name: "init", Mode: 0o755, Data: bytes.NewReader(program), Size: int64(len(program))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func listenOn(t *testing.T, dev *virtio.Vsock, port uint32) net.Listener {
	t.Helper()
	l, err := dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func serveFiles(t *testing.T, ctx context.Context, dev *virtio.Vsock, rw, ro string) {
	t.Helper()
	open := func(dir string, opts p9.Options) *p9.Export {
		e, err := p9.Open(dir, opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		return e
	}
	// The guest's root is who runs the test.
	me := &p9.Owner{}
	s, err := p9.NewServer(p9.Config{Exports: map[string]*p9.Export{
		"rw": open(rw, p9.Options{Writable: true, Owners: p9.Owners{Squash: me}}),
		"ro": open(ro, p9.Options{Hide: []string{"hidden"}, Owners: p9.Owners{Squash: me}}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	l := listenOn(t, dev, portFiles)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		l.Close()
		dev.Close() // and so the connections
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// serveStreams serves the ports that measure.
func serveStreams(t *testing.T, dev *virtio.Vsock) {
	t.Helper()
	for port, serve := range map[uint32]func(net.Conn) error{
		portSink: func(c net.Conn) error {
			if _, err := io.Copy(io.Discard, c); err != nil {
				return err
			}
			_, err := c.Write([]byte{1})
			return err
		},
		portSource: func(c net.Conn) error { _, err := c.Write(make([]byte, 64<<20)); return err },
		portEcho:   func(c net.Conn) error { _, err := io.Copy(c, c); return err },
	} {
		l := listenOn(t, dev, port)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			if err := serve(c); err != nil {
				t.Errorf("port %d: %v", port, err)
			}
			c.Close()
		}()
	}
}

// lockFile holds bytes 0 to 9 of a file.
func lockFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 10}); err != nil {
		t.Fatal(err)
	}
	return f
}

// readReport reads what the guest says of each check.
func readReport(t *testing.T, ctx context.Context, l net.Listener, dev *virtio.Vsock, m *uml.Machine) {
	t.Helper()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	go func() { <-m.Done(); l.Close() }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatalf("the guest reports nothing: %v\n%s", err, m.Console())
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	lines, n := bufio.NewScanner(conn), 0
	for lines.Scan() {
		verdict, rest, _ := strings.Cut(lines.Text(), "\t")
		name, detail, _ := strings.Cut(rest, "\t")
		switch {
		case name == "done":
			if n < 25 {
				t.Errorf("only %d checks", n)
			}
			return
		case verdict != "ok":
			t.Errorf("in the guest: %s: %s", name, detail)
		case name == "listening":
			connectToGuest(t, ctx, dev)
		case detail != "":
			t.Logf("%s: %s", name, detail)
		}
		n++
	}
	t.Errorf("the report ends after %d checks: %v\n%s", n, lines.Err(), m.Console())
}

// connectToGuest sends a megabyte to the guest, which echoes it while it comes,
// and knocks where nobody listens.
func connectToGuest(t *testing.T, ctx context.Context, dev *virtio.Vsock) {
	t.Helper()
	if _, err := dev.Dial(ctx, portGuest+1); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial a port of the guest that nobody listens on: %v; want ECONNREFUSED", err)
	}
	c, err := dev.Dial(ctx, portGuest)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i * i >> 9)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("echoed %d bytes, %v; want %d", len(got), err, len(want))
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// checkHost looks at what the guest has left on the host.
func checkHost(t *testing.T, rw, ro, secret string) {
	t.Helper()
	for path, want := range map[string]string{
		secret + "/file": "secret", ro + "/file": "exported", ro + "/hidden/file": "secret", ro + "/small/1": string(bytes.Repeat([]byte{1}, 1000)),
		rw + "/file.new": "0123456789appended", rw + "/file2.link": "0123456789appended", rw + "/mapped": string(make([]byte, 5000)) + "mapped" + string(make([]byte, 3186)),
	} {
		if got, err := os.ReadFile(path); string(got) != want {
			t.Errorf("%s has %.40q, %v; want %.40q", filepath.Base(path), got, err, want)
		}
	}
	for path, want := range map[string]os.FileMode{
		"program": 0o755, "fifo": os.ModeNamedPipe | 0o600, "socket": 0, "device": 0, "gone": 0, "mine": 0,
	} {
		fi, err := os.Lstat(rw + "/" + path)
		if want == 0 != (err != nil) || err == nil && fi.Mode() != want {
			t.Errorf("%s on the host: %v, %v; want mode %v", path, fi, err, want)
		}
	}
}
