package jail

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// programFD is where the program is open when it is executed: the first
// descriptor that the limit forbids, so that none can ever be there again, and
// the filter's permission to execute it dies with the execution.
const programFD = 1000

// init turns this process into a stage if it was started as one. Nothing else
// of this program is to run in a jail.
func init() {
	if len(os.Args) != 2 || os.Args[0] != stageName {
		return
	}
	// One thread is the process: credentials, filter and Landlock are a thread's,
	// and the others end with execve.
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	err := stage(os.Args[1])
	unix.Write(statusFD, []byte(err.Error()))
	os.Exit(125)
}

// stage builds the jail and becomes the program. It returns only if it could not.
func stage(text string) error {
	var m message
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return fmt.Errorf("read the stage's orders: %w", err)
	}
	e, err := prepareExec(m.Args, m.Env)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"enter the cgroup", m.enterCgroup},
		{"root file system", m.root},
		{"listen for devices", m.listen},
		{"limits", m.limits},
		{"capabilities", dropAll},
		{"Landlock", m.landlock},
		{"parent", parentAlive},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	filter, err := m.Filter.assemble()
	if err != nil {
		return err
	}
	if m.Dry {
		e = nil
	}
	// From the filter on nothing but the last two system calls is made.
	return installAndExec(filter, e)
}

// enterCgroup moves this thread, which is what the program will be. A thread
// that moves itself needs no lock on all thread groups of the host: 0.13 ms,
// where a process moved from outside takes 6.5.
func (m *message) enterCgroup() error {
	for _, fd := range m.Cgroup {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			return err
		}
	}
	// When memory is short the machine goes before the host's own; nobody
	// needs to allow raising this.
	if fd, err := unix.Open("/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		unix.Write(fd, []byte("500"))
		unix.Close(fd)
	}
	return nil
}

// limits also give the program its descriptor and hide the host's name.
func (m *message) limits() error {
	if err := unix.Sethostname([]byte("machine")); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	// Addresses as UML 6 counts on them: with a random brk it takes the gap
	// for memory, up to 800 MB of page structures.
	if _, _, errno := unix.Syscall(unix.SYS_PERSONALITY, addrNoRandomize, 0, 0); errno != 0 {
		return fmt.Errorf("personality: %w", errno)
	}
	// A table of descriptors that threads share is enlarged only after an RCU
	// grace period, 12 ms here; one of this thread's own at once.
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return fmt.Errorf("descriptors of its own: %w", err)
	}
	if err := unix.Dup3(m.Program, programFD, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("descriptor %d: %w", programFD, err)
	}
	if err := unix.CloseRange(3, programFD-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	if err := unix.CloseRange(programFD+1, ^uint(0)>>32, 0); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	for _, l := range []struct {
		name  string
		which int
		value uint64
	}{
		// Not 0: a core_pattern that is a pipe starts a program of the host, as
		// root, for what a guest made crash, whatever the limit, unless it is 1
		// (fs/coredump.c).
		{"core", unix.RLIMIT_CORE, 1},
		{"nofile", unix.RLIMIT_NOFILE, programFD},
		{"fsize", unix.RLIMIT_FSIZE, uint64(m.Tmp)},
		{"memlock", unix.RLIMIT_MEMLOCK, 0},
		{"msgqueue", unix.RLIMIT_MSGQUEUE, 0},
		{"nproc", unix.RLIMIT_NPROC, maxProcesses},
	} {
		var have unix.Rlimit
		if err := unix.Getrlimit(l.which, &have); err != nil {
			return fmt.Errorf("rlimit %s: %w", l.name, err)
		}
		// What the user has less of cannot be raised in here: a host of little
		// memory, or ulimit -H, gives fewer processes.
		value := min(l.value, have.Max)
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return fmt.Errorf("rlimit %s: %w", l.name, err)
		}
	}
	return nil
}

// maxProcesses bounds the host's processes of one machine, of which there is
// one for each address space of the guest.
const maxProcesses = 8192

const addrNoRandomize = 0x0040000 // ADDR_NO_RANDOMIZE, include/uapi/linux/personality.h

// dropAll leaves no capability, and no way to one.
func dropAll() error {
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && c > 0 { // beyond the last
			break
		}
		if err != nil {
			return fmt.Errorf("bounding set: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, secureBits, 0, 0, 0); err != nil {
		return fmt.Errorf("securebits: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("ambient set: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// secureBits: id 0 of the namespace means nothing to execve or setuid, and
// nothing is raised to ambient; each is locked (include/uapi/linux/securebits.h).
const secureBits = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7

// parentAlive arms the parent-death signal again, which a change of
// credentials disarms, and then looks whether it comes too late.
func parentAlive() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	fds := []unix.PollFd{{Fd: statusFD, Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 0); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	if fds[0].Revents&unix.POLLHUP != 0 {
		return errors.New("it has ended")
	}
	return nil
}
