package lifecycle

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Point is a moment in a container's life at which hooks run. The zero Point
// is invalid. Four points carry an argument after a colon, see [SignalPoint],
// [EveryPoint] and [AfterPoint].
type Point string

// The points in the order in which a container passes them. The first five have
// the names and the meaning of the OCI runtime specification (1.3, config.md,
// "POSIX-platform Hooks"), except that all hooks run in the supervisor, in its
// own namespaces.
const (
	CreateRuntime   Point = "create_runtime"   // namespaces exist, no network card yet
	CreateContainer Point = "create_container" // the card is there and its policy in force
	StartContainer  Point = "start_container"  // root file system in place, about to execute
	PostStart       Point = "poststart"        // the workload runs
	Ready           Point = "ready"            // the probe succeeded; at once if there is none
	OOM             Point = "oom"              // the kernel killed for want of memory
	Reload          Point = "reload"           // the supervisor was sent SIGHUP
	Violation       Point = "violation"        // frames were dropped; at most once a second
	PostStop        Point = "poststop"         // the workload has exited, the card is still there
)

// The prefixes of points with an argument.
const (
	signalPrefix = "signal:"
	everyPrefix  = "every:"
	afterPrefix  = "after:"
)

// SignalPoint is the point at which the supervisor has been sent sig.
func SignalPoint(sig unix.Signal) Point {
	return Point(signalPrefix + strings.TrimPrefix(unix.SignalName(sig), "SIG"))
}

// EveryPoint is reached each time d has passed, counted from when the container
// became ready. A run that would overlap its predecessor is left out.
func EveryPoint(d time.Duration) Point { return Point(everyPrefix + d.String()) }

// minEvery bounds how often a timer may fire: a shorter period would keep a
// processor busy with hooks.
const minEvery = 10 * time.Millisecond

// ParsePoint checks s and brings its argument to one spelling: "signal:SIGUSR1"
// becomes "signal:USR1", "every:60s" becomes "every:1m0s".
func ParsePoint(s string) (Point, error) {
	switch p := Point(s); p {
	case CreateRuntime, CreateContainer, StartContainer, PostStart, Ready, OOM, Reload, Violation, PostStop:
		return p, nil
	}
	if name, ok := strings.CutPrefix(s, signalPrefix); ok {
		sig, err := ParseSignal(name)
		if err != nil {
			return "", fmt.Errorf("hook point %q: %w", s, err)
		}
		return SignalPoint(sig), nil
	}
	for _, prefix := range []string{everyPrefix, afterPrefix} {
		arg, ok := strings.CutPrefix(s, prefix)
		if !ok {
			continue
		}
		d, err := time.ParseDuration(arg)
		if err != nil || d < minEvery {
			return "", fmt.Errorf("hook point %q: want a duration of at least %v", s, minEvery)
		}
		return Point(prefix + d.String()), nil
	}
	return "", fmt.Errorf("hook point %q: unknown", s)
}

// timer splits a timer point: how long, and whether it comes again and again.
func (p Point) timer() (d time.Duration, again, ok bool) {
	s, again := strings.CutPrefix(string(p), everyPrefix)
	if !again {
		if s, ok = strings.CutPrefix(string(p), afterPrefix); !ok {
			return 0, false, false
		}
	}
	d, err := time.ParseDuration(s)
	return d, again, err == nil && d >= minEvery
}

// ParseSignal reads a signal's name, with or without SIG, or its number.
func ParseSignal(s string) (unix.Signal, error) {
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	var n int
	if _, err := fmt.Sscanf(s+"\n", "%d\n", &n); err == nil && n >= 1 && n <= 64 {
		return unix.Signal(n), nil
	}
	return 0, fmt.Errorf("signal %q: unknown", s)
}
