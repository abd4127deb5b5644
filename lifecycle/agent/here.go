package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/linux"
)

// herePath is where programs of the guest itself are looked for. It has those
// that a container with host_root() brought with it, and no others.
const herePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// execHere runs a program in the guest itself, outside all containers, as root:
// for whoever looks after the machine.
func (a *Agent) execHere(ctx context.Context, e *exec) (any, error) {
	path, err := lookHere(e.Args)
	if err != nil {
		return nil, err
	}
	r, err := a.relay(ctx, e.Stdio, 0)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		r.close()
		return nil, err
	}
	defer null.Close()
	files := r.child[:]
	for i := range files {
		if files[i] == nil {
			files[i] = null
		}
	}
	// This thread may be one that the monitor started, and have its slack.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(usualSlack.Nanoseconds()), 0, 0, 0); err != nil {
		r.close()
		return nil, os.NewSyscallError("prctl", err)
	}
	p, err := os.StartProcess(path, e.Args, &os.ProcAttr{
		Dir: "/", Env: append([]string{"PATH=" + herePath, "HOME=/", "TERM=linux"}, e.Env...), Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: e.Stdio.Terminal, Pdeathsig: unix.SIGKILL},
	})
	r.release()
	if err != nil {
		r.close()
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.here[e.Exec] = &task{
		relays: r,
		signal: func(s signal) error { return done(p.Signal(s.Signal)) },
		wait: func() (linux.ExitStatus, error) {
			st, err := p.Wait()
			if err != nil {
				return linux.ExitStatus{}, err
			}
			ws := st.Sys().(syscall.WaitStatus)
			if ws.Signaled() {
				return linux.ExitStatus{Signal: ws.Signal()}, nil
			}
			return linux.ExitStatus{Code: ws.ExitStatus()}, nil
		},
	}
	return started{Pid: p.Pid}, nil
}

// lookHere finds the program of a command.
func lookHere(args []string) (string, error) {
	if len(args) == 0 || args[0] == "" {
		return "", errors.New("no command")
	}
	if strings.Contains(args[0], "/") {
		return args[0], nil
	}
	for _, dir := range filepath.SplitList(herePath) {
		path := filepath.Join(dir, args[0])
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: the machine has no such program: it has those of the host if a container uses host_root()", args[0])
}
