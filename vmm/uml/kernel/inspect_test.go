package kernel_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sekimori/vmm/uml/kernel"
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

func TestInspectOurs(t *testing.T) {
	k, err := kernel.Find(kernel.Dirs(os.Getenv)...)
	require(t, "uml", err == nil)
	info, err := kernel.Inspect(k.Path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Release != k.Release || !info.Static || !info.BTF || !info.Symbols || !info.VirtIO || info.HostFS || info.Seccomp || len(info.Warnings) > 0 {
		t.Errorf("Inspect = %+v", info)
	}
	if !info.Before(6, 13) || info.Before(6, 12) || !info.Before(7, 0) {
		t.Errorf("%s is not before 6.13 and 7.0, or before 6.12", info.Release)
	}
}

// TestInspectRefuses files that a user may name by mistake.
func TestInspectRefuses(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	arm := slices.Clone(program)
	arm[18] = 183 // e_machine: aarch64
	tests := []struct {
		name, path, want string
	}{
		{"not there", filepath.Join(dir, "none"), "no such file"},
		{"a directory", dir, "not a regular file"},
		{"a device", "/dev/null", "not a regular file"},
		{"a bzImage", file("bzImage", append([]byte("MZ"), make([]byte, 4096)...)), "not an ELF file"},
		{"a program", self, "no User-Mode Linux kernel"},
		{"for another architecture", file("arm", arm), "not x86-64"},
		{"cut short", file("cut", program[:200]), "ELF"},
		{"empty", file("empty", nil), "not an ELF file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := kernel.Inspect(tt.path)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Inspect = %v; want %q", err, tt.want)
			}
		})
	}
}

// FuzzInspect: a kernel may come from anywhere, and reading it runs none of it.
func FuzzInspect(f *testing.F) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self[:4096])
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := filepath.Join(t.TempDir(), "linux")
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if info, err := kernel.Inspect(p); err == nil && info.Release == "" {
			t.Error("a kernel without a release")
		}
	})
}
