package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sekimori/vmm/uml/kernel"
)

// The programs of a build, played: they do what the real ones would in as much
// as the next one looks at it, and write down that they were called.
var fakes = map[string]string{
	"apt-cache":  `echo linux-source-6.12:; echo "  Candidate: $(cat "$FAKE/version")"`,
	"apt-get":    `touch linux-source-6.12_1_all.deb`,
	"dpkg-query": `exit 1`,
	"dpkg-deb":   `mkdir -p "$3$FAKE/src"; cp "$FAKE/version" "$3$FAKE/src/linux-source-6.12.tar.xz"`,
	"tar":        `exit 0`,
	"patch":      `exit 0`,
	"make": `for a; do case $a in O=*) out=${a#O=} ;; esac; done
		case "$*" in
		*kernelversion*) cat "$FAKE/version" ;;
		*allnoconfig*) cp "$out/all.config" "$out/.config"; sed -i "$(cat "$FAKE/sed")" "$out/.config" ;;
		*) echo compiler $$ >> "$FAKE/pids"; seq 1000; . "$FAKE/compile"; cp "$FAKE/image" "$out/linux" ;;
		esac`,
	"strip": `cp "$4" "$3"`,
	"gcc":   `echo 12.2.0`,
	"ld":    ``, "flex": ``, "bison": ``, "bc": ``, "pahole": ``, "xz": ``,
}

// A host is a directory of fakes and what they go by.
type host struct {
	t   *testing.T
	dir string
	opt kernel.Options
}

// newHost puts fakes in the place of all programs.
func newHost(t *testing.T) *host {
	t.Helper()
	k, err := kernel.Find(kernel.Dirs(os.Getenv)...)
	require(t, "uml", err == nil)
	h := &host{t: t, dir: t.TempDir()}
	for name, script := range fakes {
		h.write("bin/"+name, "#!/bin/sh\necho "+name+" >> \"$FAKE/calls\"\n"+script+"\n")
	}
	for name, text := range map[string]string{"version": "6.12.1-1\n", "sed": "", "compile": "", "calls": "", "pids": ""} {
		h.write(name, text)
	}
	if err := os.Symlink(k.Path, filepath.Join(h.dir, "image")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAKE", h.dir)
	t.Setenv("PATH", filepath.Join(h.dir, "bin")+":/usr/bin:/bin")
	t.Cleanup(kernel.SetHost(filepath.Join(h.dir, "src")))
	h.opt = kernel.Options{Dir: filepath.Join(h.dir, "cache")}
	return h
}

func (h *host) write(name, text string) {
	h.t.Helper()
	p := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// made counts the compilations so far.
func (h *host) made() int {
	data, err := os.ReadFile(filepath.Join(h.dir, "pids"))
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Count(string(data), "compiler")
}

// clean fails the test if something half is left in the cache.
func (h *host) clean(kernels int) {
	h.t.Helper()
	entries, err := os.ReadDir(h.opt.Dir)
	if err != nil {
		h.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "lock" {
			names = append(names, e.Name())
		}
	}
	if len(names) != kernels {
		h.t.Errorf("the cache has %q; want %d kernels", names, kernels)
	}
}

func TestBuild(t *testing.T) {
	h := newHost(t)
	// Of a build that was killed.
	if err := os.MkdirAll(filepath.Join(h.opt.Dir, "build-stale/objects"), 0o755); err != nil {
		t.Fatal(err)
	}
	last := -1
	h.opt.Progress = func(step string, percent int) {
		if percent < last || percent > 100 {
			t.Errorf("progress %d after %d (%s)", percent, last, step)
		}
		last = percent
	}
	k, err := kernel.Build(t.Context(), h.opt)
	if err != nil {
		t.Fatal(err)
	}
	if last != 100 {
		t.Errorf("progress ends at %d", last)
	}
	found, err := kernel.Find(h.opt.Dir)
	if err != nil || found.Path != k.Path || found.SourceVersion != "6.12.1-1" || found.Info.Release != k.Release || !found.Info.Static {
		t.Errorf("Find = %+v, %v; want what was built", found, err)
	}
	for _, hash := range []string{found.SourceSHA256, found.ConfigSHA256, found.PatchSHA256, found.ImageSHA256} {
		if len(hash) != 64 {
			t.Errorf("the manifest has the checksum %q", hash)
		}
	}
	if config, err := os.ReadFile(filepath.Join(filepath.Dir(k.Path), "config")); err != nil || !strings.Contains(string(config), "CONFIG_VIRTIO_UML=y") {
		t.Errorf("the whole configuration beside it: %v", err)
	}

	last = -1
	h.write("calls", "")
	if again, err := kernel.Build(t.Context(), h.opt); err != nil || again.Path != k.Path || h.made() != 1 {
		t.Errorf("a second Build = %s, %v, after %d compilations; want the first one's", again.Path, err, h.made())
	}
	if calls, err := os.ReadFile(filepath.Join(h.dir, "calls")); err != nil || strings.Contains(string(calls), "apt-get") {
		t.Errorf("what is built was downloaded again: %v, %q", err, calls)
	}
	last = -1
	h.opt.Force = true
	if _, err := kernel.Build(t.Context(), h.opt); err != nil || h.made() != 2 {
		t.Errorf("forced: %v, %d compilations; want 2", err, h.made())
	}
	last = -1
	h.opt.Force = false
	h.write("version", "6.12.2-1\n")
	if newer, err := kernel.Build(t.Context(), h.opt); err != nil || newer.Key == k.Key || h.made() != 3 {
		t.Errorf("of another source: %s, %v, %d compilations; want a new key and 3", newer.Key, err, h.made())
	}
	h.clean(2)
}

func TestBuildFails(t *testing.T) {
	tests := []struct {
		name, file, text, want string
	}{
		{"the compiler complains", "compile", "echo 'x.c:1: error: no' >&2; exit 2", "x.c:1: error: no"},
		{"the image is none", "compile", "echo x > \"$FAKE/image2\"; cp \"$FAKE/image2\" \"$out/linux\"; exit 0", "not an ELF file"},
		{"an option is dropped", "sed", "/VIRTIO_UML/d", "CONFIG_VIRTIO_UML=y"},
		{"an option comes on", "sed", "s/# CONFIG_HOSTFS is not set/CONFIG_HOSTFS=y/", "CONFIG_HOSTFS is not set"},
		{"a patch does not apply", "bin/patch", "#!/bin/sh\necho hunk failed; exit 1\n", "hunk failed"},
		{"no package", "bin/apt-get", "#!/bin/sh\necho 'E: Unable to locate package' >&2; exit 100\n", "apt-get update"},
		{"apt does not know it", "bin/apt-cache", "#!/bin/sh\nexit 0\n", "apt does not know it"},
		{"apt has none to give", "version", "(none)\n", "apt does not know it"},
		{"two packages", "bin/apt-get", "#!/bin/sh\ntouch linux-source-6.12_1_all.deb linux-source-6.12_2_all.deb\n", "2 files"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.write(tt.file, tt.text)
			_, err := kernel.Build(t.Context(), h.opt)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Build = %v; want %q", err, tt.want)
			}
			h.clean(0)
		})
	}
}

// TestBuildOther builds what the user has the source of: another version, which
// needs some of the patches in another form, or no more, and lacks an option.
func TestBuildOther(t *testing.T) {
	patch, err := exec.LookPath("patch")
	require(t, "patch", err == nil)
	h := newHost(t)
	h.write("bin/tar", "#!/bin/sh\nwhile [ $1 != -C ]; do shift; done; cp -r \"$FAKE/tree/.\" \"$2\"\n")
	h.write("bin/patch", "#!/bin/sh\nexec "+patch+" \"$@\"\n")
	h.write("version", "7.3.4\n")
	h.write("archive.tar", "an archive")
	h.write("sed", "/CONFIG_PROC_SYSCTL/d;/CONFIG_PSI=/d")
	for file, text := range kernel.Patched(newer) {
		h.write("tree/"+file, text)
	}
	h.opt.Source = filepath.Join(h.dir, "archive.tar")
	k, err := kernel.Build(t.Context(), h.opt)
	if err != nil {
		t.Fatal(err)
	}
	if k.SourceVersion != "7.3.4" || k.SourcePackage != "archive.tar" || !slices.Equal(k.Lost, []string{"CONFIG_PSI=y"}) {
		t.Errorf("built %+v", k.Manifest)
	}
	if _, err := kernel.Find(h.opt.Dir); !errors.Is(err, kernel.ErrNone) {
		t.Errorf("Find = %v; want none: nobody chose it", err)
	}
	if named, ok := kernel.Named(k.Key, h.opt.Dir); !ok || named.Path != k.Path {
		t.Errorf("Named(%s) = %s, %v", k.Key, named.Path, ok)
	}
	if again, err := kernel.Build(t.Context(), h.opt); err != nil || again.Path != k.Path || h.made() != 1 {
		t.Errorf("again: %s, %v, after %d compilations; want the first one's", again.Path, err, h.made())
	}
	// The same version of another source is another kernel.
	h.write("archive.tar", "another archive")
	if other, err := kernel.Build(t.Context(), h.opt); err != nil || other.Key == k.Key {
		t.Errorf("another: %s, %v; want a new key", other.Key, err)
	}
	h.clean(2)
	// What is to be off and is on is refused, whatever the version.
	h.write("archive.tar", "a third archive")
	h.write("sed", "s/# CONFIG_HOSTFS is not set/CONFIG_HOSTFS=y/")
	if _, err := kernel.Build(t.Context(), h.opt); err == nil || !strings.Contains(err.Error(), "CONFIG_HOSTFS") {
		t.Errorf("with hostfs: %v", err)
	}
	// A patch that fits in no form is not left out.
	h.write("sed", "")
	h.write("tree/fs/9p/vfs_super.c", "nothing of it\n")
	if _, err := kernel.Build(t.Context(), h.opt); err == nil || !strings.Contains(err.Error(), "vfs_super.c") {
		t.Errorf("a patch that does not fit: %v", err)
	}
	h.write("version", "not a version\n")
	if _, err := kernel.Build(t.Context(), h.opt); err == nil || !strings.Contains(err.Error(), "not a source of Linux") {
		t.Errorf("no kernel: %v", err)
	}
	h.clean(2)
}

// newer is what files of a newer Linux have that the patches are about.
const newer = "host_fp_size"

func TestBuildMissing(t *testing.T) {
	h := newHost(t)
	empty := filepath.Join(h.dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", empty)
	_, err := kernel.Build(t.Context(), h.opt)
	for _, w := range []string{"make", "flex", "pahole", "xz-utils", "apt-get install"} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("Build = %v; want %q", err, w)
		}
	}
}

// TestBuildInterrupted: an interrupt ends make and its compilers, and leaves nothing.
func TestBuildInterrupted(t *testing.T) {
	h := newHost(t)
	h.write("compile", "sleep 60 & echo $! >> \"$FAKE/pids\"; wait")
	ctx, cancel := context.WithCancel(t.Context())
	h.opt.Progress = func(step string, percent int) {
		if percent > 20 { // make's lines are being counted
			cancel()
		}
	}
	if _, err := kernel.Build(ctx, h.opt); !errors.Is(err, context.Canceled) {
		t.Errorf("Build = %v; want canceled", err)
	}
	h.clean(0)
	data, err := os.ReadFile(filepath.Join(h.dir, "pids"))
	if err != nil {
		t.Fatal(err)
	}
	for pid := range strings.FieldsSeq(strings.ReplaceAll(string(data), "compiler", "")) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid))
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			t.Errorf("process %s is left: %s", pid, stat)
		}
	}
}

// TestBuildTogether: of two at the same time one builds and one waits for it.
func TestBuildTogether(t *testing.T) {
	h := newHost(t)
	h.write("compile", "sleep 0.3")
	var waited sync.Once
	waits := 0
	h.opt.Progress = func(step string, percent int) {
		if strings.Contains(step, "waiting") {
			waited.Do(func() { waits++ })
		}
	}
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			if _, err := kernel.Build(t.Context(), h.opt); err != nil {
				t.Errorf("Build = %v", err)
			}
		})
	}
	group.Wait()
	if h.made() != 1 || waits != 1 {
		t.Errorf("%d compilations, %d waited; want 1 and 1", h.made(), waits)
	}
	h.clean(1)

	// Who waits can be interrupted.
	h.opt.Force = true
	h.write("compile", "sleep 1")
	ctx, cancel := context.WithCancel(t.Context())
	group.Go(func() { kernel.Build(t.Context(), h.opt) })
	for h.made() != 2 {
		time.Sleep(time.Millisecond)
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	if _, err := kernel.Build(ctx, h.opt); !errors.Is(err, context.Canceled) || time.Since(start) > 500*time.Millisecond {
		t.Errorf("waiting, interrupted: %v after %v", err, time.Since(start))
	}
	group.Wait()
}
