package lifecycle

import (
	"context"
	"time"
)

// DefaultHookTimeout is how long a hook that names no timeout may run.
const DefaultHookTimeout = 10 * time.Second

// A Hook is a function of the user's that runs at a point of a container's
// life. The hooks of one container run one at a time, those of one point in the
// order in which they are listed.
//
// What a failing hook (an error, a timeout, a panic) does depends on where it
// stands:
//
//   - before the workload runs, the start fails and everything is undone;
//   - afterwards the container is stopped, and the pod's exit code is not 0;
//   - at poststop the pod's exit code is not 0;
//   - with FailOpen it is recorded as a warning and life goes on.
//
// One rule is not for the user to relax: a hook that set, or tried to set, the
// policy or the mode of a container and then fails leaves a policy in force
// that nobody can vouch for. Each container it touched so is locked down: mode
// enforce, no program, nothing passes; and if even that fails it is killed.
type Hook struct {
	Point    Point
	Name     string        // of the function, for events and errors
	Timeout  time.Duration // 0 is DefaultHookTimeout
	FailOpen bool
	// Run does the work. It must return soon after ctx is done; if it does not
	// within a further second the container is killed, FailOpen or not, for the
	// hook may then still be running beside the next one. The policy calls it
	// makes must get this ctx.
	Run func(ctx context.Context, c *Container, e Event) error
}
