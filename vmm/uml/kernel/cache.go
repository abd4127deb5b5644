package kernel

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed uml.config
var configText []byte

//go:embed xstate.patch
var xstatePatch []byte

//go:embed idmap.patch
var idmapPatch []byte

//go:embed stub.patch
var stubPatch []byte

//go:embed faults.patch
var faultsPatch []byte

//go:embed clock.patch
var clockPatch []byte

//go:embed boot.patch
var bootPatch []byte

// neededPatch is what a kernel cannot do without; patchText is all patches, with
// those that make it faster. One behind the other, as patch(1) takes them.
var (
	neededPatch = slices.Concat(xstatePatch, idmapPatch)
	patchText   = slices.Concat(neededPatch, stubPatch, faultsPatch, bootPatch, clockPatch)
)

// Names within the directory of a kernel.
const (
	imageName    = "linux"
	configName   = "config"
	manifestName = "manifest.json"
	lockName     = "lock"
	workPrefix   = "build-" // of a directory in which a build goes on
)

// ErrNone means that no kernel of this program's making is in the cache.
var ErrNone = errors.New("no kernel is built: seki machine kernel build")

// A Manifest says what a kernel was made of. It lies beside it as JSON.
type Manifest struct {
	Key           string    `json:"key"`
	Release       string    `json:"release"` // as uname -r says it in the guest
	SourcePackage string    `json:"source_package"`
	SourceVersion string    `json:"source_version"`
	SourceSHA256  string    `json:"source_sha256"` // of the source archive
	ConfigSHA256  string    `json:"config_sha256"` // of what we ask for; the whole .config lies beside
	PatchSHA256   string    `json:"patch_sha256"`
	ImageSHA256   string    `json:"image_sha256"`
	Compiler      string    `json:"compiler"`
	Built         time.Time `json:"built"`
	BuildSeconds  int       `json:"build_seconds"`

	// Lost are the options that we ask for and that its version does not have.
	Lost []string `json:"lost,omitempty"`

	Info Info `json:"info"` // of the image, so that no start has to read it again

	// LPJ is the delay loop as this host calibrated it at the first boot:
	// handed to later boots it saves each of them 30 to 60 ms. 0 if unknown.
	LPJ uint64 `json:"lpj,omitempty"`
}

// A Kernel is one in the cache.
type Kernel struct {
	Manifest
	Path string // of the image
}

// systemDir is root's, and readable for all.
const systemDir = "/var/cache/seki/kernels"

// Dirs is where kernels are kept: SEKI_KERNELS alone if it is set, else root's
// directory, before which a user has one of their own. Kernels are built into
// the first and found in all. env looks up the environment.
func Dirs(env func(string) string) []string {
	if dir := env("SEKI_KERNELS"); dir != "" {
		return []string{dir}
	}
	if os.Geteuid() == 0 {
		return []string{systemDir}
	}
	if dir := env("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return []string{filepath.Join(dir, "seki", "kernels"), systemDir}
	}
	if home := env("HOME"); filepath.IsAbs(home) {
		return []string{filepath.Join(home, ".cache", "seki", "kernels"), systemDir}
	}
	return []string{systemDir}
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// key names a kernel by what it is made of.
func key(version string) string {
	return strings.SplitN(version, "-", 2)[0] + "-" + sum([]byte(version + "\n" + sum(configText) + "\n" + sum(patchText)))[:12]
}

// List returns the kernels in dirs, the newest first within each.
func List(dirs ...string) ([]Kernel, error) {
	var all []Kernel
	for _, dir := range dirs {
		ks, err := list(dir)
		if err != nil {
			return nil, err
		}
		all = append(all, ks...)
	}
	return all, nil
}

// list lists one directory. One without a manifest is no kernel: the manifest
// is written last.
func list(dir string) ([]Kernel, error) {
	entries, err := os.ReadDir(dir)
	// What this user may not read is not theirs to boot: a HOME of somebody else.
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	var all []Kernel
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), workPrefix) {
			continue
		}
		k, err := read(dir, e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b Kernel) int { return b.Built.Compare(a.Built) })
	return all, nil
}

func read(dir, name string) (Kernel, error) {
	file := filepath.Join(dir, name, manifestName)
	data, err := os.ReadFile(file)
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{Path: filepath.Join(dir, name, imageName)}
	if err := json.Unmarshal(data, &k.Manifest); err != nil {
		return Kernel{}, fmt.Errorf("%s: %w", file, err)
	}
	if k.Key != name {
		return Kernel{}, fmt.Errorf("%s: is of kernel %q", file, k.Key)
	}
	return k, nil
}

// ours says that a kernel was built with the configuration and the patches of
// this program: an older program's may lack what this one counts on.
func (k *Kernel) ours() bool {
	return k.ConfigSHA256 == sum(configText) && k.PatchSHA256 == sum(patchText)
}

// Find returns the newest kernel, of the first of dirs that has one, that this
// program builds by itself, or [ErrNone].
func Find(dirs ...string) (Kernel, error) {
	all, err := List(dirs...)
	if err != nil {
		return Kernel{}, err
	}
	for _, k := range all {
		if k.SourcePackage == sourcePackage && k.ours() {
			return k, nil
		}
	}
	return Kernel{}, ErrNone
}

// Named returns the kernel of that key, of the first of dirs that has it.
func Named(key string, dirs ...string) (Kernel, bool) {
	if key == "" || key != filepath.Base(key) || strings.HasPrefix(key, ".") {
		return Kernel{}, false
	}
	for _, dir := range dirs {
		if k, err := read(dir, key); err == nil {
			return k, true
		}
	}
	return Kernel{}, false
}

// Describe says what a kernel is: by the manifest beside it, if it is one that
// was built, else by reading it, which takes 2 ms.
func Describe(path string) (Info, error) {
	dir := filepath.Dir(path)
	if k, err := read(filepath.Dir(dir), filepath.Base(dir)); err == nil && k.Path == path && k.Info.Release != "" {
		return k.Info, nil
	}
	return Inspect(path)
}

// Remove removes the kernel named key from dir.
func Remove(dir, key string) error {
	if key == "" || key != filepath.Base(key) || strings.HasPrefix(key, ".") {
		return fmt.Errorf("kernel %q: not the key of a kernel", key)
	}
	if _, err := read(dir, key); err != nil {
		return fmt.Errorf("kernel %q: %w", key, err)
	}
	// The manifest first: without one, what an interrupt leaves is no kernel.
	if err := os.Remove(filepath.Join(dir, key, manifestName)); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, key))
}

// SetLPJ records the delay loop of this host beside the kernel.
func (k *Kernel) SetLPJ(lpj uint64) error {
	k.LPJ = lpj
	return k.writeManifest(filepath.Dir(k.Path))
}

// writeManifest replaces the manifest in dir as a whole.
func (k *Kernel) writeManifest(dir string) error {
	data, err := json.MarshalIndent(k.Manifest, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, manifestName+".new")
	if err := os.WriteFile(tmp, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, manifestName))
}

// lock takes the lock of dir, which one build at a time holds; wait is called
// if another has it. Closing the file gives it back, as does the end of the process.
func lock(ctx context.Context, dir string, wait func()) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		wait()
		got := make(chan error, 1)
		go func() { got <- unix.Flock(int(f.Fd()), unix.LOCK_EX) }()
		select {
		case err = <-got:
		case <-ctx.Done():
			// The goroutine keeps the file, and ends with the process or the
			// other build.
			go func() { <-got; f.Close() }()
			return nil, ctx.Err()
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}
