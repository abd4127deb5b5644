package bundle

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// linux checks the part of the specification that is Linux's own.
func (c *checker) linux(l *specs.Linux, uts bool) {
	c.namespaces(l)
	if uts && !hasNamespace(l, specs.UTSNamespace) {
		c.bad("oci.hostname", "needs a uts namespace, or it would rename the host")
	}
	for i, p := range l.MaskedPaths {
		c.absolute(fmt.Sprintf("oci.linux.maskedPaths[%d]", i), p)
	}
	for i, p := range l.ReadonlyPaths {
		c.absolute(fmt.Sprintf("oci.linux.readonlyPaths[%d]", i), p)
	}
	for k, v := range l.Sysctl {
		c.sysctl(l, k, v)
	}
	switch l.RootfsPropagation {
	case "", "private", "slave", "shared", "unbindable", "rprivate", "rslave", "rshared", "runbindable":
	default:
		c.bad("oci.linux.rootfsPropagation", "unknown propagation %q", l.RootfsPropagation)
	}
	if l.CgroupsPath != "" && (strings.ContainsRune(l.CgroupsPath, 0) || slices.Contains(strings.Split(l.CgroupsPath, "/"), "..")) {
		c.bad("oci.linux.cgroupsPath", "%q leaves the hierarchy", l.CgroupsPath)
	}
	if l.IntelRdt != nil {
		c.bad("oci.linux.intelRdt", "not supported")
	}
	if l.Personality != nil {
		c.bad("oci.linux.personality", "not supported")
	}
	if len(l.TimeOffsets) > 0 {
		c.bad("oci.linux.timeOffsets", "not supported")
	}
	if l.MountLabel != "" {
		c.bad("oci.linux.mountLabel", "SELinux is not supported")
	}
	c.seccomp(l.Seccomp)
	c.resources(l.Resources)
}

var namespaceTypes = []specs.LinuxNamespaceType{
	specs.UserNamespace, specs.MountNamespace, specs.PIDNamespace, specs.NetworkNamespace,
	specs.UTSNamespace, specs.IPCNamespace, specs.CgroupNamespace,
}

func (c *checker) namespaces(l *specs.Linux) {
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, n := range l.Namespaces {
		field := fmt.Sprintf("oci.linux.namespaces[%d]", i)
		if !slices.Contains(namespaceTypes, n.Type) {
			c.bad(field, "unsupported type %q", n.Type)
		}
		if seen[n.Type] {
			c.bad(field, "%s is given twice", n.Type)
		}
		seen[n.Type] = true
		if n.Path != "" {
			c.absolute(field+".path", n.Path)
		}
		if n.Type == specs.MountNamespace && n.Path != "" {
			c.bad(field+".path", "a mount namespace cannot be joined: the root file system would be changed for its other users")
		}
		if n.Type == specs.UserNamespace && n.Path != "" && len(l.UIDMappings)+len(l.GIDMappings) > 0 {
			c.bad("oci.linux.uidMappings", "cannot be set for a user namespace that is joined")
		}
	}
	if !seen[specs.MountNamespace] {
		c.bad("oci.linux.namespaces", "no mount namespace: the root file system would replace the host's")
	}
	if !seen[specs.UserNamespace] && len(l.UIDMappings)+len(l.GIDMappings) > 0 {
		c.bad("oci.linux.uidMappings", "needs a user namespace")
	}
	c.mappings("oci.linux.uidMappings", l.UIDMappings)
	c.mappings("oci.linux.gidMappings", l.GIDMappings)
}

// mappings checks an id map: at most 340 extents (user_namespaces(7)), whose
// third number is a length, not an end.
func (c *checker) mappings(field string, ms []specs.LinuxIDMapping) {
	if len(ms) > 340 {
		c.bad(field, "%d extents, at most 340", len(ms))
		return
	}
	for i, m := range ms {
		f := fmt.Sprintf("%s[%d]", field, i)
		if m.Size == 0 {
			c.bad(f, "size 0")
		}
		if uint64(m.ContainerID)+uint64(m.Size) > 1<<32-1 || uint64(m.HostID)+uint64(m.Size) > 1<<32-1 {
			c.bad(f, "reaches past the last id")
		}
		for j, o := range ms[:i] {
			if overlap(m.ContainerID, o.ContainerID, m.Size, o.Size) || overlap(m.HostID, o.HostID, m.Size, o.Size) {
				c.bad(f, "overlaps extent %d", j)
			}
		}
	}
}

func overlap(a, b, an, bn uint32) bool {
	return uint64(a) < uint64(b)+uint64(bn) && uint64(b) < uint64(a)+uint64(an)
}

// sysctl allows what a namespace of the container's own keeps apart; anything
// else would change the host.
func (c *checker) sysctl(l *specs.Linux, k, v string) {
	field := "oci.linux.sysctl." + k
	if strings.ContainsRune(v, 0) || strings.ContainsRune(k, 0) {
		c.bad(field, "contains a NUL byte")
		return
	}
	name := strings.ReplaceAll(k, "/", ".")
	if slices.Contains(strings.Split(name, "."), "") {
		c.bad(field, "not the name of a sysctl")
		return
	}
	var need specs.LinuxNamespaceType
	switch {
	case strings.HasPrefix(name, "net."):
		need = specs.NetworkNamespace
	case strings.HasPrefix(name, "fs.mqueue."), slices.Contains(ipcSysctls, name):
		need = specs.IPCNamespace
	case name == "kernel.domainname":
		need = specs.UTSNamespace
	default:
		c.bad(field, "is not kept apart by any namespace: it would change the host")
		return
	}
	if !hasNamespace(l, need) {
		c.bad(field, "needs a %s namespace, or it would change the host", need)
	}
}

var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// procExceptions may be mounted over inside /proc: files that lxcfs serves.
var procExceptions = []string{"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo"}

func (c *checker) mounts(ms []specs.Mount) {
	for i, m := range ms {
		field := fmt.Sprintf("oci.mounts[%d]", i)
		c.absolute(field+".destination", m.Destination)
		dst := path.Clean(m.Destination)
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		if bind {
			c.absolute(field+".source", m.Source)
		}
		if strings.ContainsRune(m.Source, 0) || len(m.Source) >= 4096 {
			c.bad(field+".source", "contains a NUL byte, or is too long")
		}
		// CVE-2019-16884: a mount over /proc would catch what is written there.
		switch {
		case dst == "/":
			c.bad(field+".destination", "the root itself cannot be mounted over")
		case dst == "/proc" && (bind || m.Type != "proc"):
			c.bad(field+".destination", "only a proc file system may be mounted on /proc")
		case strings.HasPrefix(dst, "/proc/") && !slices.Contains(procExceptions, dst):
			c.bad(field+".destination", "%q is inside /proc", m.Destination)
		}
		for _, o := range m.Options {
			if strings.ContainsRune(o, 0) || len(o) > 255 {
				c.bad(field+".options", "%q contains a NUL byte, or is too long", o)
			}
		}
		c.mappings(field+".uidMappings", m.UIDMappings)
		c.mappings(field+".gidMappings", m.GIDMappings)
	}
}

func (c *checker) seccomp(s *specs.LinuxSeccomp) {
	if s == nil {
		return
	}
	if s.DefaultAction == "" {
		c.bad("oci.linux.seccomp.defaultAction", "missing")
	}
	if s.ListenerPath != "" {
		c.bad("oci.linux.seccomp.listenerPath", "user notification is not supported")
	}
	for i, r := range s.Syscalls {
		if len(r.Names) == 0 {
			c.bad(fmt.Sprintf("oci.linux.seccomp.syscalls[%d].names", i), "empty")
		}
		for _, a := range r.Args {
			if a.Index > 5 {
				c.bad(fmt.Sprintf("oci.linux.seccomp.syscalls[%d].args", i), "index %d is above 5", a.Index)
			}
		}
	}
}

func (c *checker) resources(r *specs.LinuxResources) {
	if r == nil {
		return
	}
	if len(r.HugepageLimits) > 0 || r.Network != nil || len(r.Rdma) > 0 {
		c.bad("oci.linux.resources", "limits of huge pages, network classes and RDMA are not supported")
	}
	if m := r.Memory; m != nil {
		if m.Limit != nil && *m.Limit != -1 && *m.Limit < 512<<10 {
			c.bad("oci.linux.resources.memory.limit", "%d bytes are not enough to execute a program (at least 512 KiB)", *m.Limit)
		}
		if m.Limit != nil && m.Swap != nil && *m.Swap != -1 && *m.Swap < *m.Limit {
			c.bad("oci.linux.resources.memory.swap", "%d is below the limit %d: it counts memory and swap together", *m.Swap, *m.Limit)
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil && (*p.Limit == 0 || *p.Limit < -1) {
		c.bad("oci.linux.resources.pids.limit", "%d: at least 1, or -1 for none", *p.Limit)
	}
	if q := r.CPU; q != nil {
		if q.Quota != nil && *q.Quota != -1 && *q.Quota < 1000 {
			c.bad("oci.linux.resources.cpu.quota", "%d us: at least 1000", *q.Quota)
		}
		if q.Period != nil && (*q.Period < 1000 || *q.Period > 1000000) {
			c.bad("oci.linux.resources.cpu.period", "%d us: not in 1000..1000000", *q.Period)
		}
	}
}
