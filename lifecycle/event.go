package lifecycle

import (
	"encoding/json"
	"time"

	"sekimori/lifecycle/asjson"
)

// An EventType names what happened. The zero EventType is invalid.
type EventType string

// The events of a pod. Those of a container carry its name.
const (
	EventPodStarting EventType = "pod_starting"
	EventPodStarted  EventType = "pod_started" // every workload runs
	EventPodStopping EventType = "pod_stopping"
	EventPodStopped  EventType = "pod_stopped" // Status
	EventCreated     EventType = "created"     // processes exist: Pid
	EventAttached    EventType = "attached"    // card there, policy in force: Mode, Program
	EventPrepared    EventType = "prepared"
	EventStarted     EventType = "started" // the workload runs: Pid
	EventReady       EventType = "ready"
	EventHook        EventType = "hook"        // a hook has run: Point, Hook, DurationNS, Error
	EventPolicyLoad  EventType = "policy_load" // Program, DurationNS; with Error the old one is in force
	EventPolicyMode  EventType = "policy_mode" // Mode, DurationNS, Error
	EventLockdown    EventType = "lockdown"    // nothing passes any more: Error says why
	EventViolation   EventType = "violation"   // Record is the data path's
	EventSignal      EventType = "signal"      // Signal was sent to the workload
	EventExec        EventType = "exec"        // Args, Pid
	EventExecExit    EventType = "exec_exit"   // Pid, Status
	EventOOM         EventType = "oom"         // Count kills
	EventLog         EventType = "log"         // a hook said Message, with Fields
	EventStopping    EventType = "stopping"    // it is being stopped: Error if there is a cause
	EventExit        EventType = "exit"        // Status, Signal
	EventDestroyed   EventType = "destroyed"   // nothing of it is left: Error if something is
	EventLost        EventType = "lost"        // Count events could not be recorded
)

// An Event is one thing that happened, and one line of events.jsonl. Seq grows
// by one with each event of a pod; a gap means that lines were rotated away.
type Event struct {
	Seq        uint64            `json:"seq"`
	Time       time.Time         `json:"time"`
	Pod        string            `json:"pod"`
	Container  string            `json:"container,omitempty"`
	Type       EventType         `json:"type"`
	Point      Point             `json:"point,omitempty"`
	Hook       string            `json:"hook,omitempty"`
	Pid        int               `json:"pid,omitempty"`
	Status     *int              `json:"status,omitempty"` // exit status, 128+n for signal n
	Signal     string            `json:"signal,omitempty"` // without SIG
	Mode       string            `json:"mode,omitempty"`
	Program    string            `json:"program,omitempty"` // SHA-256 of the program's bytes, hexadecimal; "none"
	Args       []string          `json:"args,omitempty"`
	Count      uint64            `json:"count,omitempty"`
	DurationNS int64             `json:"duration_ns,omitempty"`
	Message    string            `json:"message,omitempty"`
	Fields     map[string]string `json:"fields,omitempty"`
	Record     json.RawMessage   `json:"record,omitempty"`
	Error      string            `json:"error,omitempty"`
}

// line is the event as JSON: what json.Marshal would return.
func (e *Event) line() ([]byte, error) {
	if e.Fields != nil {
		return json.Marshal(e) // in the order of the keys
	}
	o := asjson.Begin(256)
	o.Uint("seq", e.Seq)
	o.Time("time", e.Time)
	o.String("pod", e.Pod)
	o.StringOpt("container", e.Container)
	o.String("type", string(e.Type))
	o.StringOpt("point", string(e.Point))
	o.StringOpt("hook", e.Hook)
	o.IntOpt("pid", int64(e.Pid))
	o.IntPtrOpt("status", e.Status)
	o.StringOpt("signal", e.Signal)
	o.StringOpt("mode", e.Mode)
	o.StringOpt("program", e.Program)
	o.StringsOpt("args", e.Args)
	o.UintOpt("count", e.Count)
	o.IntOpt("duration_ns", e.DurationNS)
	o.StringOpt("message", e.Message)
	o.RawOpt("record", e.Record)
	o.StringOpt("error", e.Error)
	return o.End()
}
