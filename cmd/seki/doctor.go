package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle/linux"
	inkernel "sekimori/nicshadow/kernel"
	"sekimori/vmm/kvm"
	"sekimori/vmm/uml"
	"sekimori/vmm/uml/kernel"
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := a.examine(cmd.Context())
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

// hints say what to do about a feature that is missing, by the name that
// package linux gives it.
var hints = map[string]string{
	"root":            "cgroups, TAP devices and the mounts of a root file system need it: sudo seki ...",
	"user namespaces": "sysctl user.max_user_namespaces=15000",
	"overlay":         "host_root() and dir() need it, unless overlay = False: modprobe overlay",
	"cgroups":         "mount the cgroup file systems below /sys/fs/cgroup",
}

// examine looks at this machine.
func (a *app) examine(ctx context.Context) doctorReport {
	checks := []checkReport{checkKernel()}
	for _, f := range linux.Supported() {
		checks = append(checks, checkReport{Name: f.Name, OK: f.OK, Needed: f.Required, Detail: f.Detail, Hint: hints[f.Name]})
	}
	checks = append(checks, checkTUN(), checkNFT(), checkInKernel())
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
	of := uml.Supported(ctx, kernel.Dirs(a.env))
	for _, f := range of {
		checks = append(checks, checkReport{Name: f.Name, OK: f.OK, Detail: f.Detail, Hint: f.Hint})
	}
	guest := umlMachine(of)
	kvmChecks, virtual := examineKVM(ctx)
	return doctorReport{
		OK:       host.OK || guest.OK || virtual.OK,
		Machines: []machineReport{host, guest, virtual},
		Checks:   append(checks, kvmChecks...),
	}
}

// examineKVM has a guest of a few instructions try what Linux needs, and looks for
// a kernel. Neither keeps the other machines from running.
func examineKVM(ctx context.Context) ([]checkReport, machineReport) {
	dev := checkReport{Name: "/dev/kvm", OK: true, Detail: "runs Linux", Hint: "machine kvm needs it: bare metal, or a virtual machine with nested virtualization; machine uml needs neither"}
	m := machineReport{Name: "kvm", OK: true}
	if err := kvm.Probe(ctx); err != nil {
		dev.OK, dev.Detail = false, oneLine(err)
		m.OK, m.Why = false, dev.Detail
	}
	k := checkReport{Name: "guest kernel", OK: true, Hint: "apt-get install linux-image-amd64, or --kernel: machine kvm boots a distribution's kernel that has its modules, 9P among them"}
	image, _, err := guestKernel("")
	if k.Detail = image; err != nil {
		k.OK, k.Detail = false, "none in /boot that a guest could use"
		if m.OK {
			m.Why = "with --kernel: there is " + k.Detail
		}
	}
	return []checkReport{dev, k}, m
}

// oneLine is the first line of an error: a hint may follow.
func oneLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimPrefix(line, "machine: ")
}

// umlMachine says what a machine of that kind misses here. None of it keeps
// machine host from running.
func umlMachine(of []uml.Feature) machineReport {
	m := machineReport{Name: "uml", OK: true}
	var missing []string
	for _, f := range of {
		if !f.OK {
			missing = append(missing, f.Name)
		}
	}
	if len(missing) > 0 {
		m.OK, m.Why = false, "missing: "+strings.Join(missing, ", ")
	}
	return m
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

// checkInKernel tries what a card needs whose frames the kernel judges; only
// nic(datapath = "kernel") needs it.
func checkInKernel() checkReport {
	c := checkReport{Name: "kernel datapath", Hint: `nic(datapath = "kernel") needs it: root, Linux 6.6 with tcx (CONFIG_NET_XGRESS), BPF with BTF, and veth`}
	if err := inkernel.Supported(); err != nil {
		c.Detail = err.Error()
		return c
	}
	c.OK, c.Detail = true, "programs judge frames"
	return c
}

// checkKernel names the kernel; what it must be able to do is tried by itself.
func checkKernel() checkReport {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return checkReport{Name: "kernel", Detail: cause(err)}
	}
	return checkReport{Name: "kernel", OK: true, Detail: "Linux " + unix.ByteSliceToString(u.Release[:])}
}

// cause is the last part of an error about a path that stands in front anyway.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
