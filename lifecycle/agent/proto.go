package agent

import (
	"encoding/json"
	"syscall"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/linux"
)

// The calls of the host. Each names its container, but for setup.
const (
	verbSetup   = "setup"   // Setup -> nothing
	verbCreate  = "create"  // create -> pid
	verbAttach  = "attach"  // Attach -> nothing
	verbPrepare = "prepare" // container -> nothing
	verbStart   = "start"   // container -> nothing
	verbWait    = "wait"    // process -> linux.ExitStatus, when it has ended
	verbSignal  = "signal"  // signal -> nothing
	verbIgnores = "ignores" // signal -> bool: it is known that the signal would have no effect
	verbKill    = "kill"    // container -> nothing
	verbExec    = "exec"    // exec -> pid
	verbResize  = "resize"  // resize -> nothing
	verbStats   = "stats"   // container -> linux.Stats
	verbOOM     = "oom"     // container -> nothing, when a process may have been killed for want of memory
	verbListen  = "listen"  // listen -> bool: something listens on the TCP port
	verbHook    = "hook"    // HookCall -> nothing
	verbDestroy = "destroy" // container -> nothing
)

// The notices of the agent.
const (
	noteEvent = "event" // Event: something that the pod's journal should know
	noteLog   = "log"   // Log: a line of the agent's own log
)

// maxFromHost and maxFromGuest bound a message in bytes, by who reads it. The
// host sends programs, of up to 64 MiB, in base64.
const (
	maxFromHost  = 128 << 20
	maxFromGuest = 8 << 20
)

// A Setup is what a machine's agent is told first.
type Setup struct {
	// Pod is the pod's name.
	Pod string `json:"pod"`
	// Exports are the directories and files of the host that the containers use.
	Exports []Export `json:"exports,omitempty"`
	// File is what the pod was made from, for those who run its callbacks; as
	// it is.
	File json.RawMessage `json:"file,omitempty"`
}

// An Export is a directory of the host that the host serves by 9P, and where
// in the guest it is to be.
type Export struct {
	// Name is that of the file connection.
	Name string `json:"name"`
	// Mounts are the parts of the export to bind, shortest path first.
	Mounts []Mount `json:"mounts"`
	// Write says that the guest may write.
	Write bool `json:"write,omitempty"`
}

// A Mount is a part of an export and its place in the guest.
type Mount struct {
	From string `json:"from"` // below the export, slash-separated, "." is all of it
	To   string `json:"to"`   // absolute
	// Link says that From is a symbolic link, which is copied. Dir, that it is
	// a directory.
	Link bool `json:"link,omitempty"`
	Dir  bool `json:"dir,omitempty"`
}

// A target names a container in a call that says no more.
type target struct {
	Container string `json:"container"`
}

type create struct {
	Container string       `json:"container"`
	ID        string       `json:"id"`
	Spec      *bundle.Spec `json:"spec"`
	IDBase    uint32       `json:"id_base"`
	Shifted   []string     `json:"shifted,omitempty"`
	Stdio     stdio        `json:"stdio"`
}

// A stdio says where the streams of a process lead: each to a stream
// connection of that name, and an empty name is /dev/null. With Terminal the
// first is a terminal of the guest, of that size, and the others are not used.
type stdio struct {
	Streams    [3]string `json:"streams"`
	Terminal   bool      `json:"terminal,omitempty"`
	Rows, Cols uint16    `json:",omitempty"`
}

// An Attach gives a container its card.
type Attach struct {
	Container string      `json:"container"`
	Sender    uint32      `json:"sender"` // number for hypercalls
	NIC       *bundle.NIC `json:"nic"`
	Program   []byte      `json:"program"`
	Audit     bool        `json:"audit,omitempty"`
	// Card is the address that the machine's card has, as it booted. Shared gives
	// the container a link of its own on it, beside others, in place of the card.
	Card   string `json:"card"`
	Shared bool   `json:"shared,omitempty"`
}

// A process is the workload of a container, or with an Exec one that was
// executed in it.
type process struct {
	Container string `json:"container"`
	Exec      uint64 `json:"exec,omitempty"`
}

type started struct {
	Pid int `json:"pid"` // in the guest
}

type signal struct {
	process
	Signal syscall.Signal `json:"signal"`
}

type exec struct {
	process // Exec is the caller's number for it
	Args    []string
	Env     []string `json:",omitempty"`
	Cwd     string   `json:",omitempty"`
	User    string   `json:",omitempty"`
	Stdio   stdio
}

// learn has package json look at what a container is made of, which takes it ten
// times as long as to read one: 1.1 ms on the host, more in a guest. Who does it
// while he waits for the other end need not when the first container comes.
func learn() {
	if b, err := json.Marshal(create{Spec: &bundle.Spec{}}); err == nil {
		_ = json.Unmarshal(b, &create{})
	}
}

func (e *exec) config() linux.ExecConfig {
	return linux.ExecConfig{Args: e.Args, Env: e.Env, Cwd: e.Cwd, User: e.User, Terminal: e.Stdio.Terminal}
}

type resize struct {
	process
	Rows, Cols uint16
}

type listen struct {
	Container string `json:"container"`
	Port      uint16 `json:"port"`
	Loopback  bool   `json:"loopback,omitempty"` // a listener on a loopback address counts
}

// A HookCall runs a callback of the pod's file.
type HookCall struct {
	Container string `json:"container"`
	// Index of the callback in the container's list.
	Index int `json:"index"`
	// Event is the event that led to it, as the host's lifecycle words it.
	Event json.RawMessage `json:"event"`
	// States of the pod's containers.
	States []State `json:"states"`
}

// A State is what a callback may ask of a container without a call.
type State struct {
	Container  string `json:"container"`
	Pid        int    `json:"pid"`
	ExitStatus int    `json:"exit_status"` // -1: it has not exited
}

// An Event is a notice for the pod's journal, as the host's lifecycle words it.
type Event struct {
	Container string          `json:"container"`
	Event     json.RawMessage `json:"event"`
}

// A Log is a line of the agent's own log.
type Log struct {
	Level int    `json:"level"` // of log/slog
	Text  string `json:"text"`
}
