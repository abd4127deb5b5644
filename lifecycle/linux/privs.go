package linux

import (
	"errors"
	"fmt"
	"sync"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capSets are the five capability sets of a process, one bit a capability.
type capSets struct {
	bounding, effective, permitted, inheritable, ambient uint64
}

// capNumbers maps the names of the specification to numbers.
var capNumbers = sync.OnceValue(func() map[string]uint {
	m := map[string]uint{}
	for _, c := range capability.ListKnown() {
		m["CAP_"+upper(c.String())] = uint(c)
	}
	return m
})

func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// lastCap is the highest capability of the running kernel, which may be newer
// than our names: those are dropped too.
var lastCap = sync.OnceValues(func() (uint, error) {
	c, err := capability.LastCap()
	return uint(c), err
})

// parseCaps turns names into sets. No capabilities at all is the default.
func parseCaps(c *specs.LinuxCapabilities) (capSets, error) {
	if c == nil {
		return capSets{}, nil
	}
	last, err := lastCap()
	if err != nil {
		return capSets{}, fmt.Errorf("capabilities of this kernel: %w", err)
	}
	set := func(names []string) (bits uint64) {
		for _, n := range names {
			i, ok := capNumbers()[n]
			if !ok || i > last {
				err = fmt.Errorf("capability %s is not known to this kernel", n)
				continue
			}
			bits |= 1 << i
		}
		return bits
	}
	s := capSets{set(c.Bounding), set(c.Effective), set(c.Permitted), set(c.Inheritable), set(c.Ambient)}
	return s, err
}

// dropBounding leaves only the wanted capabilities in the bounding set, of all
// those that the kernel has, known to us or not.
func (s *script) dropBounding(c capSets) {
	last, _ := lastCap()
	for i := uint(0); i <= max(last, 40); i++ {
		if c.bounding&(1<<i) == 0 {
			s.call(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, int(i), 0, 0, 0)
			s.ignore(unix.EINVAL) // a number beyond the kernel's last
		}
	}
}

// capabilities sets the other four sets.
func (s *script) capabilities(c capSets) {
	s.step("set capabilities")
	hdr := place(s, []unix.CapUserHeader{{Version: unix.LINUX_CAPABILITY_VERSION_3}})
	data := place(s, []unix.CapUserData{
		{Effective: uint32(c.effective), Permitted: uint32(c.permitted), Inheritable: uint32(c.inheritable)},
		{Effective: uint32(c.effective >> 32), Permitted: uint32(c.permitted >> 32), Inheritable: uint32(c.inheritable >> 32)},
	})
	s.call(unix.SYS_CAPSET, hdr, data)
	s.call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for i := range uint(64) {
		if c.ambient&(1<<i) != 0 {
			s.call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, int(i), 0, 0)
		}
	}
}

// rlimits are the resource limits by name.
var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// setRlimits limits another process. Raising a hard limit takes
// CAP_SYS_RESOURCE in the host's user namespace, so the parent does this.
func setRlimits(pid int, ls []specs.POSIXRlimit) error {
	for _, l := range ls {
		err := unix.Prlimit(pid, rlimits[l.Type], &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil)
		if errors.Is(err, unix.EPERM) {
			var have unix.Rlimit
			unix.Prlimit(pid, rlimits[l.Type], nil, &have)
			return fmt.Errorf("%s: raising the hard limit from %d to %d needs CAP_SYS_RESOURCE", l.Type, have.Max, l.Hard)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.Type, err)
		}
	}
	return nil
}
