package lifecycle

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/linux"
)

// A Terminal is a pseudo-terminal for a process started by [Client.Exec], joined
// to the caller's terminal, which is in raw mode meanwhile.
//
//	t, err := client.OpenTerminal(ctx, name, os.Stdin, os.Stdout)
//	...
//	defer t.Close()
//	p, err := client.Exec(ctx, name, lifecycle.ExecConfig{Args: args, Stdio: t.Stdio(), Terminal: true})
//	t.Started()
//	...
//	status, err := p.Wait()
type Terminal struct {
	tty   *tty
	slave *os.File
	guest bool
	out   sync.WaitGroup
}

// OpenTerminal makes a pseudo-terminal for a process of the named container (""
// if there is only one): one of the container's own /dev/pts if it has that,
// so that it has a name inside, and else one of the host's. The file in must be
// a terminal.
func (c *Client) OpenTerminal(ctx context.Context, container string, in, out *os.File) (*Terminal, error) {
	pid, guest := 0, container == MachineName
	if !guest {
		list, err := c.Stats(ctx, container)
		if err != nil {
			return nil, err
		}
		if len(list) != 1 {
			return nil, fmt.Errorf("pod %q: has %d containers, want the name of one", c.pod, len(list))
		}
		pid, guest = list[0].Pid, list[0].Guest
	}
	if guest {
		pid = 0 // the machine's agent makes one inside, and joins it to the host's
	}
	master, slave, err := linux.NewPTY(pid)
	if err != nil {
		return nil, err
	}
	t := &Terminal{tty: &tty{master: master}, slave: slave, guest: guest}
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

// Resize makes the pseudo-terminal of p as large as the caller's terminal. The
// host's kernel tells the processes that it knows; a machine's must be told.
func (t *Terminal) Resize(p *RemoteProcess) {
	t.tty.resize()
	if t.guest {
		p.Signal(unix.SIGWINCH) // at worst the size stays as it was
	}
}

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
