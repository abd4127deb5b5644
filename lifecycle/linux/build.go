package linux

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle/bundle"
)

// A builder turns a specification into a script. It opens whatever the
// container gets of the host (each open file is a capability that needs no path
// afterwards), so the child never looks a host path up.
type builder struct {
	*script
	taken     bool // a process has the script now
	cfg       *Config
	control   control
	joins     bool   // namespaces are joined, so the script clones once more
	nsFlags   uint64 // namespaces that differ from the host's
	exec      execParams
	files     []int // host descriptors to close at the end
	attrs     []pendingAttr
	null      int    // the host's /dev/null
	nullMount hostFD // its mount at /dev/null in the container; 0 if there is none

	root   slot         // descriptor of the container's root
	made   map[int]slot // file systems made before the pivot, by index of mounts
	proc   slot         // a proc file system of the container's pid namespace
	parts  []hostPart   // directories of the host, if the root is its
	cgroup *cgroup      // made before the script
	entry  []int        // descriptors to enter it by
	spec   *bundle.Spec
}

// A pendingAttr is a change of a detached mount's attributes that needs the
// container's user namespace.
type pendingAttr struct {
	fd        int
	what      string
	attr      unix.MountAttr
	idmap     bool
	recursive bool
}

func newBuilder(cfg *Config, cg *cgroup) (*builder, error) {
	s, err := newScript()
	if err != nil {
		return nil, err
	}
	return &builder{script: s, cfg: cfg, spec: cfg.Spec, cgroup: cg, made: map[int]slot{}, null: -1}, nil
}

// close closes what build opened, of which the child has its own copies, and
// frees the script unless a process has it.
func (b *builder) close() {
	if !b.taken {
		b.script.free()
	}
	for _, fd := range b.files {
		unix.Close(fd)
	}
	b.files = nil
}

// own makes fd one that close closes.
func (b *builder) own(fd int) hostFD {
	b.files = append(b.files, fd)
	b.fds[fd] = true
	return hostFD(fd)
}

// build writes the whole script, from the first call of the child to execve.
func (b *builder) build() error {
	var err error
	if b.control, err = newControl(); err != nil {
		return err
	}
	ok := false
	defer func() {
		if !ok {
			b.control.parent.Close()
			b.control.child.Close()
		}
	}()
	if b.null, err = openNull(); err != nil {
		return err
	}
	b.own(b.null)
	at, err := b.begin()
	if err != nil {
		return err
	}
	for _, f := range []func() error{b.identity, b.makeMounts, b.makeRoot, b.pivot, b.attachParts, b.attachMounts, b.sysctls, b.maskPaths, b.sealRoot} {
		if err := f(); err != nil {
			return err
		}
	}
	b.step("prepared")
	b.call(opGate, b.ctl())
	if err := b.finale(); err != nil {
		return err
	}
	b.fillClose(at)
	ok = true
	return b.finish()
}

// ctl is the child's end of the control socket.
func (b *builder) ctl() hostFD { return hostFD(b.control.child.Fd()) }

// openNull opens the host's /dev/null, and makes sure that it is.
func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/null: %w", err)
	}
	if !isDevice(fd, 1, 3) {
		unix.Close(fd)
		return -1, fmt.Errorf("the host's /dev/null is not the null device")
	}
	return fd, nil
}

// isDevice says whether fd is the character device major:minor.
func isDevice(fd int, major, minor uint32) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(major, minor)
}

// begin is what the child does first. It returns where the calls that close the
// parent's other descriptors go.
func (b *builder) begin() (closeAt int, err error) {
	b.step("begin")
	// A copy of the supervisor must be no one's to trace (CVE-2016-9962).
	b.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	b.parentDeath()
	closeAt = len(b.ops)
	b.call(opJump, 0) // replaced by fillClose
	if b.entry, err = b.cgroup.entrances(); err != nil {
		return 0, err
	}
	b.files = append(b.files, b.entry...)
	b.enter(b.entry)
	if err := b.joinNamespaces(); err != nil {
		return 0, err
	}
	b.step("wait to be prepared")
	b.call(opWait, b.ctl())
	b.step("session")
	b.call(unix.SYS_SETSID)
	return closeAt, nil
}

// parentDeath has the kernel kill the child with the supervisor. A change of
// credentials clears it, so it is said again after each.
func (b *builder) parentDeath() {
	if !b.cfg.Detached {
		b.call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
	}
}

// fillClose puts the closing of all descriptors but the script's at position
// at: the ranges are known only when the script is complete.
func (s *script) fillClose(at int) {
	fds := make([]int, 0, len(s.fds)+3)
	for fd := range s.fds {
		fds = append(fds, fd)
	}
	fds = append(fds, 0, 1, 2)
	slices.Sort(fds)
	var calls []op
	step := s.ops[at].step
	next := 0
	for _, fd := range slices.Compact(fds) {
		if fd > next {
			calls = append(calls, op{nr: unix.SYS_CLOSE_RANGE, args: [6]uintptr{uintptr(next), uintptr(fd - 1)}, step: step})
		}
		next = fd + 1
	}
	calls = append(calls, op{nr: unix.SYS_CLOSE_RANGE, args: [6]uintptr{uintptr(next), uintptr(^uint32(0))}, step: step})
	if len(s.ops)+len(calls) > maxOps {
		s.full = true
		return
	}
	s.ops = slices.Replace(s.ops, at, at+1, calls...)
	for i, pc := range s.labels {
		if pc > at {
			s.labels[i] = pc + len(calls) - 1
		}
	}
}

// joinNamespaces enters the namespaces that are given by path. The user
// namespace comes first, for it gives the right to enter the others; a pid
// namespace is entered by children only, hence the second clone, which also
// makes the new namespaces.
func (b *builder) joinNamespaces() error {
	var flags uint64
	for t, f := range cloneFlags {
		switch n := b.cfg.namespace(t); {
		case n == nil:
		case n.Path == "":
			flags |= f
			b.nsFlags |= f
		default:
			b.joins = true
			b.nsFlags |= f
		}
	}
	if b.cfg.namespace(specs.CgroupNamespace) != nil {
		b.nsFlags |= unix.CLONE_NEWCGROUP
	}
	for _, t := range []specs.LinuxNamespaceType{
		specs.UserNamespace, specs.PIDNamespace, specs.NetworkNamespace, specs.UTSNamespace, specs.IPCNamespace, specs.CgroupNamespace,
	} {
		n := b.cfg.namespace(t)
		if n == nil || n.Path == "" {
			continue
		}
		fd, err := unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s namespace %s: %w", t, n.Path, err)
		}
		b.step("join %s namespace %s", t, n.Path)
		b.joins = true
		flag := cloneFlags[t]
		if t == specs.CgroupNamespace {
			flag = unix.CLONE_NEWCGROUP
		}
		b.call(unix.SYS_SETNS, b.own(fd), flag)
	}
	if b.joins {
		b.step("clone with new namespaces")
		b.forkSecond(flags)
		b.parentDeath()
	}
	return nil
}

// identity makes the child root of its user namespace, and names the host.
func (b *builder) identity() error {
	b.step("clear umask")
	b.call(unix.SYS_UMASK, 0)
	if b.cfg.inUserNS() {
		b.step("become root of the user namespace")
		b.call(unix.SYS_SETGROUPS, 0, 0)
		b.call(unix.SYS_SETRESGID, 0, 0, 0)
		b.call(unix.SYS_SETRESUID, 0, 0, 0)
		b.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
		b.parentDeath()
	}
	if b.cfg.newNS(specs.CgroupNamespace) {
		b.step("make cgroup namespace")
		b.call(unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	if b.cfg.newNS(specs.NetworkNamespace) {
		b.step("bring up lo")
		// struct ifreq: a name of 16 bytes, then the flags.
		req := append([]byte("lo"), make([]byte, 38)...)
		binary.NativeEndian.PutUint16(req[16:], unix.IFF_UP|unix.IFF_RUNNING)
		sock := b.open(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		b.call(unix.SYS_IOCTL, sock, unix.SIOCSIFFLAGS, req)
		b.call(unix.SYS_CLOSE, sock)
	}
	if h := b.spec.OCI.Hostname; h != "" {
		b.step("set host name %q", h)
		b.call(unix.SYS_SETHOSTNAME, []byte(h), len(h))
	}
	if d := b.spec.OCI.Domainname; d != "" {
		b.step("set domain name %q", d)
		b.call(unix.SYS_SETDOMAINNAME, []byte(d), len(d))
	}
	return nil
}

// how is a struct open_how, for openat2.
func how(flags, mode, resolve uint64) unix.OpenHow {
	return unix.OpenHow{Flags: flags, Mode: mode, Resolve: resolve}
}

const howSize = int(unsafe.Sizeof(unix.OpenHow{})) // SAFETY: a size only

// inRoot opens p below the container's root. Symbolic links are followed as the
// container would, never out of it; magic links of /proc never.
func (b *builder) inRoot(p string, flags uint64) slot {
	return b.open(unix.SYS_OPENAT2, b.root, relative(p), how(flags|unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS), howSize)
}

// relative is p without the leading slash; the root itself is ".".
func relative(p string) string {
	p = path.Clean("/" + p)[1:]
	if p == "" {
		return "."
	}
	return p
}
