package uml_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"sekimori/vmm/uml"
	"sekimori/vmm/uml/kernel"
)

// TestEnded: how a machine ended is said in words, known traps by name.
func TestEnded(t *testing.T) {
	requireKernel(t)
	program := compile(t, "jailed.c")
	tests := []struct {
		try, arg, want string
	}{
		{"xstate", "", "xstate trap"},
		{"noexec", "", "memory file cannot be mapped executable"},
		{"exit", "7", `exit status 7; its last words: "so long"`},
		{"segv", "", "ended by segmentation fault"},
		{"inet", "", "killed by the system call filter"},
		{"exit", "0", ""},
		{"exit", "127", "exit status 127"},
		{"off", "127", ""}, // a kernel that stumbled after its guest had powered off
		{"off", "3", "exit status 3"},
	}
	for _, tt := range tests {
		t.Run(tt.try+tt.arg, func(t *testing.T) {
			_, err := run(t, jailed(t, program, "try="+tt.try, "arg="+tt.arg))
			var exit *uml.ExitError
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Wait = %v; want nil", err)
			case tt.want != "" && (!errors.As(err, &exit) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Wait = %v; want %q", err, tt.want)
			}
		})
	}
}

// TestDistribution boots Debian's kernel, which is dynamic and has hostfs. It
// runs, or says which trap it fell into: the xstate one, on a CPU with AMX.
func TestDistribution(t *testing.T) {
	requireKernel(t)
	const path = "/usr/bin/linux.uml"
	_, err := os.Stat(path)
	require(t, "linux.uml", err == nil)
	info, err := kernel.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Static || !info.HostFS || len(info.Warnings) == 0 {
		t.Errorf("Inspect = %+v; want a dynamic kernel with hostfs, and a warning", info)
	}
	if r, err := uml.Probe(ctx(t), path); err != nil && !strings.Contains(err.Error(), "xstate trap") {
		t.Errorf("Probe = %v", err)
	} else if err == nil && r.LPJ == 0 {
		t.Errorf("Probe = %+v", r)
	}
}
