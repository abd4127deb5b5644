package bundle_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sekimori/lifecycle/bundle"
)

func good() *bundle.Spec {
	s := bundle.Default("a1")
	s.Root = bundle.RootFS{Kind: bundle.RootDir, Path: "/srv/root"}
	s.OCI.Process.Args = []string{"/bin/true"}
	s.NIC = &bundle.NIC{Name: "eth0", MAC: "02:00:00:00:00:01", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}, Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}
	return s
}

func TestValidate(t *testing.T) {
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	n := func(v int64) *int64 { return &v }
	u := func(v uint32) *uint32 { return &v }
	for name, c := range map[string]struct {
		field string // of the one error that is wanted
		spoil func(*bundle.Spec)
	}{
		"name":              {"name", func(s *bundle.Spec) { s.Name = "../x" }},
		"name empty":        {"name", func(s *bundle.Spec) { s.Name = "" }},
		"name long":         {"name", func(s *bundle.Spec) { s.Name = strings.Repeat("x", 64) }},
		"root kind":         {"root.kind", func(s *bundle.Spec) { s.Root.Kind = "" }},
		"root path":         {"root.path", func(s *bundle.Spec) { s.Root.Path = "rel" }},
		"root path of host": {"root.path", func(s *bundle.Spec) { s.Root.Kind = bundle.RootHost }},
		"process":           {"oci.process", func(s *bundle.Spec) { s.OCI.Process = nil }},
		"args":              {"oci.process.args", func(s *bundle.Spec) { s.OCI.Process.Args = nil }},
		"args NUL":          {"oci.process.args[1]", func(s *bundle.Spec) { s.OCI.Process.Args = []string{"a", "b\x00"} }},
		"env":               {"oci.process.env[1]", func(s *bundle.Spec) { s.OCI.Process.Env = []string{"A=", "B"} }},
		"cwd":               {"oci.process.cwd", func(s *bundle.Spec) { s.OCI.Process.Cwd = "x" }},
		"uid":               {"oci.process.user", func(s *bundle.Spec) { s.OCI.Process.User.UID = 1 << 31 }},
		"group":             {"oci.process.user", func(s *bundle.Spec) { s.OCI.Process.User.AdditionalGids = []uint32{1<<32 - 1} }},
		"user name":         {"oci.process.user.username", func(s *bundle.Spec) { s.OCI.Process.User.Username = "+0" }},
		"umask":             {"oci.process.user.umask", func(s *bundle.Spec) { s.OCI.Process.User.Umask = u(0o1000) }},
		"rlimit":            {"oci.process.rlimits[0]", func(s *bundle.Spec) { s.OCI.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }},
		"rlimit order": {"oci.process.rlimits[0]", func(s *bundle.Spec) {
			s.OCI.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 2, Hard: 1}}
		}},
		"capability": {"oci.process.capabilities.bounding", func(s *bundle.Spec) { s.OCI.Process.Capabilities.Bounding = []string{"NET_RAW"} }},
		"effective":  {"oci.process.capabilities.effective", func(s *bundle.Spec) { s.OCI.Process.Capabilities.Effective = []string{"CAP_BPF"} }},
		"apparmor":   {"oci.process.apparmorProfile", func(s *bundle.Spec) { s.OCI.Process.ApparmorProfile = "x" }},
		"linux":      {"oci.linux", func(s *bundle.Spec) { s.OCI.Linux, s.NIC = nil, nil }},
		"namespace": {"oci.linux.namespaces[7]", func(s *bundle.Spec) {
			s.OCI.Linux.Namespaces = append(s.OCI.Linux.Namespaces, specs.LinuxNamespace{Type: "time"})
		}},
		"namespace twice": {"oci.linux.namespaces[7]", func(s *bundle.Spec) {
			s.OCI.Linux.Namespaces = append(s.OCI.Linux.Namespaces, specs.LinuxNamespace{Type: "pid"})
		}},
		"mount namespace": {"oci.linux.namespaces[1].path", func(s *bundle.Spec) { s.OCI.Linux.Namespaces[1].Path = "/x" }},
		"id map empty":    {"oci.linux.uidMappings[0]", func(s *bundle.Spec) { s.OCI.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 0}} }},
		"id map overflows": {"oci.linux.uidMappings[0]", func(s *bundle.Spec) {
			s.OCI.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 1 << 31, Size: 1<<32 - 1}}
		}},
		"id map overlaps": {"oci.linux.gidMappings[1]", func(s *bundle.Spec) {
			s.OCI.Linux.GIDMappings = []specs.LinuxIDMapping{{Size: 2}, {ContainerID: 1, HostID: 9, Size: 1}}
		}},
		"sysctl of the host": {"oci.linux.sysctl.vm.swappiness", func(s *bundle.Spec) { s.OCI.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }},
		"sysctl climbs":      {"oci.linux.sysctl.net/../vm/swappiness", func(s *bundle.Spec) { s.OCI.Linux.Sysctl = map[string]string{"net/../vm/swappiness": "1"} }},
		"cgroup climbs":      {"oci.linux.cgroupsPath", func(s *bundle.Spec) { s.OCI.Linux.CgroupsPath = "/a/../../b" }},
		"propagation":        {"oci.linux.rootfsPropagation", func(s *bundle.Spec) { s.OCI.Linux.RootfsPropagation = "loud" }},
		"mount on /":         {"oci.mounts[0].destination", func(s *bundle.Spec) { s.OCI.Mounts = []specs.Mount{{Destination: "/x/..", Type: "tmpfs"}} }},
		"mount in /proc":     {"oci.mounts[0].destination", func(s *bundle.Spec) { s.OCI.Mounts = []specs.Mount{{Destination: "/proc/sys", Type: "tmpfs"}} }},
		"bind without":       {"oci.mounts[0].source", func(s *bundle.Spec) { s.OCI.Mounts = []specs.Mount{{Destination: "/x", Options: []string{"bind"}}} }},
		"seccomp":            {"oci.linux.seccomp.defaultAction", func(s *bundle.Spec) { s.OCI.Linux.Seccomp = &specs.LinuxSeccomp{} }},
		"memory": {"oci.linux.resources.memory.limit", func(s *bundle.Spec) {
			s.OCI.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(4096)}}
		}},
		"pids": {"oci.linux.resources.pids.limit", func(s *bundle.Spec) {
			s.OCI.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: n(0)}}
		}},
		"quota": {"oci.linux.resources.cpu.quota", func(s *bundle.Spec) {
			s.OCI.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: n(10)}}
		}},
		"nic name":     {"nic.name", func(s *bundle.Spec) { s.NIC.Name = "a/b" }},
		"nic mac":      {"nic.mac", func(s *bundle.Spec) { s.NIC.MAC = "01:00:5e:00:00:01" }},
		"nic address":  {"nic.addrs[0]", func(s *bundle.Spec) { s.NIC.Addrs = []netip.Prefix{netip.MustParsePrefix("224.0.0.1/4")} }},
		"nic gateways": {"nic.gateways", func(s *bundle.Spec) { s.NIC.Gateways[1] = netip.MustParseAddr("10.0.0.9") }},
		"nic mtu":      {"nic.mtu", func(s *bundle.Spec) { s.NIC.MTU = 40 }},
		"nic namespace": {"nic", func(s *bundle.Spec) {
			s.OCI.Linux.Sysctl = nil
			s.OCI.Linux.Namespaces = append(s.OCI.Linux.Namespaces[:3:3], s.OCI.Linux.Namespaces[4:]...)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.spoil(s)
			err := s.Validate()
			var fe *bundle.FieldError
			if !errors.As(err, &fe) || fe.Field != c.field || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one error of %s", err, c.field)
			}
		})
	}
}

// All problems are reported at once.
func TestValidateJoins(t *testing.T) {
	err := (&bundle.Spec{}).Validate()
	for _, want := range []string{"name: ", "root.kind: ", "oci.process: ", "oci.linux: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestParseUser(t *testing.T) {
	for in, want := range map[string]bundle.UserRef{
		"0":          {},
		"1000":       {UID: 1000},
		"2147483647": {UID: 1<<31 - 1},
		"web":        {User: "web"},
		"web:33":     {User: "web", GID: 33, HasGroup: true},
		"33:www":     {UID: 33, Group: "www", HasGroup: true},
		"_apt:0":     {User: "_apt", HasGroup: true},
		"pc$":        {User: "pc$"},
	} {
		if got, err := bundle.ParseUser(in); err != nil || got != want {
			t.Errorf("ParseUser(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", ":", "0:", ":0", "-1", "+0", "00", "01", " 1", "1 ", "2147483648", "4294967296", "18446744073709551616", "0:-1", "1:2:3", "0x1", "1e3", "a b", "a\x00", "é", "٣"} {
		if got, err := bundle.ParseUser(in); err == nil {
			t.Errorf("ParseUser(%q) = %+v, want an error", in, got)
		}
	}
}

func FuzzParseUser(f *testing.F) {
	for _, s := range []string{"0", "1000:1000", "web:www", "-1", "4294967296", "1:2:3", "+0", "00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := bundle.ParseUser(s)
		if err == nil && (r.UID > 1<<31-1 || r.GID > 1<<31-1 || r.User != "" && r.UID != 0) {
			t.Errorf("%q: %+v", s, r)
		}
	})
}

func TestJSON(t *testing.T) {
	data, err := json.Marshal(good())
	if err != nil {
		t.Fatal(err)
	}
	var back bundle.Spec
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&back)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(data), string(again)); diff != "" {
		t.Error(diff)
	}
}
