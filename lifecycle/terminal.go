package lifecycle

import (
	"io"
	"os"
	"sync"
	"time"
)

// A Terminal is a pseudo-terminal for a process started by [Client.Exec], joined
// to the caller's terminal, which is in raw mode meanwhile.
//
//	t, err := lifecycle.OpenTerminal(os.Stdin, os.Stdout)
//	...
//	defer t.Close()
//	p, err := client.Exec(ctx, name, lifecycle.ExecConfig{Args: args, Stdio: t.Stdio(), Terminal: true})
//	t.Started()
//	...
//	status, err := p.Wait()
type Terminal struct {
	tty   *tty
	slave *os.File
	out   sync.WaitGroup
}

// OpenTerminal makes the pseudo-terminal. The file in must be a terminal.
func OpenTerminal(in, out *os.File) (*Terminal, error) {
	master, slave, err := newPTY()
	if err != nil {
		return nil, err
	}
	t := &Terminal{tty: &tty{master: master}, slave: slave}
	if err := t.tty.join(in); err != nil {
		slave.Close()
		master.Close()
		return nil, err
	}
	t.out.Go(func() { io.Copy(out, master) }) // ends when nobody holds the slave
	return t, nil
}

// Stdio are the process's ends.
func (t *Terminal) Stdio() [3]*os.File { return [3]*os.File{t.slave, t.slave, t.slave} }

// Started lets go of the process's ends, once it has them.
func (t *Terminal) Started() { t.slave.Close() }

// Resize makes the pseudo-terminal as large as the caller's terminal.
func (t *Terminal) Resize() { t.tty.resize() }

// Close gives the caller's terminal back as it was, after the last output of
// the process.
func (t *Terminal) Close() {
	t.slave.Close()
	done := make(chan struct{})
	go func() { t.out.Wait(); close(done) }() // ends when the slave is nobody's
	select {
	case <-done:
	case <-time.After(outputGrace): // a process left behind holds it
	}
	t.tty.close()
}
