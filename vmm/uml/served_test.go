package uml_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/uml"
	"sekimori/vmm/vhostuser"
	"sekimori/vmm/virtio"
)

// A card's other end, which hands the test what it sends.
type wire chan []byte

func (w wire) Transmit(frame []byte, _ uint16)                { w <- bytes.Clone(frame) }
func (w wire) Refuse(_ []byte, _ uint16, why virtio.NetFault) { w <- []byte(why.String()) }

// TestServed boots a guest with a card, in the jail: all that the kernel does
// for one is on the filter's list, and the guest's memory comes out of the
// jail as the descriptor that the device wants.
func TestServed(t *testing.T) {
	k := requireKernel(t)
	guest := filepath.Join(t.TempDir(), "guest")
	if dir := os.Getenv(asUser); dir != "" {
		guest = filepath.Join(dir, "guest")
	} else {
		buildGuest(t, guest)
	}
	c := config(k, archive(t, guest))
	c.Devices = []uml.Device{{ID: 1}}
	frames := make(wire, 1000)
	card, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2, 0, 0, 0, 0, 2}, Backend: frames})
	if err != nil {
		t.Fatal(err)
	}
	m, err := uml.Start(ctx(t), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	conn, err := m.Accept(0)
	if err != nil {
		t.Fatal(err)
	}
	cx, cancel := context.WithCancel(ctx(t))
	served := make(chan error, 1)
	go func() {
		served <- vhostuser.Serve(cx, conn, vhostuser.Config{Device: card, MaxMemory: uint64(c.Memory), Memory: func(*guestmem.Memory) {}})
	}()
	defer func() {
		cancel()
		<-served
	}()
	select {
	case f := <-frames: // the guest asks for 10.0.0.1, or an IPv6 group for its members
		if len(f) < 14 || !bytes.Equal(f[6:12], []byte{2, 0, 0, 0, 0, 2}) {
			t.Errorf("the guest sent % x", f)
		}
	case <-m.Done():
		t.Fatalf("the machine ended: %v\n%s", m.Wait(), m.Console())
	case err := <-served:
		t.Fatalf("Serve = %v\n%s", err, m.Console())
	case <-time.After(30 * time.Second):
		t.Fatalf("no frame came\n%s", m.Console())
	}
}

// buildGuest builds the guest of package vhostuser's tests.
func buildGuest(t *testing.T, out string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", out, "../vhostuser/testdata/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
}
