package nested

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// library is a line of ldd(1): "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f…)",
// or the loader's path alone.
var library = regexp.MustCompile(`(?m)^\t(?:.* => )?(/\S+) \(0x`)

// RequireProgram returns a program of this machine's, for L1's /usr/bin, and the
// libraries that it is linked with. It skips the test, or fails it, as [Require] does.
func RequireProgram(t testing.TB, name string) []File {
	t.Helper()
	path, err := exec.LookPath(name)
	needs(t, err)
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		needs(t, fmt.Errorf("ldd %s: %w", path, err))
	}
	files := []File{{Name: filepath.Join("usr/bin", name), From: path, Mode: 0o755}}
	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		files = append(files, File{Name: m[1][1:], From: m[1], Mode: 0o755})
	}
	return files
}
