package linux

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle/bundle"
)

// This file is inside the package: a filter is tested before it is assembled.

// judge runs a filter in the Go virtual machine. That loads big-endian words,
// the kernel native ones, so each word of seccomp_data is swapped.
func judge(t testing.TB, p *profile, arch, nr uint32, args ...uint64) uint32 {
	t.Helper()
	insns, err := p.compile()
	if err != nil {
		t.Fatal(err)
	}
	// The machine of x/net wants packets accepted or dropped by length; the
	// result of a RetConstant is that length.
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[0:], nr)
	binary.BigEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(a>>32))
	}
	n, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func withCaps(t testing.TB, more ...string) capSets {
	t.Helper()
	c, err := parseCaps(bundle.Capabilities(append(bundle.DefaultCapabilities(), more...)...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func errno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

func TestDefaultProfile(t *testing.T) {
	plain, raw, admin := defaultProfile(withCaps(t)), defaultProfile(withCaps(t, "CAP_NET_RAW")), defaultProfile(withCaps(t, "CAP_SYS_ADMIN"))
	const dirty = 0xdeadbeef << 32 // what an int argument's upper half may hold
	for _, c := range []struct {
		name string
		p    *profile
		nr   uint32
		args []uint64
		want uint32
	}{
		{"read", plain, unix.SYS_READ, nil, allow},
		{"execve", plain, unix.SYS_EXECVE, nil, allow},
		{"newest", plain, unix.SYS_MSEAL, nil, allow},
		{"mount", plain, unix.SYS_MOUNT, nil, eperm},
		{"mount, admin", admin, unix.SYS_MOUNT, nil, allow},
		{"unshare", plain, unix.SYS_UNSHARE, []uint64{unix.CLONE_NEWUSER}, eperm},
		{"bpf, admin", admin, unix.SYS_BPF, nil, eperm},
		{"io_uring_setup, admin", admin, unix.SYS_IO_URING_SETUP, nil, eperm},
		{"userfaultfd", admin, unix.SYS_USERFAULTFD, nil, eperm},
		{"keyctl", plain, unix.SYS_KEYCTL, nil, eperm},
		{"kexec_load", admin, unix.SYS_KEXEC_LOAD, nil, eperm},
		{"init_module", admin, unix.SYS_INIT_MODULE, nil, eperm},
		{"open_by_handle_at", plain, unix.SYS_OPEN_BY_HANDLE_AT, nil, eperm},
		{"from the future", plain, lastSyscall() + 1, nil, nosys},
		{"fork by clone", plain, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, allow},
		{"thread by clone", plain, unix.SYS_CLONE, []uint64{0x3d0f00}, allow},
		{"clone, user namespace", plain, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, eperm},
		{"clone, net namespace, dirty", plain, unix.SYS_CLONE, []uint64{dirty | unix.CLONE_NEWNET}, eperm},
		{"clone3", plain, unix.SYS_CLONE3, nil, nosys},
		{"clone3, admin", admin, unix.SYS_CLONE3, nil, allow},
		{"inet socket", plain, unix.SYS_SOCKET, []uint64{unix.AF_INET}, allow},
		{"inet socket, dirty", plain, unix.SYS_SOCKET, []uint64{dirty | unix.AF_INET}, allow},
		{"packet socket", plain, unix.SYS_SOCKET, []uint64{unix.AF_PACKET}, errno(unix.EAFNOSUPPORT)},
		{"packet socket, dirty", plain, unix.SYS_SOCKET, []uint64{dirty | unix.AF_PACKET}, errno(unix.EAFNOSUPPORT)},
		{"packet socket, raw", raw, unix.SYS_SOCKET, []uint64{unix.AF_PACKET}, allow},
		{"vsock", raw, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, errno(unix.EAFNOSUPPORT)},
		{"xdp", raw, unix.SYS_SOCKET, []uint64{unix.AF_XDP}, errno(unix.EAFNOSUPPORT)},
		{"packet ring", raw, unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_PACKET, unix.PACKET_RX_RING}, eperm},
		{"packet ring, dirty", raw, unix.SYS_SETSOCKOPT, []uint64{3, dirty | unix.SOL_PACKET, dirty | unix.PACKET_TX_RING}, eperm},
		{"packet header", raw, unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_PACKET, unix.PACKET_VNET_HDR}, eperm},
		{"packet fanout", raw, unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_PACKET, unix.PACKET_FANOUT}, eperm},
		{"packet reserve", raw, unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_PACKET, unix.PACKET_RESERVE}, eperm},
		{"packet membership", raw, unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP}, allow},
		{"other level, same number", raw, unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_SOCKET, unix.PACKET_RX_RING}, allow},
		{"fake input", plain, unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, eperm},
		{"fake input, dirty", plain, unix.SYS_IOCTL, []uint64{0, dirty | unix.TIOCSTI}, eperm},
		{"window size", plain, unix.SYS_IOCTL, []uint64{0, unix.TIOCGWINSZ}, allow},
		{"personality", plain, unix.SYS_PERSONALITY, []uint64{0xffffffff}, allow},
		{"personality, no randomness", plain, unix.SYS_PERSONALITY, []uint64{0x0040000}, eperm},
		{"x32", plain, x32Bit | unix.SYS_READ, nil, errno(unix.ENOSYS)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := judge(t, c.p, auditArch, c.nr, c.args...); got != c.want {
				t.Errorf("got %#x, want %#x", got, c.want)
			}
		})
	}
	if got := judge(t, plain, unix.AUDIT_ARCH_I386, unix.SYS_READ); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("another architecture: got %#x", got)
	}
}

// Every name of every topic is a system call: a misspelt one would be refused
// in silence.
func TestTopicNames(t *testing.T) {
	seen := map[string]bool{}
	for _, topic := range topics {
		for _, n := range strings.Fields(topic.names) {
			if _, ok := syscallNumbers()[n]; !ok {
				t.Errorf("%s: %q is not a system call", topic.why, n)
			}
			if seen[n] {
				t.Errorf("%s: %q is there twice", topic.why, n)
			}
			seen[n] = true
		}
		if topic.cap != "" {
			if _, ok := capNumbers()[topic.cap]; !ok {
				t.Errorf("%s: %q is not a capability", topic.why, topic.cap)
			}
		}
	}
}

// All operators, against arithmetic on 64 bits.
func TestOperators(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	values := []uint64{0, 1, 2, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<63 - 1, 1 << 63, 1<<64 - 1, 5<<32 | 5, 5<<32 | 4, 4<<32 | 5}
	for range 10 {
		values = append(values, rng.Uint64())
	}
	ops := map[specs.LinuxSeccompOperator]func(a, v, two uint64) bool{
		specs.OpEqualTo:      func(a, v, _ uint64) bool { return a == v },
		specs.OpNotEqual:     func(a, v, _ uint64) bool { return a != v },
		specs.OpLessThan:     func(a, v, _ uint64) bool { return a < v },
		specs.OpLessEqual:    func(a, v, _ uint64) bool { return a <= v },
		specs.OpGreaterThan:  func(a, v, _ uint64) bool { return a > v },
		specs.OpGreaterEqual: func(a, v, _ uint64) bool { return a >= v },
		specs.OpMaskedEqual:  func(a, v, two uint64) bool { return a&v == two },
	}
	for op, holds := range ops {
		for _, v := range values {
			two := v & rng.Uint64()
			p, err := fromOCI(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{
				Names: []string{"read", "no_such_call"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 3, Op: op, Value: v, ValueTwo: two}},
			}}})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range append(values, v, two, v^1<<40) {
				want := eperm
				if holds(a, v, two) {
					want = allow
				}
				if got := judge(t, p, auditArch, unix.SYS_READ, 9, 9, 9, a); got != uint32(want) {
					t.Errorf("%#x %s %#x (%#x): got %#x, want %#x", a, op, v, two, got, want)
				}
			}
		}
	}
}

// A rule's conditions hold together, but two on one argument count alone.
func TestRules(t *testing.T) {
	n := uint(unix.EBUSY)
	p, err := fromOCI(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: &n, Args: []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo, Value: 1}, {Index: 1, Op: specs.OpEqualTo, Value: 2}}},
		{Names: []string{"write"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo, Value: 1}, {Index: 0, Op: specs.OpEqualTo, Value: 2}}},
		{Names: []string{"open"}, Action: specs.ActKillProcess},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		nr, want uint32
		args     []uint64
	}{
		{unix.SYS_READ, errno(unix.EBUSY), []uint64{1, 2}}, {unix.SYS_READ, allow, []uint64{1, 3}}, {unix.SYS_READ, allow, []uint64{3, 2}},
		{unix.SYS_WRITE, eperm, []uint64{1}}, {unix.SYS_WRITE, eperm, []uint64{2}}, {unix.SYS_WRITE, allow, []uint64{3}},
		{unix.SYS_OPEN, unix.SECCOMP_RET_KILL_PROCESS, nil}, {unix.SYS_CLOSE, allow, nil},
	} {
		if got := judge(t, p, auditArch, c.nr, c.args...); got != c.want {
			t.Errorf("%d %v: got %#x, want %#x", c.nr, c.args, got, c.want)
		}
	}
}

func TestBadProfiles(t *testing.T) {
	big := uint(5000)
	for name, s := range map[string]*specs.LinuxSeccomp{
		"action":       {DefaultAction: "SCMP_ACT_WISH"},
		"notify":       {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActNotify}}},
		"operator":     {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "SCMP_CMP_ISH"}}}}},
		"errno":        {DefaultAction: specs.ActErrno, DefaultErrnoRet: &big},
		"architecture": {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchS390}},
	} {
		if _, err := seccompFilter(s, capSets{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	f, err := seccompFilter(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, capSets{})
	if f != nil || err != nil {
		t.Errorf("allow all: %v, %v", f, err)
	}
}

// The filter is short, and its search shallow.
func TestFilterSize(t *testing.T) {
	f, err := seccompFilter(nil, withCaps(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(f) > 500 {
		t.Errorf("%d instructions", len(f))
	}
	t.Logf("%d instructions", len(f))
}

// The listing's machine code is what an assembler makes of its source.
func TestStarterListing(t *testing.T) {
	as, err := exec.LookPath("as")
	if err != nil {
		t.Skip("needs an assembler")
	}
	dir := t.TempDir()
	source := ".intel_syntax noprefix\n"
	for l := range strings.Lines(starterListing) {
		if _, src, ok := strings.Cut(l, "|"); ok {
			source += src
		}
	}
	if err := os.WriteFile(dir+"/s.s", []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(as, "-o", dir+"/s.o", dir+"/s.s").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("objcopy", "-O", "binary", "-j", ".text", dir+"/s.o", dir+"/s.bin").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	code, _, err := parseListing(starterListing)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(dir + "/s.bin")
	if err != nil {
		t.Fatal(err)
	}
	if string(code) != string(want) {
		t.Errorf("the two columns differ:\n%x\n%x", code, want)
	}
	image, err := starterImage(false)
	if err != nil || len(image) > 1024 {
		t.Errorf("image of %d bytes, %v", len(image), err)
	}
}
