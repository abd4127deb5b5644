package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// A doctorReport is what `doctor --json` prints.
type doctorReport struct {
	OK       bool            `json:"ok"` // some machine can run
	Machines []machineReport `json:"machines"`
	Checks   []checkReport   `json:"checks"`
}

// A machineReport says whether containers can run on a kind of machine here.
type machineReport struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Why  string `json:"why,omitempty"`
}

// A checkReport is one thing that was looked at.
type checkReport struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Needed bool   `json:"needed"` // nothing runs on machine host without it
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"` // what to do about it
}

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "say what this machine can run, and why not the rest",
		Long: `Doctor looks at this machine and says which kinds of machine containers can
run on here. It changes nothing. Its exit code is 1 if none can.`,
		Example: "  sudo seki doctor",
		Args:    args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			r := examine()
			err := error(nil)
			if !r.OK {
				err = &codeError{code: exitFailed}
			}
			if asJSON {
				return errors.Join(a.printJSON(r), err)
			}
			a.printDoctor(r)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printDoctor(r doctorReport) {
	t := newTable(a.stdout)
	for _, c := range r.Checks {
		mark := "ok"
		if !c.OK && c.Needed {
			mark = "MISSING"
		} else if !c.OK {
			mark = "no"
		}
		t.row(mark, c.Name, c.Detail)
	}
	t.Flush()
	for _, c := range r.Checks {
		if !c.OK && c.Hint != "" {
			fmt.Fprintf(a.stdout, "\n%s: %s\n", c.Name, c.Hint)
		}
	}
	fmt.Fprintln(a.stdout)
	t = newTable(a.stdout)
	for _, m := range r.Machines {
		mark := "runs"
		if !m.OK {
			mark = "does not run"
		}
		t.row("machine "+m.Name, mark, m.Why)
	}
	t.Flush()
}

// examine looks at this machine.
func examine() doctorReport {
	checks := []checkReport{
		checkRoot(), checkTUN(), checkUserNS(), checkCgroup(), checkOverlay(), checkIDMap(), checkSeccomp(), checkNFT(), checkKernel(),
	}
	host := machineReport{Name: "host", OK: true}
	var missing []string
	for _, c := range checks {
		if c.Needed && !c.OK {
			missing = append(missing, c.Name)
		}
	}
	if len(missing) > 0 {
		host.OK, host.Why = false, "missing: "+strings.Join(missing, ", ")
	}
	return doctorReport{
		OK: host.OK,
		Machines: []machineReport{
			host,
			{Name: "uml", Why: "not in this build of seki"},
			{Name: "kvm", Why: "not in this build of seki"},
		},
		Checks: checks,
	}
}

func checkRoot() checkReport {
	c := checkReport{Name: "root", Needed: true, Detail: "running as uid " + strconv.Itoa(os.Geteuid()),
		Hint: "cgroups, TAP devices and the mounts of a root file system need it: sudo seki …"}
	c.OK = os.Geteuid() == 0
	return c
}

func checkTUN() checkReport {
	c := checkReport{Name: "/dev/net/tun", Needed: true, Hint: "network cards are TAP devices: modprobe tun, or pass the device into this container"}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		c.Detail = cause(err)
		return c
	}
	c.OK, c.Detail = true, "can be opened"
	f.Close()
	return c
}

func checkUserNS() checkReport {
	c := checkReport{Name: "user namespaces", Needed: true, Hint: "sysctl user.max_user_namespaces=15000"}
	b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil {
		c.Detail = cause(err)
		return c
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(b)))
	c.OK, c.Detail = n > 0, "up to "+strconv.Itoa(n)
	return c
}

// checkCgroup accepts version 2, version 1, and both at once: controllers of
// version 1 beside an empty version 2.
func checkCgroup() checkReport {
	c := checkReport{Name: "cgroups", Needed: true, Hint: "mount the cgroup file systems at /sys/fs/cgroup"}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		c.Detail = cause(err)
		return c
	}
	version, list := "version 1", []string(nil)
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		version = "version 2"
		b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		if err != nil {
			c.Detail = cause(err)
			return c
		}
		list = strings.Fields(string(b))
	} else {
		for _, name := range []string{"cpu", "cpuset", "devices", "memory", "pids"} {
			if _, err := os.Stat("/sys/fs/cgroup/" + name + "/tasks"); err == nil {
				list = append(list, name)
			}
		}
		if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil {
			version = "version 1 beside 2"
		}
	}
	c.Detail = version + ": " + strings.Join(list, " ")
	c.OK = slices.Contains(list, "memory") && slices.Contains(list, "pids")
	if !c.OK {
		c.Hint = "the memory and pids controllers are needed for the limits of resources()"
	}
	return c
}

func checkOverlay() checkReport {
	c := checkReport{Name: "overlayfs", Hint: "host_root() and dir(overlay = True) need it: modprobe overlay"}
	return filesystem(c, "overlay")
}

func filesystem(c checkReport, name string) checkReport {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		c.Detail = cause(err)
		return c
	}
	c.OK = bytes.Contains(b, []byte("\t"+name+"\n"))
	c.Detail = "known to the kernel"
	if !c.OK {
		c.Detail = "not known to the kernel (a module that loads on first use?)"
	}
	return c
}

// checkIDMap asks for an idmapped mount in a way that cannot succeed: EBADF or
// EINVAL say that the kernel knows the call, ENOSYS that it does not.
func checkIDMap() checkReport {
	c := checkReport{Name: "idmapped mounts", Hint: "without them (Linux 5.12) files of a root file system keep the host's owners"}
	err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: 1 << 30})
	c.OK = !errors.Is(err, unix.ENOSYS)
	c.Detail = "known to the kernel"
	if !c.OK {
		c.Detail = cause(err)
	}
	return c
}

func checkSeccomp() checkReport {
	c := checkReport{Name: "seccomp", Needed: true, Hint: "a kernel with CONFIG_SECCOMP_FILTER"}
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		c.Detail = cause(err)
		return c
	}
	c.OK, c.Detail = true, string(bytes.TrimSpace(b))
	return c
}

// checkNFT opens the netlink family that nftables answers on; only
// uplink(masquerade = True) needs it.
func checkNFT() checkReport {
	c := checkReport{Name: "nftables", Hint: "uplink(masquerade = True) needs it: modprobe nf_tables"}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		c.Detail = cause(err)
		return c
	}
	unix.Close(fd)
	c.OK, c.Detail = true, "netlink answers"
	return c
}

func checkKernel() checkReport {
	c := checkReport{Name: "kernel", Needed: true, Hint: "Linux 5.10 or newer"}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		c.Detail = cause(err)
		return c
	}
	c.Detail = unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(c.Detail, "%d.%d", &major, &minor); err != nil {
		c.Detail += ": unknown version"
		return c
	}
	c.OK = major > 5 || major == 5 && minor >= 10
	return c
}

// cause is the last part of an error about a path that stands in front anyway.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
