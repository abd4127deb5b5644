package nested

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Kernel is one of Debian's, unpacked: what scripts/guest-kernels left.
type Kernel struct {
	Release string // as uname -r says it
	Image   string // path of vmlinuz
	modules string // directory of its modules, not compressed
}

// ErrNoKernel says that there is no kernel of a series.
var ErrNoKernel = errors.New("no guest kernel: scripts/guest-kernels")

// Dir is where kernels are kept: SEKI_GUESTS, else root's directory, or the
// user's. It is what scripts/guest-kernels says.
func Dir() string {
	if dir := os.Getenv("SEKI_GUESTS"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/cache/seki/guests"
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "seki", "guests")
	}
	return filepath.Join(os.Getenv("HOME"), ".cache", "seki", "guests")
}

// Find returns the kernel of a series, "6.1" or "6.12".
func Find(series string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(Dir(), series+".*", "vmlinuz"))
	if err != nil {
		return Kernel{}, err
	}
	if len(images) == 0 {
		return Kernel{}, fmt.Errorf("%w: %s in %s", ErrNoKernel, series, Dir())
	}
	image := images[len(images)-1]
	dir := filepath.Dir(image)
	return Kernel{Release: filepath.Base(dir), Image: image, modules: filepath.Join(dir, "modules")}, nil
}

// Modules returns the files of modules and of all that they stand on, in the
// order in which they can be loaded. What is built into the kernel is no module,
// and no error.
func (k Kernel) Modules(names ...string) ([]string, error) {
	all, err := k.index()
	if err != nil {
		return nil, err
	}
	var order []string
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = moduleName(name)
		file, ok := all[name]
		if seen[name] || !ok {
			return nil
		}
		seen[name] = true
		depends, err := depends(file)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, d := range depends {
			if err := add(d); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	builtin, err := k.builtin()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if all[moduleName(name)] == "" && !builtin[moduleName(name)] {
			return nil, fmt.Errorf("kernel %s has no module %s", k.Release, name)
		}
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// index finds each module's file.
func (k Kernel) index() (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(k.modules, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".ko") {
			all[moduleName(filepath.Base(path))] = path
		}
		return err
	})
	return all, err
}

// builtin are the modules that are none.
func (k Kernel) builtin() (map[string]bool, error) {
	b, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	all := map[string]bool{}
	for path := range strings.FieldsSeq(string(b)) {
		all[moduleName(filepath.Base(path))] = true
	}
	return all, nil
}

// moduleName is the name by which modules call each other.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(file, ".ko"), "-", "_")
}
