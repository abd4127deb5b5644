package linux

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A limit that no controller would hold is refused, not forgotten. In this
// package, for no test can take a controller away from the machine.
func TestMissingController(t *testing.T) {
	if unified() {
		t.Skip("cgroup v1 is missing: the kernel itself refuses on v2")
	}
	limit := int64(1 << 20)
	for _, tt := range []struct {
		dirs map[string]string
		r    *specs.LinuxResources
		want string // part of the error; "" for none
	}{
		{map[string]string{}, nil, ""},
		{map[string]string{}, &specs.LinuxResources{}, ""},
		{map[string]string{"pids": "/x"}, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}, "no memory controller"},
		{map[string]string{"memory": "/x"}, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}, ""},
		{map[string]string{"cpu": "/x"}, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}, "no cpuset controller"},
		{map[string]string{}, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}, ""},
	} {
		err := (&cgroup{dirs: tt.dirs}).refuseMissing(tt.r)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("refuseMissing(%v, %+v) = %v; want %q", tt.dirs, tt.r, err, tt.want)
		}
	}
}
