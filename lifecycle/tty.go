package lifecycle

import (
	"errors"
	"os"
	"sync"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"sekimori/lifecycle/linux"
)

// A tty joins a container's pseudo-terminal to the caller's terminal, if there
// is one.
//
// The container never gets the caller's own terminal to control: whoever holds
// a terminal can push characters into its input (TIOCSTI), to be read by the
// shell that comes after us.
type tty struct {
	master console.Console
	caller console.Console // nil if the caller has no terminal
	quit   *os.File        // closing it ends the goroutine that reads the caller's input
	input  sync.WaitGroup
}

// openTTY gives the container a terminal as all three streams. What it writes is
// logged as stdout.
func (o *output) openTTY(c *Container, alone bool) ([3]*os.File, error) {
	master, slave, err := linux.NewPTY(0)
	if err != nil {
		return [3]*os.File{}, err
	}
	o.child = append(o.child, slave)
	o.tty = &tty{master: master}
	std := c.pod.cfg.Stdio
	o.read(c, master, "stdout", c.pod.sink(std.Out, c.name, alone)) // until nobody holds the slave
	if alone && std.In != nil {
		join := o.tty.feed
		if term.IsTerminal(int(std.In.Fd())) {
			join = o.tty.join
		}
		if err := join(std.In); err != nil {
			return [3]*os.File{}, err
		}
	}
	return [3]*os.File{slave, slave, slave}, nil
}

// join puts the caller's terminal into raw mode and passes on what is typed.
func (t *tty) join(in *os.File) error {
	caller, err := console.ConsoleFromFile(in)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if err := caller.SetRaw(); err != nil {
		return errors.Join(err, r.Close(), w.Close())
	}
	t.caller, t.quit = caller, w
	t.resize()
	t.input.Go(func() { // ends when quit is closed
		defer r.Close()
		linux.CopyInput(t.master, in, r)
	})
	return nil
}

// eofEvery is how often, in milliseconds, a terminal is told that its input has ended.
const eofEvery = 200

// feed types what a file or a pipe holds, and at its end what a person types
// to say so: or a program that reads to the end of its input would never see one.
func (t *tty) feed(in *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	t.quit = w
	t.input.Go(func() { // ends when quit is closed
		defer r.Close()
		last, ended := linux.CopyInput(t.master, in, r)
		if !ended {
			return
		}
		if last != '\n' { // amid a line, the character below is not the end
			t.master.Write([]byte{'\n'})
		}
		// An end is told to one read, and forgotten by a program that is just
		// changing the modes of its terminal; that of a file stays.
		quit := []unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}
		for {
			t.master.Write([]byte{4}) // VEOF: control-D
			if n, err := unix.Poll(quit, eofEvery); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	return nil
}

// resize makes the container's terminal as large as the caller's.
func (t *tty) resize() {
	if t == nil || t.caller == nil {
		return
	}
	t.master.ResizeFrom(t.caller) // at worst the size stays as it was
}

// close gives the caller's terminal back as it was.
func (t *tty) close() {
	if t.quit != nil {
		t.quit.Close()
		t.input.Wait()
	}
	if t.caller != nil {
		t.caller.Reset()
	}
	t.master.Close()
}
