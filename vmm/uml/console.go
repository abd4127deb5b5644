package uml

import (
	"io"
	"os"
	"strings"
	"sync"
)

// consoleKept is how much of the end of the console is kept in memory.
const consoleKept = 64 << 10

// A console reads what a machine writes, for as long as it lives, and keeps
// the end of it: a guest can write for ever.
type console struct {
	w    io.Writer // may be nil
	done chan struct{}

	mu   sync.Mutex
	tail []byte // mu guards it
}

// newConsole starts to read r, which ends with the last process of the machine.
func newConsole(r *os.File, w io.Writer) *console {
	c := &console{w: w, done: make(chan struct{})}
	go c.read(r)
	return c
}

func (c *console) read(r *os.File) {
	defer close(c.done)
	defer r.Close()
	buf := make([]byte, 8<<10)
	for {
		n, err := r.Read(buf)
		c.keep(buf[:n])
		if n > 0 && c.w != nil {
			if _, err := c.w.Write(buf[:n]); err != nil {
				c.w = nil // whoever it was for does not want it any more; the guest must not stall
			}
		}
		if err != nil {
			return
		}
	}
}

func (c *console) keep(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if over := len(c.tail) + len(b) - consoleKept; over > 0 {
		c.tail = append(c.tail[:0], c.tail[min(over, len(c.tail)):]...)
	}
	c.tail = append(c.tail, b...)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.tail)
}

// last is the last line that says something, cut and quoted by the caller.
func (c *console) last() string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(c.String(), "\r", "")), "\n")
	line := lines[len(lines)-1]
	return line[:min(len(line), 160)]
}
