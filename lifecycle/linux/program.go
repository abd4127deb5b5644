package linux

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A program is what a child becomes in the end, and with which rights.
type program struct {
	args, env []string
	cwd       string
	uid, gid  uint32
	groups    []uint32
	umask     uint32
	caps      capSets
	noNewPriv bool
	filter    []filterInsn // nil: none
	stdio     [3]hostFD
	terminal  bool
	detached  bool
	starter   hostFD // memory file to execute first; -1 for none
}

// execParams is what a later Exec takes over from the container's process.
type execParams struct {
	program program
	uids    []specs.LinuxIDMapping // nil without a user namespace of known maps
	gids    []specs.LinuxIDMapping
	userNS  bool
	rlimits []specs.POSIXRlimit
}

// finale appends the end of the script: it turns the specification's process
// into a program.
func (b *builder) finale() error {
	p := b.spec.OCI.Process
	rootDir := b.spec.Root.Path
	if rootDir == "" {
		rootDir = "/"
	}
	u, err := lookupUser(rootDir, p.User)
	if err != nil {
		return err
	}
	prog := program{
		args: p.Args, env: withHome(p.Env, u.home), cwd: p.Cwd, uid: u.uid, gid: u.gid, groups: u.groups,
		umask: 0o022, noNewPriv: p.NoNewPrivileges, terminal: p.Terminal, detached: b.cfg.Detached, starter: -1,
	}
	switch {
	case b.spec.Reaper:
		prog.starter, err = reaperFD()
	case !b.cfg.inUserNS():
		prog.starter, err = directFD()
	}
	if err != nil {
		return err
	}
	if p.User.Umask != nil {
		prog.umask = *p.User.Umask
	}
	if prog.caps, err = parseCaps(p.Capabilities); err != nil {
		return err
	}
	if prog.filter, err = seccompFilter(b.cfg.linux().Seccomp, prog.caps); err != nil {
		return err
	}
	for i, f := range b.cfg.Stdio {
		prog.stdio[i] = hostFD(b.null)
		if f != nil {
			prog.stdio[i] = hostFD(f.Fd())
		}
	}
	b.exec = execParams{program: prog, userNS: b.cfg.inUserNS(), rlimits: p.Rlimits}
	if b.cfg.newNS(specs.UserNamespace) {
		b.exec.uids, b.exec.gids = b.cfg.mappings()
	}
	return b.script.become(&prog, b.ctl())
}

// withHome adds HOME to env unless it is there.
func withHome(env []string, home string) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		return env
	}
	return append(slices.Clone(env), "HOME="+home)
}

// become appends what turns the child into p: descriptors, working directory,
// user, capabilities, system call filter, execve.
func (s *script) become(p *program, ctl hostFD) error {
	s.stdio(p)
	keep := []hostFD{ctl}
	if p.starter >= 0 {
		keep = append(keep, p.starter)
	}
	s.closeAll(keep...)
	s.step("set umask")
	s.call(unix.SYS_UMASK, p.umask)
	s.chdir(p.cwd)
	s.step("leave the session keyring")
	// Whoever possesses a keyring may read what is in it, whatever the user, and
	// a supervisor that was started from a login has the login's.
	s.call(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0)
	s.ignore(unix.ENOSYS) // a kernel without keyrings
	s.step("drop bounding capabilities")
	s.dropBounding(p.caps)
	s.defaultSignals()
	if !p.noNewPriv {
		// Without no_new_privs a filter needs CAP_SYS_ADMIN, gone in a moment.
		s.seccomp(p)
	}
	s.user(p)
	if p.cwd != "/" {
		s.chdirAsUser(p.cwd)
	}
	s.capabilities(p.caps)
	s.step("last preparations")
	s.call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	if !p.detached {
		s.call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
	}
	if p.noNewPriv {
		s.call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		s.seccomp(p)
	}
	return s.execve(p, ctl)
}

// stdio puts descriptors 0 to 2 in place. They are moved up first: one of them
// may stand where another is to go.
func (s *script) stdio(p *program) {
	s.step("standard input and output")
	var up [3]slot
	for i, fd := range p.stdio {
		up[i] = s.open(unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, 3)
	}
	for i := range p.stdio {
		s.call(unix.SYS_DUP3, up[i], i, 0)
	}
	if p.terminal {
		s.step("make the terminal the controlling one")
		s.call(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
}

// closeAll closes every descriptor but 0 to 2 and keep. It comes before chdir:
// a working directory of /proc/self/fd/N must find nothing of ours
// (CVE-2024-21626).
func (s *script) closeAll(keep ...hostFD) {
	s.step("close descriptors")
	slices.Sort(keep)
	next := 3
	for _, fd := range keep {
		if int(fd) > next {
			s.call(unix.SYS_CLOSE_RANGE, next, int(fd)-1, 0)
		}
		next = max(next, int(fd)+1)
	}
	s.call(unix.SYS_CLOSE_RANGE, next, uint64(^uint32(0)), 0)
}

// chdir changes to the working directory as root of the container. Where only
// the user may go there, chdirAsUser tries again.
func (s *script) chdir(dir string) {
	s.step("change to working directory %s", dir)
	if dir == "/" {
		s.call(unix.SYS_CHDIR, "/")
		return
	}
	skip := s.label()
	fd := s.open(unix.SYS_OPENAT2, unix.AT_FDCWD, dir, how(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS), howSize)
	s.on(skip, unix.EACCES)
	s.call(unix.SYS_FCHDIR, fd)
	s.on(skip, unix.EACCES)
	s.call(unix.SYS_CLOSE, fd)
	s.bind(skip)
}

// chdirAsUser changes to the working directory with the user's rights. It may
// repeat what chdir did; a directory that only root may enter is kept.
func (s *script) chdirAsUser(dir string) {
	s.step("change to working directory %s", dir)
	skip := s.label()
	fd := s.open(unix.SYS_OPENAT2, unix.AT_FDCWD, dir, how(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS), howSize)
	s.on(skip, unix.EACCES, unix.ENOSYS, unix.EPERM)
	s.call(unix.SYS_FCHDIR, fd)
	s.on(skip, unix.EACCES)
	s.call(unix.SYS_CLOSE, fd)
	s.bind(skip)
}

// defaultSignals undoes what this process ignores or blocks: both outlive execve.
func (s *script) defaultSignals() {
	s.step("reset signals")
	act := make([]byte, 32)          // struct sigaction, all zero: SIG_DFL
	for sig := 1; sig <= 64; sig++ { // 32 too: glibc's posix_spawn leaves it ignored
		if sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) {
			s.call(unix.SYS_RT_SIGACTION, sig, act, 0, 8)
		}
	}
	s.call(unix.SYS_RT_SIGPROCMASK, 2 /* SIG_SETMASK */, make([]byte, 8), 0, 8)
}

// user changes to the user, keeping capabilities for now.
func (s *script) user(p *program) {
	s.step("change to user %d:%d", p.uid, p.gid)
	s.call(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	if len(p.groups) > 0 {
		s.call(unix.SYS_SETGROUPS, len(p.groups), place(s, p.groups))
	} else {
		s.call(unix.SYS_SETGROUPS, 0, 0)
	}
	s.call(unix.SYS_SETRESGID, p.gid, p.gid, p.gid)
	s.call(unix.SYS_SETRESUID, p.uid, p.uid, p.uid)
	s.call(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0)
}

// seccomp installs the filter, if there is one.
func (s *script) seccomp(p *program) {
	if p.filter == nil {
		return
	}
	s.step("install system call filter")
	// struct sock_fprog: the number of instructions, at 8 their address.
	prog := place(s, []uintptr{uintptr(len(p.filter)), place(s, p.filter)})
	s.call(unix.SYS_SECCOMP, 1 /* SECCOMP_SET_MODE_FILTER */, 0, prog)
}

// execve appends the execution of the program, looked up in the PATH of its own
// environment, in the container, as execvp(3) does.
func (s *script) execve(p *program, ctl hostFD) error {
	s.step(executeStep+"%s", p.args[0])
	if p.starter >= 0 {
		return s.execStarter(p, p.starter, ctl)
	}
	argv, err := s.vector(p.args)
	if err != nil {
		return err
	}
	env, err := s.vector(p.env)
	if err != nil {
		return err
	}
	paths := candidates(p.args[0], p.env)
	for i, path := range paths {
		s.call(opExec, unix.AT_FDCWD, path, argv, env, 0)
		if i < len(paths)-1 {
			s.ignore(unix.ENOENT, unix.ENOTDIR)
		}
	}
	return nil
}

// candidates are the paths at which a program may be.
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var ps []string
	for _, dir := range strings.Split(path, ":") {
		if strings.HasPrefix(dir, "/") { // an empty or relative entry would mean the working directory
			ps = append(ps, dir+"/"+name)
		}
	}
	if len(ps) == 0 {
		return []string{name}
	}
	return ps
}

// vector places an array of C strings with a null pointer at its end.
func (s *script) vector(list []string) (uintptr, error) {
	v := make([]uintptr, len(list)+1)
	for i, e := range list {
		if strings.ContainsRune(e, 0) {
			return 0, fmt.Errorf("%q contains a NUL byte", e)
		}
		v[i], _ = s.arg(e)
	}
	return place(s, v), nil
}
