package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// backgroundEnv tells a process that its parent waits for its report, on the
// descriptor with that number.
const backgroundEnv = "SEKI_REPORT_FD"

// maxStartReport bounds a report.
const maxStartReport = 64 << 10

// A startReport is the one message from the background to the foreground.
type startReport struct {
	Started bool   `json:"started,omitempty"`
	Error   string `json:"error,omitempty"`
	Code    int    `json:"code,omitempty"`
}

// A BackgroundError is the error that a background supervisor reported while it
// started.
type BackgroundError struct {
	Msg  string
	Code int // exit code the foreground should use
}

// Error is what the background said.
func (e *BackgroundError) Error() string { return e.Msg }

// Background starts this program again, with args after the program's name, in
// a session of its own, and returns its pid once it has called
// [Reporter.Started]. If it calls [Reporter.Failed] instead, the error is a
// [*BackgroundError]. Until then its standard error is this process's own, and
// the end of ctx interrupts it, which calls the start off.
func Background(ctx context.Context, args []string) (pid int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		w.Close()
		return 0, err
	}
	defer null.Close()
	child, err := os.StartProcess("/proc/self/exe", append([]string{os.Args[0]}, args...), &os.ProcAttr{
		Env:   append(os.Environ(), backgroundEnv+"=3"),
		Files: []*os.File{null, null, os.Stderr, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return 0, fmt.Errorf("start in the background: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { child.Signal(unix.SIGTERM) })
	b, rerr := io.ReadAll(io.LimitReader(r, maxStartReport))
	stop()
	var report startReport
	if rerr == nil && json.Unmarshal(b, &report) == nil && report.Started {
		pid = child.Pid
		return pid, child.Release()
	}
	st, werr := child.Wait()
	if report.Error != "" {
		return 0, &BackgroundError{Msg: report.Error, Code: report.Code}
	}
	if err := errors.Join(rerr, werr); err != nil {
		return 0, fmt.Errorf("start in the background: %w", err)
	}
	return 0, fmt.Errorf("the background process ended without a word: %v", st)
}

// A Reporter is the other end of [Background]: what the background process
// tells the foreground. A nil Reporter does nothing.
type Reporter struct{ report func(startReport) error }

// InBackground returns the Reporter of a process started by [Background], and
// nil in any other. It takes the environment variable that says so away, and is
// called once, early in main.
func InBackground() *Reporter {
	s, ok := os.LookupEnv(backgroundEnv)
	if !ok {
		return nil
	}
	os.Unsetenv(backgroundEnv)
	fd, err := strconv.Atoi(s)
	if err != nil || fd < 3 {
		return nil
	}
	unix.CloseOnExec(fd)
	return &Reporter{reportTo(os.NewFile(uintptr(fd), "report"))}
}

// Started tells the foreground that all is well, and then lets go of its
// terminal: standard input, output and error become /dev/null, /dev/null and
// log (nil: /dev/null).
func (r *Reporter) Started(log *os.File) error {
	if r == nil {
		return nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if log == nil {
		log = null
	}
	for fd, f := range []*os.File{null, null, log} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return fmt.Errorf("let go of the terminal: %w", err)
		}
	}
	return r.report(startReport{Started: true})
}

// Failed tells the foreground that the pod did not start, and why.
func (r *Reporter) Failed(err error, code int) error {
	if r == nil {
		return nil
	}
	return r.report(startReport{Error: err.Error(), Code: code})
}

func reportTo(w *os.File) func(startReport) error {
	return func(s startReport) error {
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return errors.Join(err, w.Close())
	}
}
