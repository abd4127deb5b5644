package bundle

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Default returns the container that seki makes unless told otherwise, without
// arguments and root file system: all seven kinds of new namespaces (the id
// mapping is the supervisor's to choose), fresh /proc, /dev and a read-only
// /sys, eleven capabilities of which none can forge a frame, no_new_privs, and
// the default system call filter (a nil Linux.Seccomp).
func Default(name string) *Spec {
	return &Spec{
		Name: name,
		OCI: specs.Spec{
			Version:  specs.Version,
			Hostname: name,
			Process: &specs.Process{
				Env:             []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
				Cwd:             "/",
				Capabilities:    Capabilities(DefaultCapabilities()...),
				NoNewPrivileges: true,
			},
			Root:   &specs.Root{},
			Mounts: DefaultMounts(),
			Linux: &specs.Linux{
				Namespaces:    DefaultNamespaces(),
				MaskedPaths:   DefaultMaskedPaths(),
				ReadonlyPaths: DefaultReadonlyPaths(),
				// ICMP sockets for every group, so that ping needs no CAP_NET_RAW.
				Sysctl: map[string]string{"net.ipv4.ping_group_range": "0 65535"},
			},
		},
	}
}

// DefaultNamespaces are the seven kinds of namespaces that wall a container in.
func DefaultNamespaces() []specs.LinuxNamespace {
	return []specs.LinuxNamespace{
		{Type: specs.UserNamespace}, {Type: specs.MountNamespace}, {Type: specs.PIDNamespace},
		{Type: specs.NetworkNamespace}, {Type: specs.UTSNamespace}, {Type: specs.IPCNamespace}, {Type: specs.CgroupNamespace},
	}
}

// DefaultCapabilities are the names of the capabilities kept by default: what
// ordinary servers and package scripts need of root. CAP_NET_RAW is not among
// them (with it a container forges frames), nor are CAP_MKNOD and
// CAP_AUDIT_WRITE, which mean nothing in a user namespace.
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
		"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// Capabilities puts names into the bounding, permitted and effective sets. The
// inheritable and ambient sets stay empty: a non-root process would otherwise
// gain them by executing a file (CVE-2022-29162).
func Capabilities(names ...string) *specs.LinuxCapabilities {
	clone := func() []string { return append([]string{}, names...) }
	return &specs.LinuxCapabilities{Bounding: clone(), Permitted: clone(), Effective: clone()}
}

// DefaultMounts are the kernel's file systems that programs expect.
func DefaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=64m"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

// DefaultMaskedPaths are files of /proc and /sys that tell of the host, or let
// one talk to it.
func DefaultMaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// DefaultReadonlyPaths are parts of /proc that configure the host.
func DefaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
