package config

import (
	"slices"
	"strings"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark/args"
)

// knownCapabilities are all of capabilities(7), Linux 5.9 and later.
var knownCapabilities = []string{
	"AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE",
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL",
	"LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE",
	"NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG",
	"SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE",
	"SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
}

// shortCapabilities are the default capabilities without "CAP_".
func shortCapabilities() []string {
	names := bundle.DefaultCapabilities()
	for i, n := range names {
		names[i] = strings.TrimPrefix(n, "CAP_")
	}
	return names
}

// capabilities checks names, with or without CAP_, and returns them sorted,
// without duplicates, in the specification's spelling.
func (c call) capabilities(given []string) ([]string, error) {
	out := []string{}
	for _, g := range given {
		name := strings.TrimPrefix(strings.ToUpper(g), "CAP_")
		if name == "ALL" {
			for _, k := range knownCapabilities {
				out = append(out, "CAP_"+k)
			}
			continue
		}
		if !slices.Contains(knownCapabilities, name) {
			return nil, c.Errorf("capabilities", "capabilities(7) lists them; the default list is DEFAULT_CAPABILITIES",
				"unknown capability %q%s", g, args.DidYouMean(name, knownCapabilities))
		}
		out = append(out, "CAP_"+name)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
