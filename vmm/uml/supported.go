package uml

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"sekimori/vmm/landlock"
	"sekimori/vmm/uml/jail"
	"sekimori/vmm/uml/kernel"
)

// A Feature is something that a machine needs of the host.
type Feature struct {
	Name   string
	OK     bool
	Detail string // what was found, or why it is not there
	Hint   string // what to do about it
}

// Supported tries what a machine needs on this host, as this user; the kernel
// is looked for in dirs. All of it is needed. Nothing is left behind.
func Supported(ctx context.Context, dirs []string) []Feature {
	fs := []Feature{tryJail(ctx), tryPtrace()}
	k, err := kernel.Find(dirs...)
	if err != nil {
		return append(fs, Feature{Name: "uml kernel", Detail: cause(err), Hint: "seki machine kernel build, or make kernel, or one of your own with --kernel"})
	}
	f := Feature{Name: "uml kernel", OK: true, Detail: k.Release + " at " + k.Path}
	if !allOK(fs) {
		return append(fs, f)
	}
	r, err := probe(ctx, &Config{Kernel: k.Path, Info: &k.Info, LPJ: k.LPJ})
	if err != nil {
		f.OK, f.Detail = false, err.Error()
	} else {
		f.Detail += fmt.Sprintf(", boots in %d ms", r.Boot.Milliseconds())
	}
	return append(fs, f)
}

func allOK(fs []Feature) bool {
	for _, f := range fs {
		if !f.OK {
			return false
		}
	}
	return true
}

// cause is an error's first line without the hint that its Feature has.
func cause(err error) string {
	if errors.Is(err, kernel.ErrNone) {
		return "none is built"
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

// tryJail builds one for nothing.
func tryJail(ctx context.Context) Feature {
	f := Feature{Name: "jail"}
	version, err := landlock.Version()
	if err != nil {
		f.Detail, f.Hint = "Landlock: "+err.Error(), "machine uml wants Linux 5.13 with Landlock among the lsm= of its command line"
		return f
	}
	if err := jail.Try(ctx, nobody, nobody); err != nil {
		f.Detail, f.Hint = err.Error(), namespaceHint()
		return f
	}
	f.OK, f.Detail = true, fmt.Sprintf("user namespaces, Landlock version %d, system call filter", version)
	return f
}

// namespaceHint names the switch that is off, of those that distributions have.
func namespaceHint() string {
	for _, s := range []struct{ file, off, do string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run it as root"},
	} {
		if data, err := os.ReadFile(s.file); err == nil && strings.TrimSpace(string(data)) == s.off {
			return s.do
		}
	}
	return "it needs user namespaces, and the mount calls of Linux 5.12"
}

// tryPtrace: guest code runs under ptrace, which Yama can take from all but root.
func tryPtrace() Feature {
	f := Feature{Name: "ptrace", OK: true, Detail: "of a process's own children"}
	data, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if scope := strings.TrimSpace(string(data)); err == nil && (scope == "2" || scope == "3") {
		f.OK, f.Detail = false, "kernel.yama.ptrace_scope is "+scope
		f.Hint = "sysctl kernel.yama.ptrace_scope=1 (3 stays until the next boot)"
	} else if err != nil && !errors.Is(err, unix.ENOENT) {
		f.Detail += ", as far as can be told: " + err.Error()
	}
	return f
}
