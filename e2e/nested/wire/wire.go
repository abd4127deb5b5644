// Package wire is what the test says to process 1 of L1 and hears from it, over
// a serial line of their own: one JSON value a line.
package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"sync"
)

// A Command is a program to run. The next is sent when it has exited.
type Command struct {
	Args []string `json:"args"`
}

// A Report is what happened. One field but Status is set.
type Report struct {
	Ready  string `json:"ready,omitempty"`  // the kernel's release; once, before the first command
	Output []byte `json:"output,omitempty"` // of the command, in the order in which it wrote
	Exited bool   `json:"exited,omitempty"`
	Status int    `json:"status,omitempty"` // of the exit; 128 + the signal that killed it
	Error  string `json:"error,omitempty"`  // process 1 gives up
}

// A Line is one end. One goroutine receives; any number send.
type Line struct {
	r *bufio.Reader

	mu sync.Mutex
	w  io.Writer // mu guards it
}

// NewLine returns the end of a line.
func NewLine(rw io.ReadWriter) *Line { return &Line{r: bufio.NewReader(rw), w: rw} }

// Send sends a Command or a Report.
func (l *Line) Send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.write(append(b, '\n'))
}

// Beat sends nothing: the other end's processor gets an interrupt.
func (l *Line) Beat() error { return l.write([]byte("\n")) }

func (l *Line) write(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.w.Write(b)
	return err
}

// Receive waits for a Command or a Report.
func (l *Line) Receive(v any) error {
	for {
		b, err := l.r.ReadBytes('\n')
		if err != nil {
			return err
		}
		if b = bytes.TrimSpace(b); len(b) > 0 {
			return json.Unmarshal(b, v)
		}
	}
}
