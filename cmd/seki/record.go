package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
	"sekimori/starlark"
	"sekimori/starlark/policytest"
)

// Bounds of a recording: older frames are overwritten, later events left out.
const (
	recordFrames = 64 << 20 // bytes, in both files
	recordEvents = 8 << 20  // bytes
	recordRate   = 50_000   // frames a second of each container
)

// A recording keeps a run for seki test --replay: frames with what was said of
// them, and callbacks and policies with their times. A nil recording keeps
// nothing.
type recording struct {
	frames *nicshadow.Capture

	// mu guards what follows: callbacks of several containers run at once.
	mu     sync.Mutex
	events *os.File
	size   int64
	err    error
}

// newRecording begins a recording in a directory that holds none yet.
func newRecording(dir string, pod *starlark.Pod, path, mode string) (_ *recording, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	source, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	meta := policytest.RecordMeta{Version: policytest.RecordVersion, File: source, Pod: pod.Name, Mode: mode, Params: map[string]string{}}
	for _, p := range pod.Params {
		meta.Params[p.Name] = p.Value
	}
	b, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, policytest.RecordMetaFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, usage("--record %s: holds a recording already", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	r := &recording{}
	if r.events, err = os.OpenFile(filepath.Join(dir, policytest.RecordEventsFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	r.frames, err = nicshadow.NewCapture(nicshadow.CaptureConfig{
		Path: filepath.Join(dir, policytest.RecordFramesFile), Size: recordFrames, Rate: recordRate, Record: true,
	})
	if err != nil {
		return nil, errors.Join(err, r.events.Close())
	}
	for _, c := range pod.Containers {
		if c.Program != nil {
			r.policy(c.Spec.Name, c.Program)
		}
	}
	return r, nil
}

// callback notes that a callback is about to run.
func (r *recording) callback(h host, point, name string) {
	r.note(policytest.RecordEvent{Container: h.Name(), Point: point, Callback: name, Event: h.Event(), ExitStatus: h.ExitStatus()})
}

// policy notes that a program is in force.
func (r *recording) policy(container string, p *rule.Program) {
	r.note(policytest.RecordEvent{Container: container, Program: fmt.Sprintf("%x", p.Hash())})
}

// exec notes what a command returned to a callback.
func (r *recording) exec(container string, res starlark.ExecResult) {
	r.note(policytest.RecordEvent{Container: container, Exec: &res})
}

func (r *recording) note(e policytest.RecordEvent) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Time = time.Now()
	b, err := json.Marshal(e)
	if err == nil && r.size < recordEvents && r.err == nil {
		var n int
		n, err = r.events.Write(append(b, '\n'))
		r.size += int64(n)
	}
	if r.err == nil {
		r.err = err
	}
}

// close ends the recording, and says what it lacks. The frames are flushed by
// the end of the network, which closes their file, or here.
func (r *recording) close(a *app) {
	r.mu.Lock()
	err := errors.Join(r.err, r.events.Close())
	r.mu.Unlock()
	if err := errors.Join(err, r.frames.Close()); err != nil {
		fmt.Fprintln(a.stderr, "seki: the recording is not whole:", err)
	}
	if n := r.frames.Missed(); n > 0 {
		fmt.Fprintf(a.stderr, "seki: the recording lacks %s\n", count(int(n), "frame"))
	}
}
