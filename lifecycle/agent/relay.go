package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle/linux"
)

// relays join the standard streams of a process to connections to the host.
// The process gets pipes, or a terminal, and never a connection itself: with
// one it could say on it what only the agent may.
type relays struct {
	child  [3]*os.File     // the process's ends; nil is /dev/null
	ours   []io.Closer     // our ends: pipes, or the terminal
	master console.Console // nil without a terminal
	conns  []net.Conn
	out    sync.WaitGroup
	once   sync.Once
	freed  sync.Once
}

// relay opens the streams of a process. With a terminal, pid is a process of
// the container that the terminal is to be in, 0 if there is none yet.
func (a *Agent) relay(ctx context.Context, s stdio, pid int) (*relays, error) {
	r := &relays{}
	if err := r.fill(ctx, a, s, pid); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *relays) fill(ctx context.Context, a *Agent, s stdio, pid int) error {
	if s.Terminal {
		return r.terminal(ctx, a, s, pid)
	}
	for i, name := range s.Streams {
		if name == "" {
			continue
		}
		conn, err := a.open(ctx, kindStream, name)
		if err != nil {
			return err
		}
		r.conns = append(r.conns, conn)
		pr, pw, err := os.Pipe()
		if err != nil {
			return err
		}
		child, our := pw, pr
		if i == 0 {
			child, our = pr, pw
		}
		r.child[i], r.ours = child, append(r.ours, our)
		// os.Pipe set it for us; the process does not expect it.
		if err := unix.SetNonblock(int(child.Fd()), false); err != nil {
			return err
		}
		if i == 0 {
			go func() { // ends when the host's input or the process's reading does
				io.Copy(our, conn)
				our.Close()
			}()
			continue
		}
		r.out.Go(func() { // ends when nobody holds the process's end
			if _, err := io.Copy(conn, our); err != nil {
				our.Close() // the host reads no more: the process gets the SIGPIPE that it would get there
			}
			closeWrite(conn)
		})
	}
	return nil
}

func (r *relays) terminal(ctx context.Context, a *Agent, s stdio, pid int) error {
	conn, err := a.open(ctx, kindStream, s.Streams[0])
	if err != nil {
		return err
	}
	r.conns = append(r.conns, conn)
	master, slave, err := linux.NewPTY(pid)
	if err != nil {
		return err
	}
	r.master, r.child = master, [3]*os.File{slave, slave, slave}
	r.ours = append(r.ours, master)
	if s.Rows > 0 {
		if err := r.resize(s.Rows, s.Cols); err != nil {
			return err
		}
	}
	go io.Copy(master, conn) // ends with the connection
	r.out.Go(func() {        // ends when nobody holds the slave
		io.Copy(conn, master)
		closeWrite(conn)
	})
	return nil
}

func closeWrite(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		return
	}
	conn.Close()
}

func (r *relays) resize(rows, cols uint16) error {
	if r.master == nil {
		return errors.New("the process has no terminal")
	}
	return r.master.Resize(console.WinSize{Height: rows, Width: cols})
}

// release lets go of the process's ends, once it has them.
func (r *relays) release() {
	r.freed.Do(func() {
		for i, f := range r.child {
			if f != nil && (i == 0 || f != r.child[0]) {
				f.Close()
			}
		}
	})
}

// ended waits until the output of a process that has ended is on its way to
// the host, but not for a process left behind that holds it open.
func (r *relays) ended() {
	done := make(chan struct{})
	go func() { // ends with the streams
		r.out.Wait()
		close(done)
	}()
	t := time.NewTimer(linux.OutputGrace)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// close ends the streams. It may be called more than once.
func (r *relays) close() {
	r.release()
	r.once.Do(func() {
		for _, c := range r.ours {
			c.Close()
		}
		for _, c := range r.conns {
			c.Close()
		}
	})
}
