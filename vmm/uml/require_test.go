package uml_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sekimori/vmm/initramfs"
	"sekimori/vmm/landlock"
	"sekimori/vmm/uml"
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

// requireKernel returns the kernel that `make kernel` built.
func requireKernel(t testing.TB) kernel.Kernel {
	t.Helper()
	k, err := kernel.Find(kernel.Dirs(os.Getenv)...)
	require(t, "uml", err == nil)
	_, err = landlock.Version()
	require(t, "landlock", err == nil)
	return k
}

// compile compiles a program of testdata, static, and returns its path.
func compile(t testing.TB, source string) string {
	t.Helper()
	if dir := os.Getenv(asUser); dir != "" {
		return filepath.Join(dir, strings.TrimSuffix(source, ".c"))
	}
	gcc, err := exec.LookPath("gcc")
	require(t, "gcc", err == nil)
	dir := t.TempDir()
	out := filepath.Join(dir, strings.TrimSuffix(source, ".c"))
	cmd := exec.Command(gcc, "-static", "-O1", "-Wall", "-Werror", "-o", out, filepath.Join("testdata", source))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc %s: %v\n%s", source, err, text)
	}
	// Directories of tests are for their owner alone; the jail's user is another.
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// archive makes an initial file system whose init is that program, behind a file
// of so many bytes.
func archive(t testing.TB, program string, more ...int64) *os.File {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var entries []initramfs.Entry
	for _, n := range more {
		entries = append(entries, initramfs.Entry{Name: "more", Mode: 0o644, Data: bytes.NewReader(make([]byte, n)), Size: n})
	}
	err = initramfs.Write(f, append(entries, []initramfs.Entry{
		{Name: "dev", Mode: fs.ModeDir | 0o755},
		{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Name: "mnt", Mode: fs.ModeDir | 0o755},
		{Name: "proc", Mode: fs.ModeDir | 0o755},
		{Name: "init", Mode: 0o755, Data: bytes.NewReader(data), Size: int64(len(data))},
	}...))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// config is of a small machine that boots from initrd.
func config(k kernel.Kernel, initrd *os.File) *uml.Config {
	return &uml.Config{Kernel: k.Path, Info: &k.Info, LPJ: 12_000_000, Memory: 64 << 20, InitRD: initrd}
}
