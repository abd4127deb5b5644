package nested_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sekimori/e2e/nested"
)

// bootTime is what a boot of L1 and its commands may take, which bounds what hangs:
// a boot takes 7 s where nothing else runs.
const bootTime = 25 * time.Minute

func boot(t *testing.T, cfg nested.Config) (context.Context, *nested.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	t.Cleanup(cancel)
	cfg.Init = nested.BuildInit(t)
	cfg.Files = append(cfg.Files, nested.Busybox)
	m, err := nested.Boot(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, m
}

// TestBoot: L1 has a /dev/kvm that runs a guest, and says truly how its
// commands end.
func TestBoot(t *testing.T) {
	t.Parallel()
	kernel := nested.Require(t, "6.1")
	ctx, m := boot(t, nested.Config{Kernel: kernel, Modules: []string{"kvm-amd", "tun", "serial_core"},
		Files: []nested.File{{Name: "tests/nested.test", From: nested.BuildTest(t, "sekimori/e2e/nested"), Mode: 0o755}}})
	if m.Release != kernel.Release {
		t.Errorf("release %q; want %q", m.Release, kernel.Release)
	}
	for _, tt := range []struct {
		args   []string
		status int
		out    string // a part of it
	}{
		{[]string{"SEKI_TEST_REQUIRE=kvm", "/tests/nested.test", "-test.v", "-test.run=^TestMiniGuest$"}, 0, "--- PASS: TestMiniGuest"},
		{[]string{"/tests/nested.test", "-test.nothing"}, 2, "flag provided but not defined"},
		{[]string{"sh", "-c", "echo out; echo err >&2; exit 3"}, 3, "out\nerr\n"},
		{[]string{"A=b", "sh", "-c", "echo $A; kill -9 $$"}, 128 + 9, "b\n"},
		{[]string{"/nothing"}, 127, "no such file or directory"},
		{[]string{"sh", "-c", "yes | head -c 100000 | wc -c; cat /sys/module/kvm_amd/parameters/npt"}, 0, "100000\nY\n"},
		{[]string{"unshare", "-m", "sh", "-c", "mkdir /tmp/n && mount -t tmpfs none /tmp/n && mkdir /tmp/n/old && pivot_root /tmp/n /tmp/n/old"}, 0, ""},
	} {
		var out bytes.Buffer
		status, err := m.Run(ctx, &out, tt.args...)
		if err != nil {
			t.Fatal(err)
		}
		if status != tt.status || !strings.Contains(out.String(), tt.out) {
			t.Errorf("%s: %d, %q; want %d, %q", strings.Join(tt.args, " "), status, out.String(), tt.status, tt.out)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// TestPanic: a machine that dies under a command is told as that, with the last
// words of its console.
func TestPanic(t *testing.T) {
	t.Parallel()
	ctx, m := boot(t, nested.Config{Kernel: nested.Require(t, "6.12")})
	status, err := m.Run(ctx, &bytes.Buffer{}, "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000")
	if err == nil || !strings.Contains(err.Error(), "Kernel panic - not syncing: sysrq triggered crash") {
		t.Errorf("Run = %d, %v; want the panic", status, err)
	}
}

// TestTimeout: who waits no longer has no machine, and nothing of it is left.
func TestTimeout(t *testing.T) {
	kernel := nested.Require(t, "6.1")
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	m, err := nested.Boot(ctx, nested.Config{Kernel: kernel, Init: os.Args[0]}) // which says nothing, if it comes to that
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Boot = %v, %v; want %v", m, err, context.DeadlineExceeded)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "seki-nested*")); len(left) > 0 || err != nil {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestModules(t *testing.T) {
	for _, series := range []string{"6.1", "6.12"} {
		k := nested.Require(t, series)
		files, err := k.Modules("kvm-amd", "virtio_net", "virtio_pci")
		if err != nil {
			t.Fatal(err)
		}
		at := func(name string) int {
			return slices.IndexFunc(files, func(f string) bool { return filepath.Base(f) == name })
		}
		if kvm, amd := at("kvm.ko"), at("kvm-amd.ko"); kvm < 0 || amd < kvm {
			t.Errorf("%s: kvm is number %d, kvm-amd %d", series, kvm, amd)
		}
		if pci := at("virtio_pci.ko"); (pci < 0) != (series == "6.12") {
			t.Errorf("%s: virtio_pci is number %d", series, pci)
		}
		if files, err := k.Modules("no_such"); err == nil || !strings.Contains(err.Error(), "no module no_such") {
			t.Errorf("%s: Modules = %v, %v", series, files, err)
		}
	}
}
