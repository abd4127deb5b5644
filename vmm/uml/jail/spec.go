package jail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Spec says what runs in a jail and with what.
type Spec struct {
	Program *os.File // an ELF file, executable for the jail's user
	Args    []string // Args[0] included
	Env     []string

	// Files are copied into the jail, by the path they get there; those below
	// /run can be removed, all others are read-only.
	Files map[string]*os.File

	// Shown are files of the host, by the path below /run that they are shown at,
	// read-only and not copied.
	Shown map[string]string

	// Sockets are listened on, by the path they get below /run; the caller
	// made them, unbound, and accepts on its own copies.
	Sockets map[string]*os.File

	Stdout *os.File // also its stderr; stdin is empty

	// UID and GID are the host's ids that the program has, if the caller is
	// root; else it has the caller's.
	UID, GID int

	Tmp     int64  // size of /run in bytes
	Filter  Filter // which system calls
	Cgroup  []*os.File
	Unified *os.File // the directory of a cgroup of version 2; Cgroup are the tasks files of version 1

	dry bool // end when the jail is built, instead of executing Program
}

// A message is what the stage is told, in its second argument: descriptors by
// number.
type message struct {
	Args, Env []string
	Program   int
	Files     map[string]int
	Shown     map[string]string
	Sockets   map[string]int
	Cgroup    []int
	Tmp       int64
	Filter    Filter
	Dry       bool
}

// stageName is Args[0] of the stage.
const stageName = "seki-jail"

// statusFD is the stage's end of the socket on which it reports.
const statusFD = 3

// namespaces of a jail.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// Start runs s.Program in a jail and returns when it is executed, or with an
// error when ctx is done before. It does not close the files of s.
func Start(ctx context.Context, s *Spec) (*os.Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	status, child := os.NewFile(uintptr(pair[0]), "jail"), os.NewFile(uintptr(pair[1]), "jail")
	defer status.Close()
	files := []*os.File{null, s.Stdout, s.Stdout, child}
	text, files, err := s.encode(files)
	if err != nil {
		child.Close()
		return nil, err
	}
	p, err := spawn(&os.ProcAttr{Env: []string{}, Files: files, Sys: s.attr()}, text)
	child.Close()
	if err != nil {
		return nil, fmt.Errorf("first stage: %w%s", err, hint(err))
	}
	// It closes with execve, by which the stage has said all it had to say.
	stop := context.AfterFunc(ctx, func() { p.Kill() })
	said, err := io.ReadAll(io.LimitReader(status, 4096))
	if stop() && err == nil && len(said) == 0 {
		return p, nil
	}
	p.Kill()
	p.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case len(said) > 0:
		return nil, errors.New(string(said))
	default:
		return nil, err
	}
}

// Try builds a jail for nothing and says what this host lacks for it.
func Try(ctx context.Context, uid, gid int) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := Start(ctx, &Spec{Program: null, Stdout: null, UID: uid, GID: gid, Tmp: 1 << 20, dry: true})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("the stage ended with %v", state)
	}
	return err
}

// hint names the usual cause of a clone that is refused.
func hint(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return " (are unprivileged user namespaces allowed here? seki doctor)"
	case errors.Is(err, unix.EACCES):
		return " (the jail's user must be able to execute this program's file)"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return " (user.max_user_namespaces)"
	default:
		return ""
	}
}

// encode numbers the files that the stage is handed.
func (s *Spec) encode(files []*os.File) (string, []*os.File, error) {
	m := message{Args: s.Args, Env: s.Env, Tmp: s.Tmp, Filter: s.Filter, Dry: s.dry, Shown: s.Shown, Files: map[string]int{}, Sockets: map[string]int{}}
	add := func(f *os.File) int {
		files = append(files, f)
		return len(files) - 1
	}
	m.Program = add(s.Program)
	for name, f := range s.Files {
		m.Files[name] = add(f)
	}
	for name, f := range s.Sockets {
		m.Sockets[name] = add(f)
	}
	for _, f := range s.Cgroup {
		m.Cgroup = append(m.Cgroup, add(f))
	}
	text, err := json.Marshal(m)
	return string(text), files, err
}

// attr has the stage cloned into its namespaces, with one id.
func (s *Spec) attr() *syscall.SysProcAttr {
	root := os.Geteuid() == 0
	uid, gid := os.Geteuid(), os.Getegid()
	if root {
		uid, gid = s.UID, s.GID
	}
	a := &syscall.SysProcAttr{
		Cloneflags:  namespaces,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
		Credential:  &syscall.Credential{NoSetGroups: !root}, // id 0 of the namespace; root sheds its groups
		Setsid:      true,
		Pdeathsig:   unix.SIGKILL,
		// Only root may; another's groups stay, and open nothing in the jail.
		GidMappingsEnableSetgroups: root,
	}
	if s.Unified != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(s.Unified.Fd())
	}
	return a
}

// spawner starts processes from one thread that never ends: a parent-death
// signal is sent when the thread dies that cloned, and the Go runtime retires
// threads.
var spawner = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

// spawn executes this program's own file as the stage.
func spawn(attr *os.ProcAttr, text string) (p *os.Process, err error) {
	done := make(chan struct{})
	spawner() <- func() {
		defer close(done)
		p, err = os.StartProcess("/proc/self/exe", []string{stageName, text}, attr)
	}
	<-done
	return p, err
}
