package uml

import (
	"io"
	"os"

	"sekimori/vmm/console"
)

// A reader reads what a machine writes to its console, for as long as it lives.
type reader struct {
	*console.Log
	done chan struct{}
}

// newConsole starts to read r, which ends with the last process of the machine.
func newConsole(r *os.File, w io.Writer) *reader {
	c := &reader{Log: console.New(w), done: make(chan struct{})}
	go c.read(r)
	return c
}

func (c *reader) read(r *os.File) {
	defer close(c.done)
	defer r.Close()
	buf := make([]byte, 8<<10)
	for {
		n, err := r.Read(buf)
		c.Write(buf[:n])
		if err != nil {
			return
		}
	}
}
