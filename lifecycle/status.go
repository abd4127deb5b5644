package lifecycle

import (
	"fmt"
	"strings"
)

// A Status is where a container is in its life, in the words of the OCI runtime
// specification (1.3, runtime.md, "State"). The zero Status is invalid.
type Status string

// The statuses, in order. A container never goes back.
const (
	Creating Status = "creating" // its processes or its network are being made
	Created  Status = "created"  // all is ready; nothing of the workload has run
	Running  Status = "running"  // the workload runs
	Stopped  Status = "stopped"  // the workload has exited, or will never start
)

// A Verb is something that can be asked of a container. The zero Verb is
// invalid.
type Verb string

// The verbs.
const (
	VerbPrepare Verb = "prepare"
	VerbStart   Verb = "start"
	VerbSignal  Verb = "signal"
	VerbExec    Verb = "exec"
	VerbPolicy  Verb = "set the policy of"
	VerbStats   Verb = "read the figures of"
	VerbStop    Verb = "stop"
	VerbDestroy Verb = "destroy"
)

// allowed is the whole state machine: which verb works in which status.
//
// A policy may be set while the container is being created: Attach then puts
// that program in force instead of the configured one. Destroy takes every
// status but running, so that the workload has always been waited for.
var allowed = map[Verb][]Status{
	VerbPrepare: {Creating},
	VerbStart:   {Created},
	VerbSignal:  {Running},
	VerbExec:    {Running},
	VerbPolicy:  {Creating, Created, Running},
	VerbStats:   {Created, Running, Stopped},
	VerbStop:    {Created, Running},
	VerbDestroy: {Creating, Created, Stopped},
}

// A StatusError reports a verb that the container's status forbids.
type StatusError struct {
	Verb Verb   // what was asked
	ID   string // the container's name
	Have Status // what it is
}

// Error says what was asked, what the container is and what it would have to be.
func (e *StatusError) Error() string {
	var want []string
	for _, s := range allowed[e.Verb] {
		want = append(want, string(s))
	}
	return fmt.Sprintf("cannot %s container %q: it is %s, want %s", e.Verb, e.ID, e.Have, strings.Join(want, " or "))
}

// Allows reports whether a container in status s may be asked for v.
func (s Status) Allows(v Verb) bool {
	for _, a := range allowed[v] {
		if a == s {
			return true
		}
	}
	return false
}
