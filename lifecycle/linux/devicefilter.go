package linux

import (
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf/asm"
	"github.com/containerd/cgroups/v3/cgroup2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// On cgroup v2 no file has a list of devices: a program is asked at each open
// and mknod (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15), and the kernel says EPERM
// where it returns 0. The library's own filter is not used: it grants an access
// of which it knows one bit only (reading, to who opens for both).

// access bits of struct bpf_cgroup_dev_ctx (include/uapi/linux/bpf.h).
var deviceAccess = map[rune]int32{'m': unix.BPF_DEVCG_ACC_MKNOD, 'r': unix.BPF_DEVCG_ACC_READ, 'w': unix.BPF_DEVCG_ACC_WRITE}

const everyAccess = unix.BPF_DEVCG_ACC_MKNOD | unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE

// deviceFilter is a program that goes through the rules in their order. Each that
// is of the device grants what it allows, or takes what it denies, as lines
// written to the files of v1 do; all that was asked must be granted in the end.
func deviceFilter(rules []specs.LinuxDeviceCgroup) (asm.Instructions, error) {
	const (
		kind, access, major, minor, granted = asm.R2, asm.R3, asm.R4, asm.R5, asm.R6

		end = "end"
	)
	// struct bpf_cgroup_dev_ctx: access_type (access << 16 | type), major, minor.
	p := asm.Instructions{
		asm.LoadMem(kind, asm.R1, 0, asm.Word),
		asm.Mov.Reg(access, kind),
		asm.RSh.Imm(access, 16),
		asm.And.Imm(kind, 0xffff),
		asm.LoadMem(major, asm.R1, 4, asm.Word),
		asm.LoadMem(minor, asm.R1, 8, asm.Word),
		asm.Mov.Imm(granted, 0),
	}
	label := func(i int) string {
		if i == len(rules) {
			return end
		}
		return fmt.Sprint("rule", i)
	}
	for i, d := range rules {
		bits, err := accessOf(d)
		if err != nil {
			return nil, err
		}
		first := len(p)
		unless := func(r asm.Register, v int64) error {
			if v > 1<<31-1 {
				return fmt.Errorf("device rule %q: number out of range", deviceRule(d))
			}
			p = append(p, asm.JNE.Imm(r, int32(v), label(i+1)))
			return nil
		}
		switch d.Type {
		case "c":
			err = unless(kind, unix.BPF_DEVCG_DEV_CHAR)
		case "b":
			err = unless(kind, unix.BPF_DEVCG_DEV_BLOCK)
		}
		if every := d.Type == "" || d.Type == "a"; err == nil && !every {
			if d.Major != nil && *d.Major >= 0 {
				err = unless(major, *d.Major)
			}
			if err == nil && d.Minor != nil && *d.Minor >= 0 {
				err = unless(minor, *d.Minor)
			}
		}
		if err != nil {
			return nil, err
		}
		if d.Allow {
			p = append(p, asm.Or.Imm(granted, bits))
		} else {
			p = append(p, asm.And.Imm(granted, ^bits))
		}
		p[first] = p[first].WithSymbol(label(i))
	}
	return append(p,
		asm.Xor.Imm(granted, -1).WithSymbol(end),
		asm.And.Reg(access, granted), // what was asked and is not granted
		asm.Mov.Imm(asm.R0, 0),
		asm.JNE.Imm(access, 0, "no"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return().WithSymbol("no"),
	), nil
}

// accessOf is what a rule is about. One of every device is about every access,
// as in the files of v1.
func accessOf(d specs.LinuxDeviceCgroup) (bits int32, err error) {
	switch d.Type {
	case "", "a":
		return everyAccess, nil
	case "c", "b":
	default:
		return 0, fmt.Errorf("device rule: type %q: want a, b or c", d.Type)
	}
	for _, r := range d.Access {
		if deviceAccess[r] == 0 {
			return 0, fmt.Errorf("device rule %q: access %q: want letters of rwm", deviceRule(d), d.Access)
		}
		bits |= deviceAccess[r]
	}
	return bits, nil
}

// filterDevices has the v2 group at dir ask the rules. The program ends with the
// group.
func filterDevices(dir string, rules []specs.LinuxDeviceCgroup) error {
	p, err := deviceFilter(rules)
	if err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if _, err := cgroup2.LoadAttachCgroupDeviceFilter(p, "", fd); err != nil {
		// The verifier's log is a page, and of a program of ours.
		text, _, _ := strings.Cut(err.Error(), "\n")
		return fmt.Errorf("devices: %s (the kernel needs CONFIG_CGROUP_BPF)", text)
	}
	return nil
}
