package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Progress is told of each step of a build, and how far it is, in percent.
type Progress func(step string, percent int)

// Options of a build.
type Options struct {
	Dir      string   // the cache; made if it is not there
	Jobs     int      // of make; 0 for one a CPU
	Force    bool     // build also what is in the cache already
	Source   string   // archive of the source of a Linux of the user's choice; "" for Debian's package
	Progress Progress // may be nil
}

// diskNeed is what a build takes at its peak: source, objects and a kernel with
// debug information, 2.6 GB measured.
const diskNeed = 4 << 30

// makeLines is how many lines make printed for this configuration, for the
// percentage.
const makeLines = 1390

// Build makes a kernel, unless the cache has the one it would make. Whatever
// way it ends, only a whole kernel is left: the work goes on in a directory of
// its own, which is renamed at the end, or removed. Another build in the same
// cache is waited for.
func Build(ctx context.Context, o Options) (Kernel, error) {
	if o.Progress == nil {
		o.Progress = func(string, int) {}
	}
	if missing := Missing(); len(missing) > 0 {
		return Kernel{}, fmt.Errorf("build a kernel: missing: %s\n    as root: apt-get install %[1]s", strings.Join(missing, " "))
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return Kernel{}, err
	}
	l, err := lock(ctx, o.Dir, func() { o.Progress("another build goes on here: waiting for it", 0) })
	if err != nil {
		return Kernel{}, err
	}
	defer l.Close()
	src, k, err := o.look(ctx)
	if err != nil {
		return Kernel{}, err
	}
	if k.Path != "" && !o.Force {
		o.Progress("built already", 100)
		return k, nil
	}
	if err := prepare(o.Dir); err != nil {
		return Kernel{}, err
	}
	work, err := os.MkdirTemp(o.Dir, workPrefix)
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(work)
	if err := src.fetch(ctx, work); err != nil {
		return Kernel{}, err
	}
	made, err := o.build(ctx, src, work)
	if err != nil {
		return Kernel{}, err
	}
	return o.install(made, work)
}

// look finds the source, and the kernel that was made of it, if there is one.
func (o *Options) look(ctx context.Context) (source, Kernel, error) {
	if o.Source == "" {
		o.Progress("looking for "+sourcePackage, 0)
		src, err := findSource(ctx)
		if err != nil {
			return source{}, Kernel{}, err
		}
		k, _ := read(o.Dir, key(src.version)) // none is no error
		return src, k, nil
	}
	hash, err := sumFile(o.Source)
	if err != nil {
		return source{}, Kernel{}, err
	}
	src := source{archive: o.Source, own: true}
	all, err := List(o.Dir)
	for _, k := range all {
		if k.SourceSHA256 == hash && k.SourcePackage != sourcePackage && k.ours() {
			return src, k, nil
		}
	}
	return src, Kernel{}, err
}

// prepare looks after the disk. We have the lock: a work directory that is
// there was left by a build that was killed.
func prepare(dir string) error {
	stale, _ := filepath.Glob(filepath.Join(dir, workPrefix+"*"))
	for _, s := range stale {
		if err := os.RemoveAll(s); err != nil {
			return err
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if free := st.Bavail * uint64(st.Bsize); free < diskNeed {
		return fmt.Errorf("build a kernel in %s: %d MB free, it takes %d", dir, free>>20, diskNeed>>20)
	}
	return nil
}

// build makes a kernel in work: linux, config.
func (o *Options) build(ctx context.Context, src source, work string) (*Kernel, error) {
	start := time.Now()
	tree, out := filepath.Join(work, "source"), filepath.Join(work, "objects")
	o.Progress(strings.TrimSpace("unpacking "+src.version), 1)
	hash, err := sumFile(src.archive)
	if err != nil {
		return nil, err
	}
	if err := src.unpack(ctx, tree); err != nil {
		return nil, err
	}
	o.Progress("configuring", 4)
	lost, err := configure(ctx, tree, out)
	if err == nil && len(lost) > 0 && !src.own {
		err = notHeeded(lost)
	}
	if err != nil {
		return nil, err
	}
	if err := o.compile(ctx, tree, out); err != nil {
		return nil, err
	}
	compiler, err := output(ctx, "", "gcc", "-dumpfullversion")
	if err != nil {
		return nil, err
	}
	id := src.version
	if src.own {
		id += "-" + hash // of one version there may be many
	}
	k := &Kernel{Manifest: Manifest{
		Key: key(id), SourcePackage: src.name(), SourceVersion: src.version, SourceSHA256: hash, Compiler: "gcc " + compiler, Lost: lost,
	}}
	if err := k.finish(ctx, out, work); err != nil {
		return nil, err
	}
	k.BuildSeconds = int(time.Since(start).Seconds())
	return k, nil
}

// finish takes what is worth keeping from the objects in out, to dir.
func (k *Kernel) finish(ctx context.Context, out, dir string) error {
	k.Path = filepath.Join(dir, imageName)
	// Of the 113 MB all but 10 are DWARF. The symbol table stays, for the
	// addresses of variables, and .BTF, for the offsets of fields.
	if _, err := output(ctx, "", "strip", "-g", "-o", k.Path, filepath.Join(out, "linux")); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(out, ".config"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, configName), config, 0o644); err != nil {
		return err
	}
	info, err := Inspect(k.Path)
	if err != nil {
		return err
	}
	if err := info.wantsOurs(); err != nil {
		return err
	}
	if k.ImageSHA256, err = sumFile(k.Path); err != nil {
		return err
	}
	k.Release, k.Info = info.Release, info
	k.ConfigSHA256, k.PatchSHA256 = sum(configText), sum(patchText)
	k.Built = time.Now().UTC().Truncate(time.Second)
	return nil
}

// install moves a finished kernel from work to its place in the cache.
func (o *Options) install(k *Kernel, work string) (Kernel, error) {
	final := filepath.Join(o.Dir, k.Key)
	stage, err := os.MkdirTemp(o.Dir, workPrefix)
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(stage)
	if err := os.Chmod(stage, 0o755); err != nil {
		return Kernel{}, err
	}
	for _, name := range []string{imageName, configName} {
		if err := os.Rename(filepath.Join(work, name), filepath.Join(stage, name)); err != nil {
			return Kernel{}, err
		}
	}
	k.Path = filepath.Join(final, imageName)
	if err := k.writeManifest(stage); err != nil {
		return Kernel{}, err
	}
	if err := os.RemoveAll(final); err != nil {
		return Kernel{}, err
	}
	if err := os.Rename(stage, final); err != nil {
		return Kernel{}, err
	}
	o.Progress("built "+k.Release, 100)
	return *k, nil
}

// makeArgs are those of every call of make. Who builds, where and when is not
// to be found in the kernel.
func makeArgs(tree, out string, more ...string) []string {
	return append([]string{"-C", tree, "O=" + out, "ARCH=um", "KBUILD_BUILD_USER=seki", "KBUILD_BUILD_HOST=seki", "KBUILD_BUILD_TIMESTAMP=1970-01-01"}, more...)
}

// configure writes the .config to out and returns what make dropped of what we
// asked for, in silence: another version may not know it. That what is to be off
// is on is an error whatever the version.
func configure(ctx context.Context, tree, out string) (lost []string, err error) {
	if err := os.Mkdir(out, 0o755); err != nil {
		return nil, err
	}
	file, text := filepath.Join(out, "all.config"), bytes.Clone(configText)
	for _, name := range renamed {
		text = append(text, name+"=y\n"...)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, err
	}
	if _, err := output(ctx, "", "make", makeArgs(tree, out, "-s", "KCONFIG_ALLCONFIG="+file, "allnoconfig")...); err != nil {
		return nil, fmt.Errorf("configure: %w", err)
	}
	got, err := os.ReadFile(filepath.Join(out, ".config"))
	if err != nil {
		return nil, err
	}
	lost, on := dropped(configText, got)
	if len(on) > 0 {
		return nil, notHeeded(append(lost, on...))
	}
	return lost, nil
}

// renamed are options of newer versions by what they were called before. Where
// the new name is not one that can be set, setting it changes nothing.
var renamed = map[string]string{"CONFIG_PROC_SYSCTL": "CONFIG_SYSCTL"}

func notHeeded(options []string) error {
	return fmt.Errorf("configure: make did not heed %s", strings.Join(options, ", "))
}

// dropped returns the options that are set in want and not in have, and those
// that are to be off and are on.
func dropped(want, have []byte) (lost, on []string) {
	set := map[string]bool{}
	for line := range strings.Lines(string(have)) {
		set[strings.TrimSpace(line)] = true
	}
	for line := range strings.Lines(string(want)) {
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, "=")
		if strings.HasPrefix(line, "CONFIG_") && value != "n" && !set[line] && !set[renamed[name]+"="+value] {
			lost = append(lost, line)
		}
		if off, ok := strings.CutSuffix(line, " is not set"); ok && set[strings.TrimPrefix(off, "# ")+"=y"] {
			on = append(on, line)
		}
	}
	return lost, on
}

// compile runs make and counts its lines.
func (o *Options) compile(ctx context.Context, tree, out string) error {
	jobs := o.Jobs
	if jobs <= 0 {
		jobs = runtime.NumCPU()
	}
	cmd := command(ctx, "", "make", makeArgs(tree, out, "-j"+strconv.Itoa(jobs), "linux")...)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &said
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 0; lines.Scan(); n++ {
		o.Progress("compiling", min(5+94*n/makeLines, 99))
	}
	io.Copy(io.Discard, r) // a line too long ends the count, not the build
	if err := cmd.Wait(); err != nil {
		return toolError(ctx, "make", err, said.String())
	}
	return nil
}

// command makes a command whose whole process group ends with ctx: killing
// make alone leaves its compilers.
func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "MAKEFLAGS=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		if errors.Is(err, unix.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	return cmd
}
