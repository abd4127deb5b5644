package nested_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sekimori/e2e/nested"
	"sekimori/vmm/bzimage"
)

// guestModules are what a guest of ours needs: its devices and its links.
var guestModules = []string{"virtio_mmio", "virtio_net", "macvlan", "veth", "bridge"}

// TestAttribution runs e2e's TestAttributionKVM, for each of Debian's kernels.
func TestAttribution(t *testing.T) {
	t.Parallel()
	for _, series := range []string{"6.1", "6.12"} {
		t.Run(series, func(t *testing.T) {
			t.Parallel()
			guest := nested.Require(t, series)
			files := append(attributionFiles(t, guest), nested.File{Name: "tests/e2e.test", From: nested.BuildTest(t, "sekimori/e2e"), Mode: 0o755})
			ctx, m := boot(t, nested.Config{Kernel: nested.Require(t, "6.1"), Modules: []string{"kvm-amd", "tun"}, Files: files})
			out := &logger{t: t}
			status, err := m.Run(ctx, out, "SEKI_TEST_GUEST=/guest", "/tests/e2e.test", "-test.v", "-test.run=KVM$", "-test.timeout=8m")
			if err != nil {
				t.Fatal(err)
			}
			if status != 0 || !out.passed {
				t.Errorf("status %d; TestAttributionKVM has passed: %v", status, out.passed)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// attributionFiles are what the tests boot.
func attributionFiles(t *testing.T, k nested.Kernel) []nested.File {
	t.Helper()
	f, err := os.Open(k.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	vmlinux, err := bzimage.Unpack(f)
	if err != nil {
		t.Fatal(err)
	}
	files := []nested.File{
		{Name: "guest/vmlinux", Data: vmlinux, Mode: 0o644},
		{Name: "guest/vmlinuz", From: k.Image, Mode: 0o644},
		{Name: "guest/guest", From: nested.Build(t, "sekimori/e2e/testdata/guest"), Mode: 0o755},
	}
	modules, err := k.Modules(guestModules...)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range modules {
		files = append(files, nested.File{Name: fmt.Sprintf("guest/modules/%02d-%s", i, filepath.Base(m)), From: m, Mode: 0o644})
	}
	return files
}

// A logger logs what a command writes, line by line.
type logger struct {
	t      *testing.T
	line   []byte
	passed bool // TestAttributionKVM did; it was not skipped, nor is it gone
}

func (l *logger) Write(b []byte) (int, error) {
	for _, c := range b {
		if c != '\n' {
			l.line = append(l.line, c)
			continue
		}
		l.t.Logf("%s", l.line)
		l.passed = l.passed || bytes.HasPrefix(l.line, []byte("--- PASS: TestAttributionKVM"))
		l.line = l.line[:0]
	}
	return len(b), nil
}
