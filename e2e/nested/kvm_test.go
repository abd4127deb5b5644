package nested_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"sekimori/e2e/nested"
)

// guestFiles are a kernel and those of its modules, for L1 to boot as L2.
func guestFiles(t *testing.T, k nested.Kernel, dir string, modules ...string) []nested.File {
	t.Helper()
	paths, err := k.Modules(modules...)
	if err != nil {
		t.Fatal(err)
	}
	files := []nested.File{
		{Name: dir + "/vmlinuz", From: k.Image, Mode: 0o644},
		{Name: dir + "/modules/modules.builtin", From: filepath.Join(filepath.Dir(k.Image), "modules", "modules.builtin"), Mode: 0o644},
	}
	for _, p := range paths {
		files = append(files, nested.File{Name: dir + "/modules/" + filepath.Base(p), From: p, Mode: 0o644})
	}
	return files
}

// TestKVM runs the tests of vmm/kvm and of its mini-guests where /dev/kvm can run Linux,
// and has the former boot Debian's kernels. Where the machine itself has a /dev/kvm,
// 20,000 frames of the mini-guest were sent there.
func TestKVM(t *testing.T) {
	t.Parallel()
	l1 := nested.Require(t, "6.1")
	files := []nested.File{
		{Name: "tests/kvm.test", From: nested.BuildTest(t, "sekimori/vmm/kvm"), Mode: 0o755},
		{Name: "tests/miniguest.test", From: nested.BuildTest(t, "sekimori/e2e/miniguest"), Mode: 0o755},
	}
	series := []string{"6.1", "6.12"}
	for _, s := range series {
		files = append(files, guestFiles(t, nested.Require(t, s), "guests/"+s, "virtio_mmio", "virtio_net", "vmw_vsock_virtio_transport")...)
	}
	ctx, m := boot(t, nested.Config{Kernel: l1, Modules: []string{"kvm-amd"}, Files: files, Memory: 2048})
	run := func(t *testing.T, args ...string) {
		var out bytes.Buffer
		status, err := m.Run(ctx, &out, args...)
		if err != nil {
			t.Fatal(err)
		}
		if t.Logf("%s", out.String()); status != 0 {
			t.Errorf("exit status %d", status)
		}
	}
	t.Run("mini-guests", func(t *testing.T) {
		run(t, "SEKI_TEST_REQUIRE=kvm", "SEKI_TEST_KVM_LINUX=1", "/tests/kvm.test", "-test.v")
	})
	t.Run("frames of a mini-guest", func(t *testing.T) {
		_, err := os.Stat("/dev/kvm")
		run(t, "SEKI_TEST_REQUIRE=kvm", "/tests/miniguest.test", "-test.v", "-test.short="+strconv.FormatBool(err == nil))
	})
	for _, s := range series {
		t.Run(s, func(t *testing.T) {
			short := "-test.short=" + strconv.FormatBool(s != series[0]) // it is the kernel that differs, not how it ends
			run(t, "SEKI_TEST_REQUIRE=kvm-linux", "SEKI_TEST_LINUX=/guests/"+s+"/vmlinuz", "/tests/kvm.test", "-test.v", "-test.run=^TestLinux$", short)
		})
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
