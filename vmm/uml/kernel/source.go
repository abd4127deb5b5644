package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// sourcePackage is Debian's, of bookworm-security and trixie.
const sourcePackage = "linux-source-6.12"

// sourceDir is where the package puts its archive. Tests look elsewhere.
var sourceDir = "/usr/src"

// A source is a version of the package and, once it is here, the archive that
// came in it; or an archive of the user's own, whose version is known once it is
// unpacked.
type source struct {
	version string
	archive string
	own     bool
}

// name is what the manifest says of where a kernel is from.
func (s *source) name() string {
	if s.own {
		return filepath.Base(s.archive)
	}
	return sourcePackage
}

// findSource looks for the source package: the installed one, or the one that
// apt would download, which is known without doing so.
func findSource(ctx context.Context) (source, error) {
	archive := filepath.Join(sourceDir, sourcePackage+".tar.xz")
	if _, err := os.Stat(archive); err == nil {
		if v, err := output(ctx, "", "dpkg-query", "-W", "-f", "${Version}", sourcePackage); err == nil && v != "" {
			return source{version: v, archive: archive}, nil
		}
	}
	if _, err := exec.LookPath("apt-cache"); err != nil {
		return source{}, fmt.Errorf("source package %s: it is not installed, and there is no apt to fetch it", sourcePackage)
	}
	policy, err := output(ctx, "", "apt-cache", "policy", sourcePackage)
	if err != nil {
		return source{}, fmt.Errorf("source package %s: %w", sourcePackage, err)
	}
	for line := range strings.Lines(policy) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); ok && v != "(none)" {
			return source{version: v}, nil
		}
	}
	return source{}, fmt.Errorf("source package %s: apt does not know it\n    apt-get update, as root, renews its lists; the package is in Debian 12 (security) and 13", sourcePackage)
}

// fetch downloads the package into dir if it is not installed. That needs no
// root, only apt's lists.
func (s *source) fetch(ctx context.Context, dir string) error {
	if s.archive != "" {
		return nil
	}
	if _, err := output(ctx, dir, "apt-get", "-qq", "download", sourcePackage+"="+s.version); err != nil {
		return fmt.Errorf("source package %s: %w\n    apt-get update, as root, renews the package lists", sourcePackage, err)
	}
	debs, err := filepath.Glob(filepath.Join(dir, sourcePackage+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("source package %s: apt-get download left %d files in %s", sourcePackage, len(debs), dir)
	}
	if _, err := output(ctx, "", "dpkg-deb", "-x", debs[0], filepath.Join(dir, "deb")); err != nil {
		return err
	}
	s.archive = filepath.Join(dir, "deb", sourceDir, sourcePackage+".tar.xz")
	return os.Remove(debs[0])
}

// unpack unpacks the archive into dir and patches what is there. What no build
// for this architecture reads stays packed, a third of 1.4 GB.
func (s *source) unpack(ctx context.Context, dir string) (err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	args := []string{"-xf", s.archive, "-C", dir, "--strip-components=1", "--exclude=*/tools/testing", "--exclude=*/Documentation/*/*"}
	if _, err := output(ctx, "", "tar", args...); err != nil {
		return fmt.Errorf("unpack %s: %w", s.archive, err)
	}
	if !s.own {
		if err := apply(ctx, dir, patchText); err != nil {
			return fmt.Errorf("patch the source of %s: %w", s.version, err)
		}
		return nil
	}
	if s.version, err = version(ctx, dir); err == nil {
		err = patchOther(ctx, dir)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.archive, err)
	}
	return nil
}

// tools are the programs that a build calls, and Debian's packages of them.
var tools = [][2]string{
	{"make", "make"}, {"gcc", "gcc"}, {"ld", "binutils"}, {"strip", "binutils"}, {"flex", "flex"}, {"bison", "bison"}, {"bc", "bc"},
	{"pahole", "pahole"}, {"tar", "tar"}, {"xz", "xz-utils"}, {"patch", "patch"}, {"dpkg-deb", "dpkg"},
}

// libraries are the headers and archives that it compiles and links with.
var libraries = [][2]string{
	{"/usr/include/stdio.h", "libc6-dev"}, {"/usr/include/libelf.h", "libelf-dev"},
}

// Missing names the packages that a build needs and that are not there.
func Missing() []string {
	var missing []string
	for _, t := range tools {
		if _, err := exec.LookPath(t[0]); err != nil {
			missing = append(missing, t[1])
		}
	}
	for _, l := range libraries {
		if _, err := os.Stat(l[0]); err != nil {
			missing = append(missing, l[1])
		}
	}
	return missing
}

// output runs a program in dir and returns what it printed. An error has the
// last lines of what it complained about.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := command(ctx, dir, name, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", toolError(ctx, name, err, errs.String()+out.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// toolError says what a program complained about.
func toolError(ctx context.Context, name string, err error, said string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s: not found", name)
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	if n := len(lines); n > 8 {
		lines = lines[n-8:]
	}
	return fmt.Errorf("%s: %w: %s", name, err, strings.Join(lines, "\n    "))
}
