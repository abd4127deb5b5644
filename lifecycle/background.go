package lifecycle

import (
	"context"
	"errors"
	"os"
)

// A BackgroundError is the error that a background supervisor reported while it
// started.
type BackgroundError struct {
	Msg  string
	Code int // exit code the foreground should use
}

func (e *BackgroundError) Error() string { return e.Msg }

// Background starts this program again, with args after the program's name, in
// a session of its own, and returns its pid once it has called
// [Reporter.Started]. If it calls [Reporter.Failed] instead, the error is a
// [*BackgroundError]. Until then its standard error is this process's own.
func Background(ctx context.Context, args []string) (pid int, err error) {
	return 0, errors.ErrUnsupported
}

// A Reporter is the other end of [Background]: what the background process
// tells the foreground. A nil Reporter does nothing.
type Reporter struct{}

// InBackground returns the Reporter of a process started by [Background], and
// nil in any other. It takes the environment variable that says so away.
func InBackground() *Reporter { return nil }

// Started tells the foreground that all is well, and then lets go of its
// terminal: standard input, output and error become /dev/null, /dev/null and
// log (nil: /dev/null).
func (r *Reporter) Started(log *os.File) error { return nil }

// Failed tells the foreground that the pod did not start, and why.
func (r *Reporter) Failed(err error, code int) error { return nil }
