// Package console keeps what a guest writes to its console: all of it for whoever
// wants it, and the end of it in memory, because a guest can write for ever.
package console

import (
	"io"
	"strings"
	"sync"
)

// kept is how much of the end is kept in memory.
const kept = 64 << 10

// A Log is the console of one guest.
type Log struct {
	out sync.Mutex // out guards w, and may be held for as long as a Write takes
	w   io.Writer  // may be nil

	mu   sync.Mutex // mu guards tail
	tail []byte
}

// New returns a console that passes on to w, which may be nil, what is written
// to it. A Write of w that blocks stops the guest at its next line.
func New(w io.Writer) *Log { return &Log{w: w} }

// Write implements [io.Writer]. It never fails: when w does, whoever it was for
// does not want it any more, and the guest must not stall.
func (l *Log) Write(b []byte) (int, error) {
	l.keep(b)
	l.out.Lock()
	defer l.out.Unlock()
	if l.w != nil && len(b) > 0 {
		if _, err := l.w.Write(b); err != nil {
			l.w = nil
		}
	}
	return len(b), nil
}

func (l *Log) keep(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if over := len(l.tail) + len(b) - kept; over > 0 {
		l.tail = append(l.tail[:0], l.tail[min(over, len(l.tail)):]...)
	}
	l.tail = append(l.tail, b[max(0, len(b)-kept):]...)
}

// String is the last 64 KB of what was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.tail)
}

// Last is the last line that says something, cut; to be quoted by the caller.
func (l *Log) Last() string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(l.String(), "\r", "")), "\n")
	line := lines[len(lines)-1]
	return line[:min(len(line), 160)]
}
