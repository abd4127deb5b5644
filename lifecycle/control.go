package lifecycle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"syscall"
	"time"
)

// The control protocol. A client connects to the pod's control.sock and sends
// one request, a JSON object on a line; the answer is one too. Files travel
// beside the first byte of a request (SCM_RIGHTS).
//
//	ping      ->                                   <- {"ok":true}
//	stats     -> container or all                  <- stats
//	signal    -> container, signal                 <- ok
//	mode      -> container or all, mode            <- ok
//	policies  ->                                   <- policies
//	reload    -> reload, a file with the programs  <- ok
//	try       -> reload, a file with the programs  <- ok, when it has begun
//	                                               <- any number of: seen
//	             anything, or nothing               <- trials, when it has ended
//	capture   -> container or all, drops, a file   <- ok, when it has begun
//	             anything, or nothing               <- missed, when it has ended
//	stop      -> timeout_ms                        <- ok, when nothing is left of the pod
//	kill      ->                                   <- ok, likewise
//	exec      -> container, exec, three files      <- pid
//	             any number of: signal, signal        (no answer)
//	                                               <- exit, when the process has ended
//	run       -> run, three files                  <- ok, when the machine has the order
//	             any number of: signal, signal        (no answer)
//	                                               <- exit, when the pod has ended, or
//	                                                  with -d when it runs
//
// Only root and the supervisor's own user are answered (SO_PEERCRED). A terminal
// is the client's to make: it passes the slave and resizes the master itself.

// maxMessage bounds a request. The kernel's own bound for the
// arguments of a program is 2 MiB; nobody types that much.
const maxMessage = 256 << 10

// maxReply bounds an answer: the figures of all containers and their cards, or
// their programs.
const maxReply = 64 << 20

// maxArgs bounds the arguments and variables of an exec request.
const maxArgs = 4096

// firstMessage is how long a client may take to say what it wants.
const firstMessage = 5 * time.Second

// The verbs of the control protocol.
const (
	ctlPing   = "ping"
	ctlStats  = "stats"
	ctlSignal = "signal"
	ctlMode   = "mode"
	ctlStop   = "stop"
	ctlKill   = "kill"
	ctlExec   = "exec"
	ctlRun    = "run"

	ctlPolicies = "policies"
	ctlReload   = "reload"
	ctlCapture  = "capture"
	ctlTry      = "try"
)

// A request is what a client sends.
type request struct {
	Verb      string       `json:"verb"`
	Container string       `json:"container,omitempty"`
	Signal    int          `json:"signal,omitempty"`
	Mode      string       `json:"mode,omitempty"`
	TimeoutMS int64        `json:"timeout_ms,omitempty"`
	Exec      *execRequest `json:"exec,omitempty"`
	Run       *runRequest  `json:"run,omitempty"`

	Reload []policyRequest `json:"reload,omitempty"`
	Drops  bool            `json:"drops,omitempty"`
}

// An execRequest is an ExecConfig without its files.
type execRequest struct {
	Args     []string `json:"args"`
	Env      []string `json:"env,omitempty"`
	Cwd      string   `json:"cwd,omitempty"`
	User     string   `json:"user,omitempty"`
	Terminal bool     `json:"terminal,omitempty"`
}

// A runRequest is an Order without its files.
type runRequest struct {
	Args []string `json:"args"`
	Dir  string   `json:"dir"`
}

// A reply is what the supervisor answers.
type reply struct {
	OK    bool             `json:"ok"`
	Error string           `json:"error,omitempty"`
	Stats []ContainerStats `json:"stats,omitempty"`
	Pod   json.RawMessage  `json:"pod,omitempty"` // what belongs to no card
	Pid   int              `json:"pid,omitempty"`
	Exit  *exitReply       `json:"exit,omitempty"`

	Policies []Policy `json:"policies,omitempty"`
	Missed   uint64   `json:"missed,omitempty"`
	Seen     *Seen    `json:"seen,omitempty"`
	Trials   []Trial  `json:"trials,omitempty"`
}

type exitReply struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"`
}

// decodeRequest reads a request that somebody else wrote. What it returns is
// complete for its verb.
func decodeRequest(b []byte) (*request, error) {
	var r request
	if err := decodeStrict(b, &r); err != nil {
		return nil, err
	}
	if r.Container != "" && len(r.Container) > 255 {
		return nil, errors.New("container name is too long")
	}
	return &r, r.check()
}

// decodeStrict refuses fields it does not know and anything after the object:
// a newer client that means more than we understand must be told so.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("message: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("message: something follows the object")
	}
	return nil
}

func (r *request) check() error {
	switch r.Verb {
	case ctlPing, ctlStats, ctlKill, ctlPolicies, ctlCapture:
		return nil
	case ctlReload, ctlTry:
		return checkReload(r.Reload)
	case ctlStop:
		if r.TimeoutMS < 0 || r.TimeoutMS > int64(24*time.Hour/time.Millisecond) {
			return fmt.Errorf("timeout of %d ms: want none, or up to a day", r.TimeoutMS)
		}
		return nil
	case ctlSignal:
		if r.Signal < 1 || r.Signal > 64 {
			return fmt.Errorf("signal %d: want 1 to 64", r.Signal)
		}
		return nil
	case ctlMode:
		if r.Mode != Enforce && r.Mode != Audit {
			return fmt.Errorf("policy mode %q: want %s or %s", r.Mode, Enforce, Audit)
		}
		return nil
	case ctlExec:
		return r.Exec.check()
	case ctlRun:
		if r.Run == nil || len(r.Run.Args) == 0 || !path.IsAbs(r.Run.Dir) {
			return errors.New("run: want a command line and an absolute directory")
		}
		return nil
	}
	return fmt.Errorf("verb %q: unknown", r.Verb)
}

func (e *execRequest) check() error {
	switch {
	case e == nil || len(e.Args) == 0 || e.Args[0] == "":
		return errors.New("exec: no command")
	case len(e.Args)+len(e.Env) > maxArgs:
		return fmt.Errorf("exec: more than %d arguments and variables", maxArgs)
	case e.Cwd != "" && !path.IsAbs(e.Cwd):
		return fmt.Errorf("exec: directory %q: not absolute", e.Cwd)
	}
	for _, list := range [][]string{e.Args, e.Env, {e.Cwd, e.User}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return errors.New("exec: a string contains a zero byte")
			}
		}
	}
	for _, v := range e.Env {
		if strings.IndexByte(v, '=') <= 0 {
			return fmt.Errorf("exec: variable %q: want KEY=value", v)
		}
	}
	return nil
}

func (e *exitReply) status() ExitStatus {
	return ExitStatus{Code: e.Code, Signal: syscall.Signal(e.Signal)}
}
